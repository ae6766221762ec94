"""Speaker recognition with a trained model."""
