"""The command `compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ttcompress.cli.arguments import (
    Factors,
    Model,
    RecipeOptions,
    Talk,
    flatten_options,
    parse_factors,
)
from ttcompress.errors import TTCompressError

if TYPE_CHECKING:
    from ttcompress.results.comparison import Comparison


@flatten_options
def compare(model: Model, chosen: RecipeOptions, talk: Talk, factors: Factors = "4,8,16") -> None:
    """Compare all methods at equal size: error, time, accuracy.

    \b
    Example:
      ttcompress compare charlm.pt --factors 4,8,16 --task charlm

    \b
    mps, mpo   tensor trains, in ranks and bits chosen together
    svd        every weight by itself, cut by the same factor, its factors in int8
    quantised  every weight whole, in few bits
    codec      every weight whole, coded by NNCodec (ISO/IEC 15938-17)
    auto       for each weight the best of mps, mpo and quantised

    --task adds the metric. --calibrate and --finetune apply to mps, mpo and auto only.
    """
    from ttcompress.cli import console
    from ttcompress.reporting.comparison import comparison_remarks, comparison_tables
    from ttcompress.workflows.compare import compare as run

    def show(found: Comparison) -> None:
        title, tables = f"{model}: {chosen.title()}", comparison_tables(found)
        console.result(talk, found, title, tables, comparison_remarks(found))

    recipe, asked = chosen.resolve(), parse_factors(factors)
    known: list[Comparison] = []
    try:
        with console.progress(talk) as progress:
            run(model.path, asked, recipe, on_row=known.append, progress=progress)
    except (KeyboardInterrupt, TTCompressError):
        if known:  # each factor may have taken an hour of training
            show(known[-1])
            console.say(f"ended after {len(known)} of {len(asked)} factors", talk)
        raise
    show(known[-1])
