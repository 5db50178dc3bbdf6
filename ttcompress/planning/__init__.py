"""Decides how every weight is compressed, from shapes, spectra and a recipe. Does not use torch."""
