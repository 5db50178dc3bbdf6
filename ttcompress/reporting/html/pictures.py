"""Draws the pictures of the page, and the front of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from statistics import geometric_mean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from ttcompress.model.report import CutSpectrum, WeightReport
from ttcompress.reporting.html.drawing import AXES, NONE, WIDTH, Drawing
from ttcompress.reporting.html.palette import SERIES, light

MARKERS = ("o", "s", "^", "D", "v")
_GATE_NAMES = {4: ("input", "forget", "cell", "output"), 3: ("reset", "update", "new")}
"""Names of a recurrent weight's blocks of rows, by their number: those of an LSTM, and a GRU's."""

_ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
_ABOVE |= {"borderpad": 0, "labelspacing": 0.2}
"""A legend above the axes."""

_ROW = 36.0  # pixels of a bar with the line of text above it
_LEGEND = 24.0
_LEGEND_LINE = 15.0
_INSET = 5.0  # pixels that a mark at the end of a scale needs
_LONGEST = 34  # characters of a name that fit beside a figure


@dataclass(frozen=True)
class Bar:
    """A name, its figure in words, and its sizes before and after."""

    name: str
    figure: str
    before: float
    after: float


@dataclass(frozen=True)
class Spot:
    """A model by its bytes and its metric, and its label.

    `front` says whether it is on the front of all models, `own` whether on that of its format.
    """

    bytes: int
    worth: float
    label: str
    front: bool
    own: bool


def gate_names(weights: Sequence[WeightReport]) -> tuple[str, ...]:
    """Names of the gates; only numbers if there are several kinds of layers."""
    kinds = {len(weight.gate_errors) for weight in weights} - {0}
    most = max(kinds, default=0)
    numbered = tuple(f"gate {gate + 1}" for gate in range(most))
    return _GATE_NAMES.get(most, numbered) if len(kinds) == 1 else numbered


def sizes(title: str, bars: Sequence[Bar]) -> str:
    """One line for each: grey is the size before, and on it the size after."""
    most = max(max(bar.before, bar.after) for bar in bars) or 1

    def draw(axes: Axes) -> None:
        for row, bar in enumerate(bars):
            y = _heading(axes, row * _ROW, bar.name, bar.figure)
            axes.barh(y, bar.before / most * WIDTH, 9, color=light("before"))
            axes.barh(y, bar.after / most * WIDTH, 9, color=light("after"))
        _in_pixels(axes, len(bars) * _ROW)

    return Drawing(title, len(bars) * _ROW, draw, NONE).inline()


def errors(title: str, weights: Sequence[WeightReport], figures: Sequence[str]) -> str:
    """One line for each weight: its error as a bar, and a mark for each gate."""
    most = _largest(error for w in weights for error in (w.relative_error, *w.gate_errors))
    gates = gate_names(weights)
    top = _LEGEND if gates else 0.0
    height = top + len(weights) * _ROW

    def x(error: float) -> float:
        return min(error / most, 1.0) * (WIDTH - _INSET)  # the error of a zero gate is infinite

    def draw(axes: Axes) -> None:
        x_name = _INSET
        for gate, name in enumerate(gates):
            _mark(axes, x_name, _LEGEND / 2 - 3, gate)
            axes.text(x_name + 9, _LEGEND / 2 + 1, name, color=light("muted"))
            x_name += 22 + 6.5 * len(name)
        for row, (weight, figure) in enumerate(zip(weights, figures, strict=True)):
            y = _heading(axes, top + row * _ROW, weight.name, figure)
            axes.plot([0, WIDTH], [y, y], color=light("line"), linewidth=1, zorder=0)
            axes.barh(y, x(weight.relative_error), 5, color=light("after"))
            for gate, error in enumerate(weight.gate_errors):
                _mark(axes, x(error), y, gate)
        _in_pixels(axes, height)

    return Drawing(title, height, draw, NONE).inline()


def spectrum(title: str, cut: CutSpectrum, bits: float) -> str:
    """Singular values relative to the largest; those kept are filled, up to the cut.

    `bits` are those of a value that is kept, on average.
    """
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
        offset, side = (6, "left") if early else (-6, "right")
        text = f"rank {cut.rank} of {full_rank}\n{bits:.1f} bits a value"
        axes.annotate(text, (end, 1), (offset, 0), textcoords="offset pixels", ha=side, va="top")
        axes.set_xlim(1, max(full_rank, 2))
        axes.set_ylim(0, 1.05)
        axes.set_yticks([0, 0.5, 1])
        axes.set_xticks(sorted({1, max(1, full_rank // 2), full_rank}))
        axes.set_xlabel("singular value")

    return Drawing(title, 170, draw).inline()


def drift(title: str, layers: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each layer: how far its outputs drift from the original's over the steps."""
    told_apart = 1 < len(layers) <= len(SERIES)
    top = 10 + (_LEGEND_LINE * len(layers) if told_apart else 0)

    def draw(axes: Axes) -> None:
        for place, (layer, found) in enumerate(layers.items()):
            colour, marker = light(SERIES[place % len(SERIES)]), MARKERS[place % len(MARKERS)]
            x, y = [int(step) for step in found], list(found.values())
            axes.plot(x, y, marker=marker, color=colour, label=_short(layer))
        steps = sorted({int(step) for found in layers.values() for step in found})
        axes.set_xscale("log")
        axes.set_xticks(steps, [f"{step}" for step in steps])
        axes.minorticks_off()
        axes.set_ylim(0, 1.1 * _largest(v for found in layers.values() for v in found.values()))
        axes.margins(x=0.04)
        axes.set_xlabel("step")
        if told_apart:
            axes.legend(**_ABOVE)

    left, bottom, right, _ = AXES
    return Drawing(title, 170 + top, draw, (left, bottom, right, top)).inline()


