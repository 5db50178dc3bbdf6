"""The command `bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Talk, flattened
from ttcompress.errors import BROKEN_LIMIT

Batches = Annotated[str, typer.Option("--batch", metavar="N,N,...", help="Sequences side by side.")]
Steps = Annotated[int, typer.Option("--steps", help="Length of the sequences.")]
Threads = Annotated[int, typer.Option("--threads", help="Of torch and ONNX Runtime.")]
MinSpeedup = Annotated[
    float | None,
    typer.Option(
        "--min-speedup",
        metavar="X",
        help="Exit 4 unless the fastest compressed run beats the fastest dense one X times.",
    ),
]


@flattened
def bench(
    file: Artifact,
    talk: Talk,
    batch: Batches = "1,8,32",
    steps: Steps = 35,
    threads: Threads = 1,
    min_speedup: MinSpeedup = None,
) -> None:
    """Time FILE's recurrent layers beside dense ones, in torch and ONNX Runtime, float and int8.

    Where the compressed layer is the slower one, it says so, and why. Needs the extra onnx.

    \b
    Example:
      ttcompress bench charlm.mps.safetensors --batch 1,8
    """
    batches = _numbers(batch)
    from ttcompress.cli import console
    from ttcompress.reporting.bench import bench_remarks, bench_tables
    from ttcompress.workflows.bench import bench as measure

    with console.progress(talk) as progress:
        found = measure(file, batches=batches, steps=steps, threads=threads, progress=progress)
    plain = found.as_json()
    console.result(talk, plain, str(file), bench_tables(plain), bench_remarks(plain))
    if min_speedup is not None and found.speed_up < min_speedup:
        console.say(
            f"limit broken: min_speedup {min_speedup:g} asked, {found.speed_up:.3g} found", talk
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
        raise typer.BadParameter(f"{text!r} is no list of whole numbers. Write 1,8,32.") from None
