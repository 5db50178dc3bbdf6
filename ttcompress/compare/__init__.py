"""The honest comparison: every method at equal bytes, measured alike."""
