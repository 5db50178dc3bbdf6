"""The mathematics: matrices as cores in every format, the one TT-SVD, weighted errors."""
