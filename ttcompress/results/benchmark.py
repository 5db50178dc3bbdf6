"""What `bench` returns: timings of every way to run a layer, and remarks on which is fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ttcompress.model.report import Json
from ttcompress.system.json import plain
from ttcompress.system.timing import Clock, Timing

DENSE = ("torch dense", "onnx dense", "onnx dense int8")
SMALL = ("torch compressed", "onnx compressed", "onnx compressed int8", "c", "c int8")
"""Names of the ways to run a layer."""

FEW = 2.0
"""Below this saving in multiply-adds, arithmetic explains why nothing became faster."""


@dataclass(frozen=True)
class BenchLayer:
    """A recurrent layer: its path, hidden size, and how many times fewer multiply-adds it needs."""

    name: str
    hidden_size: int
    fewer: float


@dataclass(frozen=True)
class TimedRun:
    """One way to run one layer with one batch.

    `speed_up` is over the fastest dense way, int8 included; `bytes` is the size of the file, or
    for torch that of the layer's tensors as stored.
    """

    part: str
    batch: int
    run: str
    time: Timing
    speed_up: float
    bytes: int


@dataclass(frozen=True)
class Benchmark:
    """The measurements of one run; `left_out` lists ways that cannot run, and why."""

    steps: int
    threads: int
    clock: Clock
    layers: tuple[BenchLayer, ...]
    rows: tuple[TimedRun, ...]
    left_out: tuple[str, ...] = ()

    @property
    def speed_up(self) -> float:
        """The speed-up of the fastest compressed way, at the layer and batch where it is lowest."""
        return min(best.speed_up for _, _, best in self._verdicts())

    def remarks(self) -> Iterator[str]:
        """A line for each layer and batch: what is fastest, and why if that is dense."""
        for layer, dense, best in self._verdicts():
            place = f"{layer.name}, batch {best.batch}"
            times = (
                f"{best.time.median:.3g} ms ({best.run}) against {dense.time.median:.3g} ms "
                f"({dense.run})"
            )
            if best.speed_up >= 1:
                yield f"{place}: {best.speed_up:.3g}x faster, {times}"
            else:
                yield f"{place}: {1 / best.speed_up:.3g}x SLOWER, {times}: {_reason(layer)}"

        yield from (f"not timed: {line}" for line in self.left_out)

    def as_json(self) -> Json:
        """Plain values."""
        return {**plain(self), "speed_up": self.speed_up, "remarks": list(self.remarks())}

    def _verdicts(self) -> Iterator[tuple[BenchLayer, TimedRun, TimedRun]]:
        """Each layer and batch with the fastest dense way and the fastest compressed one."""
        for layer in self.layers:
            own = [row for row in self.rows if row.part == layer.name]
            for batch in dict.fromkeys(row.batch for row in own):
                here = sorted(
                    (row for row in own if row.batch == batch), key=lambda row: row.time.median
                )
                dense = next(row for row in here if row.run in DENSE)
                yield layer, dense, next(row for row in here if row.run in SMALL)


def _reason(layer: BenchLayer) -> str:
    if layer.fewer < FEW:
        return (
            f"it needs only {layer.fewer:.1f}x fewer multiply-adds. Few bits save bytes, but only "
            "low ranks save time: see the recipe fast"
        )
    return (
        f"with {layer.hidden_size} hidden units a step is so short that starting its many small "
        "operations takes longer than the arithmetic; a dense layer is a single operation"
    )
