"""The mathematics: matrices as cores in every format, TT-SVD, and weighted errors."""
