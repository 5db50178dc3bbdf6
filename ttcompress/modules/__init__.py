"""Layers that run trains: `torch.nn` modules whose matrices may be tensor trains."""
