"""Speaker recognition with an exported model."""

from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

__all__ = ["HyperbolicSpeakerRecognition", "VoiceprintStore"]
