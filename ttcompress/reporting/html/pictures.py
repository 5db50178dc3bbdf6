"""What a report says in figures enters; its pictures leave, as SVG. What they look like is here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import geometric_mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from ttcompress.model.report import CutSpectrum, WeightReport
from ttcompress.reporting.html.drawing import AXES, NONE, WIDTH, Drawing, picture
from ttcompress.reporting.html.palette import SERIES, light

MARKERS = ("o", "s", "^", "D", "v")
GATE_NAMES = {4: ("input", "forget", "cell", "output"), 3: ("reset", "update", "new")}
"""Names of a recurrent weight's blocks of rows, by their number: those of an LSTM, and a GRU's."""

_ROW = 36.0  # pixels of a bar with the line of text above it
_LEGEND = 24.0
_LEGEND_LINE = 15.0
_INSET = 5.0  # pixels that a mark at the end of a scale needs
_LONGEST = 34  # characters of a name that fit beside a figure


@dataclass(frozen=True)
class Bar:
    """A name, what it comes to in words, and its sizes before and after."""

    name: str
    figure: str
    before: float
    after: float


@dataclass(frozen=True)
class Spot:
    """A model by its bytes and its metric, its label, and whether it is on the front."""

    bytes: int
    worth: float
    label: str
    front: bool


@dataclass(frozen=True)
class Line:
    """The models of one format."""

    name: str
    spots: tuple[Spot, ...]


def sizes(title: str, bars: Sequence[Bar]) -> str:
    """One line for each: grey is what there was, and on it what is left."""
    most = max(max(bar.before, bar.after) for bar in bars) or 1

    def draw(axes: Axes) -> None:
        for row, bar in enumerate(bars):
            y = _heading(axes, row * _ROW, bar.name, bar.figure)
            axes.barh(y, bar.before / most * WIDTH, 9, color=light("before"))
            axes.barh(y, bar.after / most * WIDTH, 9, color=light("after"))
        _in_pixels(axes, len(bars) * _ROW)

    return picture(title, len(bars) * _ROW, draw, NONE)


def errors(title: str, weights: Sequence[WeightReport], figures: Sequence[str]) -> str:
    """One line for each weight: its error as a bar, and a mark for each gate."""
    most = _largest(error for w in weights for error in (w.relative_error, *w.gate_errors))
    gated = any(weight.gate_errors for weight in weights)
    top = _LEGEND if gated else 0.0
    height = top + len(weights) * _ROW

    def x(error: float) -> float:
        return min(error / most, 1.0) * (WIDTH - _INSET)  # of a zero gate an error is infinite

    def draw(axes: Axes) -> None:
        if gated:
            _gate_legend(axes, {len(w.gate_errors) for w in weights if w.gate_errors})
        for row, (weight, figure) in enumerate(zip(weights, figures, strict=True)):
            y = _heading(axes, top + row * _ROW, weight.name, figure)
            axes.plot([0, WIDTH], [y, y], color=light("line"), linewidth=1, zorder=0)
            axes.barh(y, x(weight.relative_error), 5, color=light("after"))
            for gate, error in enumerate(weight.gate_errors):
                _mark(axes, x(error), y, gate)
        _in_pixels(axes, height)

    return picture(title, height, draw, NONE)


def spectrum(title: str, cut: CutSpectrum) -> str:
    """Singular values, the largest being 1; what is kept is filled, up to the cut."""
    full_rank = cut.indices[-1] + 1
    values = np.array(cut.values) / (max(cut.values, default=0.0) or 1.0)
    places = np.array(cut.indices) + 1
    end = min(cut.rank + 0.5, places[-1])
    inner = places[places < end]
    kept = np.append(inner, end), np.append(values[: len(inner)], np.interp(end, places, values))

    def draw(axes: Axes) -> None:
        axes.fill_between(places, values, color=light("before"), alpha=0.5, linewidth=0)
        axes.fill_between(*kept, color=light("after"), alpha=0.35, linewidth=0)
        axes.plot(places, values, color=light("muted"), linewidth=1)
        axes.plot(*kept, color=light("after"), linewidth=2)
        axes.axvline(end, color=light("ink"), linewidth=1)
        early = end < 0.6 * full_rank
        axes.annotate(
            f"rank {cut.rank}",
            (end, 1.0),
            (6 if early else -6, 0),
            textcoords="offset pixels",
            ha="left" if early else "right",
            va="top",
        )
        axes.set_xlim(1, max(full_rank, 2))
        axes.set_ylim(0, 1.05)
        axes.set_yticks([0, 0.5, 1])
        axes.set_xticks(sorted({1, max(1, full_rank // 2), full_rank}))
        axes.set_xlabel("singular value")

    return picture(title, 170, draw)


def drift(title: str, layers: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each layer: how far its outputs part from what they were, over the steps."""
    told_apart = 1 < len(layers) <= len(SERIES)
    top = 10 + (_LEGEND_LINE * len(layers) if told_apart else 0)

    def draw(axes: Axes) -> None:
        for place, (layer, found) in enumerate(layers.items()):
            axes.plot(
                [int(step) for step in found],
                list(found.values()),
                marker=MARKERS[place % len(MARKERS)],
                color=light(SERIES[place % len(SERIES)]),
                label=_short(layer),
            )
        steps = sorted({int(step) for found in layers.values() for step in found})
        axes.set_xscale("log")
        axes.set_xticks(steps, [f"{step}" for step in steps])
        axes.minorticks_off()
        axes.set_ylim(0, 1.1 * _largest(v for found in layers.values() for v in found.values()))
        axes.margins(x=0.04)
        axes.set_xlabel("step")
        if told_apart:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, labelspacing=0.2)

    left, bottom, right, _ = AXES
    return picture(title, 170 + top, draw, (left, bottom, right, top))


