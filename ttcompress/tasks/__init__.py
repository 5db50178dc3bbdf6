"""Tasks: the text that every Python carries, and what is measured of a model on it."""
