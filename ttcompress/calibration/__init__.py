"""Data-aware compression: what goes into the weights is collected, and they are fitted to it."""
