"""What a compressed model can be exported to. `registry` lists the targets."""
