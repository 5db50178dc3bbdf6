"""Post-training compression of LSTMs by tensor trains."""
