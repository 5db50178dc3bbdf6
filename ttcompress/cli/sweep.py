"""The command `sweep`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.arguments import (
    Factors,
    LimitOptions,
    Model,
    Overwrite,
    Talk,
    flatten_options,
    parse_factors,
)
from ttcompress.cli.artifact import default_name
from ttcompress.cli.engine import EngineOptions, Force, say_done
from ttcompress.cli.model_file import ModelFile
from ttcompress.errors import RecipeError

if TYPE_CHECKING:
    from ttcompress.results.sweep import Sweep

Formats = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME,...", help="Methods to try: mps, mpo, auto, svd, quantised, codec."
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the artifacts, reused by the next run.  [charlm.sweep for charlm.pt]"
    ),
]


@dataclass(frozen=True)
class SweepOutputs:
    """Files that are written besides the table."""

    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw size against quality, as .svg or .png."),
    ] = None
    pick: Annotated[
        str | None,
        typer.Option(metavar="POINT", help="Write this point, such as mps@16, and its recipe."),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for the picked point.  [as for decompose]"),
    ] = None
    overwrite: Overwrite = False

    def check(self, model: ModelFile, points: list[str]) -> None:
        """Refuse, before the work, an output that could not be written after it.

        Raises:
            RecipeError: an option that does not fit the others.
            OutputPathError: an output exists, or its folder does not.
            MissingExtraError: a picture was asked for, but the extra is not installed.
        """
        from ttcompress.reporting.front import check_picture
        from ttcompress.results.sweep import check_name
        from ttcompress.system.files import check_output
        from ttcompress.workflows.pick import recipe_beside

        if self.picture is not None:
            check_picture(self.picture)
            check_output(self.picture, self.overwrite)
        if self.pick is not None:
            check_name(self.pick, points)
            artifact = self._artifact(model, self.pick)
            for path in (artifact, recipe_beside(artifact)):
                check_output(path, self.overwrite)
        elif self.output is not None:
            raise RecipeError("--output only applies to a picked point; add --pick.")

    def write(self, found: Sweep, model: ModelFile, talk: Talk) -> None:
        """Write the picture and the picked point, where they were asked for."""
        from ttcompress.cli import console
        from ttcompress.reporting.front import front_picture
        from ttcompress.system.files import written_whole
        from ttcompress.workflows.pick import pick

        if self.picture is not None:
            with written_whole(self.picture, self.overwrite) as file:
                file.write(front_picture(found, self.picture.suffix))
            console.say(f"wrote {self.picture}", talk)
        if self.pick is not None:
            artifact = self._artifact(model, self.pick)
            recipe = pick(found, self.pick, artifact, overwrite=self.overwrite)
            console.say(f"wrote {artifact} and {recipe}", talk)

    def _artifact(self, model: ModelFile, pick: str) -> Path:
        return self.output or Path(default_name(model, pick.partition("@")[0]))


@flatten_options
def sweep(
    model: Model,
    chosen: LimitOptions,
    where: EngineOptions,
    wanted: SweepOutputs,
    talk: Talk,
    factors: Factors = "2,4,8,16,32",
    formats: Formats = "mps,mpo",
    folder: Folder = None,
    force: Force = False,
) -> None:
    """Compress at many sizes, and show which are worth taking.

    \b
    Example:
      ttcompress sweep charlm.pt --factors 4,8,16 --task charlm --pick mps@16

    A point is on the front if no other is as small, as fast and as accurate, and better in one of
    these. svd, quantised and codec are as in compare; exit codes are those of batch.
    """
    from ttcompress.cli import console
    from ttcompress.workflows import sweep as run
    from ttcompress.workflows.methods import CODEC

    asked, names, engine = parse_factors(factors), formats.split(","), where.chosen(talk)
    pickable = [name for name in names if name != CODEC]
    wanted.check(model, [run.point_name(name, factor) for name in pickable for factor in asked])
    with console.jobs_progress(talk) as (progress, say):
        found = run.sweep(
            model.path,
            chosen.resolve(),
            factors=asked,
            formats=names,
            folder=folder or Path(f"{model.stem}.sweep"),
            engine=engine,
            force=force,
            on_outcome=partial(say_done, say),
            progress=progress,
        )
    _show(f"{model}: {chosen.title()}", found, talk)
    wanted.write(found, model, talk)
    raise typer.Exit(found.exit_code)


def _show(title: str, found: Sweep, talk: Talk) -> None:
    from ttcompress.cli import console
    from ttcompress.reporting.sweep import sweep_remarks, sweep_table

    console.result(talk, found, title, [sweep_table(found)], sweep_remarks(found))
