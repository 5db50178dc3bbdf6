"""Estimates how much an error in each gate affects a layer's outputs.

An error hardly matters in a saturated gate, but does in one that opens a cell whose content lasts.
For each row of the matrices: the mean over all steps of the squared derivative of the outputs by
the gate's pre-activation, through the cell alone (not through the recurrence), by the layer's own
equations. Neither a loss nor back-propagation is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttcompress.model.weights import Kind

Rows = tuple[Tensor, Tensor]
"""For the rows of weight_ih and of weight_hh, (batch, time, gates x hidden) each."""


def measure_influence(
    kind: Kind,
    from_inputs: Tensor,  # (batch, time, gates x hidden): W_ih x + b_ih
    from_hidden: Tensor,  # the same: W_hh h + b_hh
    hidden: Tensor,  # (batch, time, hidden): before each step
    real: Tensor,  # (batch, time): which positions are not padding
    reverse: bool,
) -> Rows:
    """The squared derivatives at every step, as if each sequence started from an empty cell."""
    match kind:
        case "lstm":
            rows = _lstm(from_inputs + from_hidden, real[..., None], reverse)
            return rows, rows
        case "gru":
            return _gru(from_inputs, from_hidden, hidden)
        case "rnn":
            rows = (1 - (from_inputs + from_hidden).tanh().square()).square()
            return rows, rows


def _lstm(gates: Tensor, real: Tensor, reverse: bool) -> Tensor:
    """d(o tanh(c)) by i, f, g, o; what enters the cell is read at all later steps, times f."""
    if reverse:
        return _lstm(gates.flip(1), real.flip(1), False).flip(1)
    i, f, g, o = gates.chunk(4, 2)
    i, f, g, o = i.sigmoid() * real, f.sigmoid(), g.tanh(), o.sigmoid() * real
    times = range(gates.shape[1])
    cell = torch.zeros_like(i[:, 0])
    cells = [cell]  # before each step, the first empty, and after the last
    for t in times:
        cell = f[:, t] * cell + i[:, t] * g[:, t]
        cells.append(cell)
    before, after = torch.stack(cells[:-1], 1), torch.stack(cells[1:], 1)
    squashed = after.tanh()
    # read[t] = now[t] + f[t + 1]^2 now[t + 1] + f[t + 1]^2 f[t + 2]^2 now[t + 2] + ...
    now, kept = (o * (1 - squashed.square())).square(), f.square()
    total, sums = torch.zeros_like(now[:, 0]), []
    for t in reversed(times):
        total = now[:, t] + total
        sums.append(total)
        total = kept[:, t] * total
    read = torch.stack(sums[::-1], 1)
    by_i = (g * i * (1 - i)).square() * read
    by_f = (before * f * (1 - f)).square() * read
    by_g = (i * (1 - g.square())).square() * read
    return torch.cat([by_i, by_f, by_g, (squashed * o * (1 - o)).square()], 2)


def _gru(from_inputs: Tensor, from_hidden: Tensor, hidden: Tensor) -> Rows:
    """d((1 - z) n + z h) by r, z, n; r gates what weight_hh adds to n."""
    (r_in, z_in, n_in), (r_h, z_h, n_h) = from_inputs.chunk(3, 2), from_hidden.chunk(3, 2)
    r, z = (r_in + r_h).sigmoid(), (z_in + z_h).sigmoid()
    n = (n_in + r * n_h).tanh()
    by_n = ((1 - z) * (1 - n.square())).square()
    by_r = by_n * (n_h * r * (1 - r)).square()
    by_z = ((hidden - n) * z * (1 - z)).square()
    return torch.cat([by_r, by_z, by_n], 2), torch.cat([by_r, by_z, by_n * r.square()], 2)
