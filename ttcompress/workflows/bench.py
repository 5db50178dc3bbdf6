"""How fast a compressed model runs on this machine: an artifact enters, a `Benchmark` leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ttcompress.artifact import CompressedModel, load
from ttcompress.errors import RecipeError
from ttcompress.results.benchmark import BenchLayer, Benchmark, TimedRun
from ttcompress.system.progress import Progress, silent
from ttcompress.system.timing import Timing, clock_for
from ttcompress.targets.onnx.extra import require_onnx

__all__ = ["BenchLayer", "Benchmark", "TimedRun", "Timing", "bench"]


def bench(
    source: str | Path | CompressedModel,
    *,
    batches: Sequence[int] = (1, 8, 32),
    steps: int = 35,
    threads: int = 1,
    seconds: float = 3.0,
    progress: Progress = silent,
) -> Benchmark:
    """Time each recurrent layer, dense and compressed, in torch and in ONNX Runtime.

    All ways take turns, so that a busy machine slows all of them; one thread is timed by what it
    worked. The dense weights are rebuilt from the artifact: of the original's shapes, and so of its
    cost.

    Args:
        source: an artifact's path, or a `CompressedModel`.
        batches: sequences side by side; each is measured.
        steps: length of the sequences.
        threads: of torch and of ONNX Runtime.
        seconds: for each layer and batch.
        progress: told what is being measured.

    Raises:
        MissingExtraError: the extra `onnx` is not installed.
        RecipeError: a number is not positive, or there is no recurrent layer.
    """
    require_onnx()
    from ttcompress.workflows.latency import BenchConditions, measure  # an extra

    for name, value in (("batch", min(batches, default=0)), ("steps", steps), ("threads", threads)):
        if value < 1:
            raise RecipeError(f"bench: {name} is {value}, and 1 is the least. Give more.")
    compressed = source if isinstance(source, CompressedModel) else load(source)
    clock = clock_for(threads)
    conditions = BenchConditions(tuple(batches), steps, threads, seconds, clock)
    layers, rows, left_out = measure(compressed, conditions, progress)
    return Benchmark(steps, threads, clock, tuple(layers), tuple(rows), tuple(left_out))
