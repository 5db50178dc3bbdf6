"""A drawing in matplotlib enters; a picture for a page, or a file, leaves. Of what, is not known.

One unit is one pixel. Colours become the page's own (`var(--ink)`), so that one picture serves
light and dark, and text stays text.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttcompress.reporting.html.palette import PALETTE, light

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
_SHARP = 3
"""Pixels of a PNG for each pixel of its drawing."""

_NO_SOFTWARE = {"Software": None}  # its version would change the bytes
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@dataclass(frozen=True)
class Drawing:
    """One pair of axes that `draw` fills, with margins around them, in pixels.

    `title` is what a reader who does not see it is told.
    """

    title: str
    height: float
    draw: Callable[[Axes], None]
    margins: Margins = AXES
    width: float = WIDTH

    def inline(self, attributes: str = "", sheet: str = "") -> str:
        """An `<svg>` to stand inside a page, whose colours and fonts it takes."""
        with self._figure() as figure:
            inside = _inside(_drawn(figure))
        name = escape(self.title)
        box = f'{attributes}viewBox="0 0 {self.width:g} {self.height:g}"'
        root = f'<svg {box} role="img" aria-label="{name}">'
        return f"{root}<title>{name}</title>{sheet}{inside}"

    def svg(self) -> bytes:
        """A file that follows the reader's light or dark scheme by itself."""
        light_scheme, dark_scheme = (
            ";".join(f"--{name}:{colours[scheme]}" for name, colours in PALETTE.items())
            for scheme in (0, 1)
        )
        sheet = (
            f"<style>svg{{{light_scheme};background:var(--paper);font-family:sans-serif}}"
            f"@media(prefers-color-scheme:dark){{svg{{{dark_scheme}}}}}</style>"
        )
        size = f'{_NAMESPACES} width="{self.width:g}" height="{self.height:g}" '
        return self.inline(size, sheet).encode()

    def png(self) -> bytes:
        """A file in the light scheme."""
        content = BytesIO()
        with self._figure() as figure:
            dots, paper = _SHARP * figure.dpi, light("paper")
            figure.savefig(content, format="png", dpi=dots, facecolor=paper, metadata=_NO_SOFTWARE)
        return content.getvalue()

    @contextmanager
    def _figure(self) -> Iterator[Figure]:
        left, bottom, right, top = self.margins
        width, height = self.width, self.height
        # From matplotlib's own defaults: a user's settings must not change a report.
        with style.context(["default", {**_STYLE, "svg.hashsalt": "ttcompress"}]):
            figure = Figure(figsize=(width / 72, height / 72), dpi=72)
            place = (left / width, bottom / height, 1 - (left + right) / width)
            self.draw(figure.add_axes((*place, 1 - (bottom + top) / height)))
            yield figure


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
    return Drawing(title, height, draw, margins).inline()


def _drawn(figure: Figure) -> str:
    text = StringIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text: what matplotlib's own font lacks does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _inside(document: str) -> str:
    """What is inside the root element, and its end."""
    inside = document[document.index("</metadata>") + len("</metadata>") :]
    inside = re.sub(r"<style.*?</style>", "", inside, flags=re.DOTALL)  # would reach the page
    return re.sub(r"\s*<[^>]*>\s*", _tag, inside)


def _tag(found: re.Match[str]) -> str:
    """One tag on one line, without the names that every picture gives, in the page's colours."""
    tag = " ".join(found[0].split())
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font-family: [^;]*; ", "", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _COLOURS.get(colour[0], colour[0]), tag)
