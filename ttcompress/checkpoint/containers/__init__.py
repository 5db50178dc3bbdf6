"""One reader for each kind of model file."""
