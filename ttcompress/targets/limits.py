"""How far an export's outputs may be from torch's in float64."""

from __future__ import annotations

FLOAT_LIMIT = 1e-4
"""Allowed for any value of outputs near 1: float32 rounding in a different order of summation."""

SENSITIVITY = 10.0
"""Allowed beyond that: this many times the difference of torch's own outputs from those in float64.
Chaotic layers amplify rounding at every step, in torch's order of summation and in any other: over
20 steps, the two differed by up to 6 times. At few steps this is below the fixed limit, and a real
defect is seen there."""

ROUNDED_LIMITS = {"int8": 0.2, "int4": 0.7}
"""Allowed for the relative norm of the difference if products are rounded. Rounding to 8 bits costs
a few hundredths, to 4 bits a few tenths where a model amplifies it; a wrong output has about 1."""