def latency(
    title: str,
    dense: Mapping[str, Mapping[int, float]],
    compressed: Mapping[str, Mapping[int, float]],
) -> str:
    """Milliseconds by batch size, a line for each way to run; grey ones are dense."""
    ways = [*dense.items(), *compressed.items()]
    top = 10 + _LEGEND_LINE * ceil(len(ways) / 2)

    def draw(axes: Axes) -> None:
        for place, (way, times) in enumerate(ways):
            series = place - len(dense)
            colour = light("muted" if series < 0 else SERIES[series % len(SERIES)])
            marker = MARKERS[(place if series < 0 else series) % len(MARKERS)]
            line = "--" if series < 0 else "-"
            axes.plot(
                list(times), list(times.values()), line, marker=marker, color=colour, label=way
            )
        batches = sorted({batch for _, times in ways for batch in times})
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(batches, [f"{batch}" for batch in batches])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.margins(x=0.04)
        axes.set_xlabel("batch size")
        axes.legend(**_ABOVE, ncols=2)

    left, bottom, right, _ = AXES
    return Drawing(title, 200 + top, draw, (left, bottom, right, top)).inline()


def front(title: str, lines: Mapping[str, Sequence[Spot]], worth: str, dense: float) -> Drawing:
    """Bytes against quality, a line for the front of each format; points on that of all are filled.

    Args:
        title: read out to a reader who cannot see it.
        lines: the models by format.
        worth: the label of the vertical axis.
        dense: the quality of the dense model, drawn as a horizontal line.
    """
    top = 28 + _LEGEND_LINE * len(lines)
    muted = light("muted")
    fixed_x: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    fixed_y: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}

    def draw(axes: Axes) -> None:
        axes.axhline(dense, color=muted, linewidth=1, linestyle="--")
        axes.annotate("dense", (0, dense), (4, -3), va="top", color=muted, **fixed_x)
        for place, (name, spots) in enumerate(lines.items()):
            _front_line(axes, place, name, spots)
        # The label that spots above each other share, once, along the top.
        for label in dict.fromkeys(spot.label for spots in lines.values() for spot in spots):
            labelled = [s.bytes for spots in lines.values() for s in spots if s.label == label]
            mean = geometric_mean(labelled)
            axes.axvline(mean, color=light("line"), linewidth=1, zorder=0)
            axes.annotate(label, (mean, 1), (0, 3), ha="center", color=muted, **fixed_y)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter("B"))
        axes.margins(x=0.08, y=0.12)
        axes.set_xlabel("bytes of the model's tensors")
        axes.set_ylabel(worth)
        # 2 em away from the axes: the spots' labels are between.
        axes.legend(**_ABOVE, borderaxespad=2.0)

    return Drawing(title, 300 + top, draw, (56, 38, 24, top), width=520)


def _front_line(axes: Axes, place: int, name: str, spots: Sequence[Spot]) -> None:
    colour, marker = light(SERIES[place % len(SERIES)]), MARKERS[place % len(MARKERS)]
    style: dict[str, Any] = {"color": colour, "marker": marker}
    ordered = sorted(spots, key=lambda spot: spot.bytes)
    own = [spot for spot in ordered if spot.own]
    x, y = [spot.bytes for spot in own], [spot.worth for spot in own]
    axes.plot(x, y, linewidth=1.5, label=name, zorder=2, **style)
    for spot in ordered:
        face, size = (colour, 9) if spot.front else (light("paper"), 6)
        mark = style | {"markersize": size, "markerfacecolor": face}
        axes.plot([spot.bytes], [spot.worth], zorder=3, **mark)


def _largest(values: Iterable[float]) -> float:
    """The largest finite value, or 1 if all are zero, so that one can divide by it."""
    return max(filter(isfinite, values), default=0.0) or 1.0


def _heading(axes: Axes, top: float, name: str, figure: str) -> float:
    """Write a line's name and figure; returns the height at which its bar is centred."""
    axes.text(0, top + 12, _short(name), fontsize=11)
    axes.text(WIDTH, top + 12, figure, ha="right", color=light("muted"))
    return top + 22


def _in_pixels(axes: Axes, height: float) -> None:
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()


def _mark(axes: Axes, x: float, y: float, gate: int) -> None:
    face: dict[str, Any] = {"markerfacecolor": light("paper"), "markeredgecolor": light("ink")}
    marker = MARKERS[gate % len(MARKERS)]
    axes.plot([x], [y], linestyle="none", marker=marker, markersize=6, markeredgewidth=1, **face)


def _short(name: str) -> str:
    """A name on one line, with its middle cut out if it is too long.

    >>> _short("encoder.layers.0.recurrent.weight_hh_l0_reverse")
    'encoder.layers.0…ht_hh_l0_reverse'
    """
    line = " ".join(name.split())
    half = (_LONGEST - 1) // 2
    return line if len(line) <= _LONGEST else f"{line[:half]}…{line[-half:]}"