def front(title: str, lines: Sequence[Line], worth: str, dense: float) -> Drawing:
    """Bytes against what they are worth; the front is filled, what is behind it hollow.

    `dense` is what the model is worth as it was: a line across.
    """
    top = 28 + _LEGEND_LINE * len(lines)

    def draw(axes: Axes) -> None:
        axes.axhline(dense, color=light("muted"), linewidth=1, linestyle="--")
        axes.annotate(
            "dense",
            (0, dense),
            (4, -3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="top",
            color=light("muted"),
        )
        for place, line in enumerate(lines):
            _front_line(axes, place, line)
        _spot_labels(axes, [spot for line in lines for spot in line.spots])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter("B"))
        axes.margins(x=0.08, y=0.12)
        axes.set_xlabel("bytes of the model's tensors")
        axes.set_ylabel(worth)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderpad=0,
            labelspacing=0.2,
            borderaxespad=2.0,  # below it are the spots' labels
        )

    return Drawing(title, 300 + top, draw, (56, 38, 12, top), width=520)


def _front_line(axes: Axes, place: int, line: Line) -> None:
    colour, marker = light(SERIES[place % len(SERIES)]), MARKERS[place % len(MARKERS)]
    spots = sorted(line.spots, key=lambda spot: spot.bytes)
    axes.plot(
        [spot.bytes for spot in spots],
        [spot.worth for spot in spots],
        color=colour,
        linewidth=1.5,
        marker=marker,
        label=line.name,
        zorder=2,
    )
    for spot in spots:
        axes.plot(
            [spot.bytes],
            [spot.worth],
            marker=marker,
            markersize=9 if spot.front else 6,
            color=colour,
            markerfacecolor=colour if spot.front else light("paper"),
            zorder=3,
        )


def _spot_labels(axes: Axes, spots: Sequence[Spot]) -> None:
    """What spots that stand above each other have in common, once, along the top."""
    for label in dict.fromkeys(spot.label for spot in spots):
        mean = geometric_mean([spot.bytes for spot in spots if spot.label == label])
        axes.axvline(mean, color=light("line"), linewidth=1, zorder=0)
        axes.annotate(
            label,
            (mean, 1),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            color=light("muted"),
        )


def _largest(values: Iterable[float]) -> float:
    """Of the finite ones, and 1 where all are zero: something to measure by."""
    return max(filter(isfinite, values), default=0.0) or 1.0


def _heading(axes: Axes, top: float, name: str, figure: str) -> float:
    """A line's name and figure; where, below them, its bar has its middle."""
    axes.text(0, top + 12, _short(name), fontsize=11)
    axes.text(WIDTH, top + 12, figure, ha="right", color=light("muted"))
    return top + 22


def _in_pixels(axes: Axes, height: float) -> None:
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()


def _gate_legend(axes: Axes, numbers: set[int]) -> None:
    """Marks with the names of the gates; of several kinds of layers, first, second, ..."""
    most = max(numbers)
    names = GATE_NAMES.get(most) if len(numbers) == 1 else None
    x = _INSET
    for gate in range(most):
        name = names[gate] if names else f"gate {gate + 1}"
        _mark(axes, x, _LEGEND / 2 - 3, gate)
        axes.text(x + 9, _LEGEND / 2 + 1, name, color=light("muted"))
        x += 22 + 6.5 * len(name)


def _mark(axes: Axes, x: float, y: float, gate: int) -> None:
    axes.plot(
        [x],
        [y],
        linestyle="none",
        marker=MARKERS[gate % len(MARKERS)],
        markersize=6,
        markerfacecolor=light("paper"),
        markeredgecolor=light("ink"),
        markeredgewidth=1,
    )


def _short(name: str) -> str:
    """A name on one line; of one too long, both ends.

    >>> _short("encoder.layers.0.recurrent.weight_hh_l0_reverse")
    'encoder.layers.0…ht_hh_l0_reverse'
    """
    line = " ".join(name.split())
    half = (_LONGEST - 1) // 2
    return line if len(line) <= _LONGEST else f"{line[:half]}…{line[-half:]}"
