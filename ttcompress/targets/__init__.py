"""The targets that a compressed model can be exported to, listed in `registry`."""
