"""Data-aware compression: collects what goes into the weights, and fits them to it."""
