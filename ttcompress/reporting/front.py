"""Draws the front of a sweep as an SVG or PNG file; needs the extra `plots`."""

from __future__ import annotations

from pathlib import Path

from ttcompress.errors import RecipeError
from ttcompress.reporting.html import require_plots
from ttcompress.results.sweep import Sweep

NOTATIONS = (".svg", ".png")


def check_picture(path: Path) -> None:
    """Refuse, before the work, a picture that could not be drawn after it.

    Raises:
        RecipeError: its name does not end in .svg or .png.
        MissingExtraError: the extra `plots` is not installed.
    """
    if path.suffix not in NOTATIONS:
        raise RecipeError(
            f"--picture: expected a name ending in {' or '.join(NOTATIONS)}, got {path}."
        )
    require_plots("--picture", "The table and --json work without it.")


def front_picture(found: Sweep, suffix: str = ".svg") -> bytes:
    """Bytes against the metric, with the front of each format as a line.

    Points on the front of the sweep are filled, which counts multiply-adds too; the others hollow.

    Args:
        found: the sweep.
        suffix: .svg, which follows the reader's light or dark scheme, or .png, which is light.

    Raises:
        RecipeError, MissingExtraError: see `check_picture`.
    """
    check_picture(Path(f"front{suffix}"))
    from ttcompress.reporting.html.pictures import Spot, front  # an extra

    lines: dict[str, list[Spot]] = {}
    for point in found.points:
        if point.figures is not None:
            x, y = point.figures.bytes, found.worth(point.figures)
            own = found.best_of_format(point)
            spot = Spot(x, y, f"{point.factor:g}x", point in found.front, own)
            lines.setdefault(point.format, []).append(spot)
    drawing = front(
        f"Bytes of {found.model} against {found.metric or 'the largest error'}",
        lines,
        found.metric or "largest error of a weight",
        found.worth(found.dense),
    )
    return drawing.svg() if suffix == ".svg" else drawing.png()
