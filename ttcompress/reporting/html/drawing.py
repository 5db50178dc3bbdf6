"""Turns what matplotlib draws into a picture on the page, or into a separate file.

One unit is one pixel, and text stays text. `palette.style_sheet` gives pictures their colours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttcompress.reporting.html.palette import light, style_sheet

WIDTH = 340.0
"""Pixels: pictures stand side by side on a desktop and below each other on a phone."""

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
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.labelcolor": light("ink"),
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": light("ink"),
    "text.parse_math": False,  # a weight's name is not a formula
    "xtick.color": light("line"),
    "xtick.labelcolor": light("muted"),
    "xtick.labelsize": 10,
    "ytick.color": light("line"),
    "ytick.labelcolor": light("muted"),
    "ytick.labelsize": 10,
}
_SHARP = 3
"""Pixels of a PNG for each pixel of its drawing."""

_NO_SOFTWARE = {"Software": None}  # its version would change the bytes
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@dataclass(frozen=True)
class Drawing:
    """One pair of axes that `draw` fills, with margins around them, in pixels.

    `title` is read out to a reader who cannot see it.
    """

    title: str
    height: float
    draw: Callable[[Axes], None]
    margins: Margins = AXES
    width: float = WIDTH

    def inline(self, attributes: str = "", sheet: str = "") -> str:
        """An `<svg>` to stand inside a page, whose colours and fonts it takes."""
        text = StringIO()
        with self._figure() as figure, warnings.catch_warnings():
            # The reader's fonts draw the text: what matplotlib's own font lacks does not matter.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(text, format="svg", metadata={"Date": None})
        inside = text.getvalue().partition("</metadata>")[2].strip()
        name = escape(self.title)
        box = f'{attributes}viewBox="0 0 {self.width:g} {self.height:g}"'
        root = f'<svg {box} role="img" aria-label="{name}">'
        return f"{root}<title>{name}</title>{sheet}{inside}"

    def svg(self) -> bytes:
        """A file that follows the reader's light or dark scheme by itself."""
        rules = (
            "svg { background: var(--paper); }\nsvg text { font-family: sans-serif !important; }"
        )
        size = f'{_NAMESPACES} width="{self.width:g}" height="{self.height:g}" '
        return self.inline(size, f"<style>\n{style_sheet()}\n{rules}\n</style>").encode()

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
