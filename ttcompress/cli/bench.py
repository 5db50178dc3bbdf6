"""The command `bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Talk, flatten_options
from ttcompress.errors import BROKEN_LIMIT

Batches = Annotated[str, typer.Option("--batch", metavar="N,N,...", help="Batch sizes.")]
Steps = Annotated[int, typer.Option("--steps", help="Sequence length.")]
Threads = Annotated[int, typer.Option("--threads", help="Threads of torch and ONNX Runtime.")]
MinSpeedup = Annotated[
    float | None,
    typer.Option(
        "--min-speedup",
        metavar="X",
        help="Exit 4 unless compressed is X times as fast as dense, each at its fastest.",
    ),
]


@flatten_options
def bench(
    file: Artifact,
    talk: Talk,
    batch: Batches = "1,8,32",
    steps: Steps = 35,
    threads: Threads = 1,
    min_speedup: MinSpeedup = None,
) -> None:
    """Time a compressed model's layers against dense ones.

    \b
    Example:
      ttcompress bench charlm.auto.safetensors --batch 1,8

    Layers run in torch and in ONNX Runtime, in float32 and int8. Where the compressed layer is
    slower, the remarks say so, and why. Needs the extra onnx.
    """
    batches = _numbers(batch)
    from ttcompress.cli import console
    from ttcompress.reporting.bench import bench_remarks, bench_tables
    from ttcompress.system.threads import remark_on_threads
    from ttcompress.workflows.bench import bench as measure

    if remark := remark_on_threads(threads, "--threads"):
        console.say(remark, talk)
    with console.progress(talk) as progress:
        found = measure(file.path, batches=batches, steps=steps, threads=threads, progress=progress)
    plain = found.as_json()
    console.result(talk, plain, str(file), bench_tables(plain), bench_remarks(plain))
    if min_speedup is not None and found.speed_up < min_speedup:
        console.say(
            f"limit broken: min_speedup is {min_speedup:g}, but got {found.speed_up:.3g}", talk
        )
        raise typer.Exit(BROKEN_LIMIT)


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers between commas.

    >>> _numbers("1,8")
    (1, 8)
    """
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"expected whole numbers, such as 1,8,32, got {text!r}.") from None
