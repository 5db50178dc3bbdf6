"""Trains entropy-coded weights: rounding is seen from the first step, and bits have a price.

Each stored tensor is seen through a `CodedView`, whose steps are trained too. The loss gets the
bits that the codes take, at a price that `RateControl` steers until they take what they may:
entropy-constrained quantisation (Chou, Lookabaugh and Gray, IEEE Trans. ASSP 37, 1989) by gradient
descent; the gradient of a step is that of Esser et al., "Learned step size quantization" (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import torch
from torch import Tensor, nn

from ttcompress.stores import Encoded
from ttcompress.stores.coded import Coded
from ttcompress.stores.store import as_grid, from_grid

SCALE = log(2) / 4
"""The natural logarithm of a fourth of an octave: steps are stored on this grid."""

STEP = 0.1
"""A step in the units that are trained: at a rate of 2e-3, an update is a fiftieth of it."""

SMALLEST = 1e-30
"""The step where all values are zeros."""

FIRST_PRICE, LOWEST_PRICE = 0.02, 0.002
"""Of the allowed bits, in units of the loss; long runs end between .005 and .2.

A price that had fallen further while bits were left would not rise again in time.
"""

AIM = 0.994
"""Fraction of the allowed bits that is steered to: a run that ends above them is rounded anew."""

PUSH = 50.0
"""How much the price answers to what is used now: 1 % too much makes it 1.6 times as high."""

STEER_EVERY = 25
"""Steps between two looks at what the codes take."""


class CodedView(nn.Module):
    """Shows a core as the store would keep it, and passes gradients to its values and its steps.

    The trained values are the core's in units in which every first step is `STEP`. One learning
    rate is then the same fraction of all steps, and what an error costs little moves further.

    Args:
        part: the stored tensor to start from.
        in_place: train the core itself, since other layers read it without this view.
    """

    step: Tensor
    units: Tensor
    slopes: Tensor

    def __init__(self, part: Encoded, in_place: bool = False) -> None:
        super().__init__()
        assert isinstance(part.store, Coded)
        self.store, self._shape = part.store, part.shape
        fitted = self.store.fitted(part)
        self.rows = nn.Parameter(fitted["rows"].float() * SCALE)
        self.columns = nn.Parameter(fitted["columns"].float() * SCALE)
        self.register_buffer("step", fitted["step"])
        self.register_buffer("units", torch.ones(len(self.rows), len(self.columns)))
        self.register_buffer("slopes", torch.zeros_like(self.units))
        if not in_place:
            self.units.copy_(self._steps().detach() / STEP)

    def in_units(self, core: Tensor) -> Tensor:
        """What to train for the view to show this core."""
        return from_grid(as_grid(core) / self.units, self._shape)

    def forward(self, values: Tensor) -> Tensor:
        """The core: the nearest multiples of the steps."""
        steps = self._steps()
        exact = self._in_steps(values, steps)
        return from_grid((exact + (exact.round() - exact).detach()) * steps, self._shape)

    def bits(self, values: Tensor) -> Tensor:
        """Bits of the codes as far as gradients are concerned: linear in magnitudes.

        A geometric distribution of mean m takes log2(1 + 1 / m) bits more for each step away from
        zero, and a sign at the first.
        """
        magnitudes = self._in_steps(values, self._steps()).abs()
        return (self.slopes * magnitudes).sum() + magnitudes.clamp(max=1).sum()

    @torch.no_grad()
    def look(self, values: Tensor) -> float:
        """Update the slopes from the present codes, and return the bits that these take."""
        codes = self._in_steps(values, self._steps()).round()
        magnitudes = codes.abs() + 1e-3
        rows = magnitudes.mean(1, keepdim=True)
        columns = (magnitudes / rows).mean(0)
        self.slopes.copy_(torch.log2(1 + 1 / (rows * columns)))
        return self.store.count_bits(codes)

    @torch.no_grad()
    def encode(self, values: Tensor, coarser: float = 1.0) -> Encoded:
        """The core as it is stored, with all steps multiplied by `coarser`."""
        grid = as_grid(values.detach()) * self.units
        fitted = {
            "rows": (self.rows / SCALE).round().to(torch.int16).cpu(),
            "columns": (self.columns / SCALE).round().to(torch.int16).cpu(),
            "step": (self.step * coarser).cpu(),
        }
        return self.store.encode(from_grid(grid, self._shape).cpu(), fitted)

    def _in_steps(self, values: Tensor, steps: Tensor) -> Tensor:  # (components, places)
        return as_grid(values) * self.units / steps

    def _steps(self) -> Tensor:  # (components, places)
        rows, columns = (_on_grid(scale).exp() for scale in (self.rows, self.columns))
        return (rows * self.step.clamp(min=SMALLEST))[:, None] * columns


def _on_grid(scale: Tensor) -> Tensor:
    """Round to the stored grid, and pass the gradient back unchanged."""
    return scale + ((scale / SCALE).round() * SCALE - scale).detach()


@dataclass(eq=False)
class RateControl:
    """The price of bits, steered so that all codes together take what they may.

    Attributes:
        views: each with the parameter that it shows.
        allowed: bits of all codes together; a little less is aimed at.
        price: of the allowed bits, in units of the loss, in the long run.
        push: what the price is multiplied by until the next look.
    """

    views: Sequence[tuple[CodedView, Tensor]]
    allowed: float
    price: float = FIRST_PRICE
    push: float = 1.0

    def penalty(self) -> Tensor:
        """What to add to the loss."""
        total = sum((view.bits(values) for view, values in self.views), torch.zeros(()))
        return self.price * self.push / self.allowed * total

    def steer(self) -> float:
        """Look at the codes, move the price, and return the fraction of the allowed bits."""
        used = sum(view.look(values) for view, values in self.views) / self.allowed
        excess = log(used / AIM)
        self.price = max(LOWEST_PRICE, self.price * exp(max(-0.7, min(0.7, 5 * excess))))
        self.push = exp(max(-2.0, min(2.0, PUSH * excess)))
        return used
