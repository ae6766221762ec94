"""Hyperbolic softmax losses for speaker verification with SpeechBrain."""

__version__ = "0.1.0"
