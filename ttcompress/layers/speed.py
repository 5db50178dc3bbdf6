"""Chooses the faster of the two ways to run a layer: "factored" or "rebuilt".

A small cost model in microseconds on one core. Only the comparison matters, so costs that both ways
share are left out. The constants were fitted to the right choices, not to times, as measured for
both ways at 64 to 1024 hidden units, batches of 1 to 128 and 1 to 35 steps, on one thread. The
worst choice was 14 % slower than the dense layer; at 64 units a call's fixed cost alone is as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Way = Literal["factored", "rebuilt"]
Run = Literal["auto", "factored", "rebuilt"]

CALL = 1.0
"""A product's fixed cost."""
CALLS_OF_A_CORE = 20
"""Contracting one core of an MPO costs as much as this many products' fixed cost."""
READ = 1e-4
"""Streaming one value of a matrix through the processor, once for each product."""
MULTIPLY_ADD = 1e-5
"""One multiply-add in a large product."""
PACK = 3e-4
"""Moving one value into the order that torch's LSTM kernel needs, once for each call."""
LAYER = 50.0
"""How much longer a layer takes in the loop than in the fused kernel, once for each call."""
TRACKED = 3.0
"""How many times longer a step of the loop takes when autograd records it."""
MARGIN = 1.1
"""How many times faster the loop must look to be chosen."""


@dataclass(frozen=True)
class Loop:
    """How the loop compares with the fused kernel of its kind.

    A step takes `step` longer, plus `value` for each value of the hidden state; arithmetic is
    slower by the factor `arithmetic`: factors are narrow, and some kernels better than others.
    """

    step: float
    value: float
    arithmetic: float


LOOPS = {
    "LSTM": Loop(step=12.0, value=3e-3, arithmetic=1.6),
    "GRU": Loop(step=6.0, value=0.0, arithmetic=1.1),
    "RNN_TANH": Loop(step=3.0, value=0.0, arithmetic=1.3),
    "RNN_RELU": Loop(step=3.0, value=0.0, arithmetic=1.3),
}


@dataclass(frozen=True)
class MatrixWork:
    """One matrix: multiply-adds when dense, when factored (in `calls` kernel calls), to rebuild."""

    dense: int
    factored: int
    calls: int
    rebuild: int

    @property
    def rebuild_time(self) -> float:
        """Time to make the dense matrix."""
        return self.dense * READ + self.rebuild * MULTIPLY_ADD

    def dense_time(self, batch: int) -> float:
        """Time to multiply a batch by the dense matrix once."""
        return CALL + self.dense * (READ + batch * MULTIPLY_ADD)

    def factored_time(self, batch: int, arithmetic: float = 1.0) -> float:
        """Time to multiply a batch by the train once."""
        return CALL * self.calls + self.factored * (READ + batch * MULTIPLY_ADD) * arithmetic


@dataclass(frozen=True)
class LayerWork:
    """One layer in one direction: `ih` runs once for all steps, `hh` and `hr` at every step."""

    mode: str
    hidden: int
    ih: MatrixWork
    hh: MatrixWork
    hr: MatrixWork | None

    @property
    def looped(self) -> tuple[MatrixWork, ...]:
        """The matrices inside the loop."""
        return (self.hh,) if self.hr is None else (self.hh, self.hr)

    def rebuilt_time(self, batch: int, steps: int, *, rebuild: bool = False) -> float:
        """Time of the fused kernel, and of making its dense weights unless they are cached."""
        packed = self.ih.dense + self.hh.dense if self.mode == "LSTM" else 0
        step = sum(matrix.dense_time(batch) for matrix in self.looped)
        made = sum(matrix.rebuild_time for matrix in (self.ih, *self.looped)) if rebuild else 0.0
        return made + PACK * packed + self.ih.dense_time(batch * steps) + steps * step

    def factored_time(self, batch: int, steps: int, *, tracked: bool = False) -> float:
        """Time of the loop over small products."""
        loop = LOOPS[self.mode]
        step = loop.step * (TRACKED if tracked else 1.0) + loop.value * self.hidden * batch
        step += sum(matrix.factored_time(batch, loop.arithmetic) for matrix in self.looped)
        return LAYER + self.ih.factored_time(batch * steps, loop.arithmetic) + steps * step


def faster_way(
    layers: tuple[LayerWork, ...], batch: int, steps: int, device: str, *, tracked: bool
) -> Way:
    """The faster way for recurrent layers.

    Rebuilt dense weights are cached, unless the call is `tracked` by autograd. On other devices
    than the CPU the fused kernel always wins: a loop there waits for launches, not for arithmetic.
    """
    if device != "cpu":
        return "rebuilt"
    factored = sum(work.factored_time(batch, steps, tracked=tracked) for work in layers)
    rebuilt = sum(work.rebuilt_time(batch, steps, rebuild=tracked) for work in layers)
    return "factored" if MARGIN * factored < rebuilt else "rebuilt"


def faster_product(work: MatrixWork, batch: int, *, rebuild: bool) -> Way:
    """The faster way for one product; `rebuild` says that the dense matrix cannot be cached."""
    rebuilt = work.dense_time(batch)
    if rebuild:
        rebuilt += work.rebuild_time
    return "factored" if work.factored_time(batch) < rebuilt else "rebuilt"


def check_run(run: Run) -> Run:
    """Check the argument and return it.

    Raises:
        ValueError: it is not one of the three.
    """
    if run not in get_args(Run):
        raise ValueError(f"run is {run!r}; it must be one of {', '.join(get_args(Run))}")
    return run
