"""Trains one encoder with every loss, with several seeds, and compares."""
