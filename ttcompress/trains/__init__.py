"""The mathematics: one TT-SVD, trains as products of cores, number types."""
