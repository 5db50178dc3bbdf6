"""The number types that cores and dense weights are kept in, and rounding to them."""
