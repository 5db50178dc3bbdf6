"""Formats that a compressed model is exported to."""
