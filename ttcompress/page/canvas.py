"""A drawing in matplotlib enters; SVG to stand inside a page leaves. What is drawn is not known.

One unit is one pixel. Colours become the page's own (`var(--ink)`), so that one picture serves
light and dark, and text stays text.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from html import escape
from io import StringIO

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttcompress.page.palette import PALETTE, light

WIDTH = 340.0
"""Pixels: pictures stand side by side on a desk and one below the other on a phone."""

Margins = tuple[float, float, float, float]
"""Pixels at the left, bottom, right and top of the axes."""

NONE: Margins = (0.0, 0.0, 0.0, 0.0)
AXES: Margins = (38.0, 34.0, 10.0, 10.0)

_STYLE = {
    "axes.edgecolor": light("line"),
    "axes.facecolor": "none",
    "axes.labelcolor": light("muted"),
    "axes.labelsize": 10,
    "axes.linewidth": 1,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.labelcolor": light("ink"),
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": light("ink"),
    "text.parse_math": False,  # a weight's name is no formula
    "xtick.color": light("line"),
    "xtick.labelcolor": light("muted"),
    "xtick.labelsize": 10,
    "ytick.color": light("line"),
    "ytick.labelcolor": light("muted"),
    "ytick.labelsize": 10,
}
_COLOURS = {colours[0]: f"var(--{name})" for name, colours in PALETTE.items()}


def picture(
    title: str, height: float, draw: Callable[[Axes], None], margins: Margins = AXES
) -> str:
    """An `<svg>` of `WIDTH` x `height` pixels whose one pair of axes `draw` fills.

    Args:
        title: what a reader who does not see it is told.
        height: in pixels.
        draw: is given the axes.
        margins: around them.
    """
    left, bottom, right, top = margins
    # From matplotlib's own defaults: a user's settings must not change a report.
    with style.context(["default", {**_STYLE, "svg.hashsalt": "ttcompress"}]):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        place = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH)
        draw(figure.add_axes((*place, 1 - (bottom + top) / height)))
        return _inline(_drawn(figure), title, height)


def _drawn(figure: Figure) -> str:
    text = StringIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text: what matplotlib's own font lacks does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _inline(document: str, title: str, height: float) -> str:
    """What is inside the root element, in an element of the page."""
    inside = document[document.index("</metadata>") + len("</metadata>") :]
    inside = re.sub(r"<style.*?</style>", "", inside, flags=re.DOTALL)  # would reach the page
    inside = re.sub(r"\s*<[^>]*>\s*", _tag, inside)
    name = escape(title)
    box = f'viewBox="0 0 {WIDTH:g} {height:g}"'
    return f'<svg {box} role="img" aria-label="{name}"><title>{name}</title>{inside}'


def _tag(found: re.Match[str]) -> str:
    """One tag on one line, without the names that every picture gives, in the page's colours."""
    tag = " ".join(found[0].split())
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font-family: [^;]*; ", "", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _COLOURS.get(colour[0], colour[0]), tag)
