import pytest
import torch

from ttcompress.calibration.influence import measure_influence

HIDDEN = 3
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def outputs(kind, from_inputs, from_hidden, hidden):
    """(time, hidden) of one sequence, the recurrence through `hidden` cut: it is given."""
    if kind == "rnn":
        return (from_inputs + from_hidden).tanh()
    if kind == "gru":
        (ri, zi, ni), (rh, zh, nh) = from_inputs.chunk(3, 1), from_hidden.chunk(3, 1)
        r, z = (ri + rh).sigmoid(), (zi + zh).sigmoid()
        return (1 - z) * (ni + r * nh).tanh() + z * hidden
    cell, found = torch.zeros(HIDDEN).double(), []
    for gates in from_inputs + from_hidden:
        i, f, g, o = gates.chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        found.append(o.sigmoid() * cell.tanh())
    return torch.stack(found)


def expected(kind, parts, hidden):
    """Squared derivatives of all outputs by each pre-activation, summed, through the cell alone.

    The sum over later steps of an LSTM is of squares, so each output is taken by itself.
    """
    found = []
    for k in range(2):
        squares = torch.zeros_like(parts[k])
        for step in range(len(hidden)):
            for unit in range(HIDDEN):
                given = [part.clone().requires_grad_() for part in parts]
                outputs(kind, *given, hidden)[step, unit].backward()
                squares += given[k].grad.square()
        found.append(squares)
    return found


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_it_is_the_squared_derivative_of_the_outputs(kind):
    generator = torch.Generator().manual_seed(0)
    size = GATES[kind] * HIDDEN
    parts = [torch.randn(5, size, generator=generator).double() for _ in range(2)]
    hidden = torch.randn(5, HIDDEN, generator=generator).double()
    real = torch.ones(1, 5, dtype=torch.bool)
    found = measure_influence(kind, parts[0][None], parts[1][None], hidden[None], real, False)
    for mine, wanted in zip(found, expected(kind, parts, hidden), strict=True):
        torch.testing.assert_close(mine[0], wanted)


def test_padding_of_an_lstm_counts_nothing_in_either_direction():
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(1, 6, 4 * HIDDEN, generator=generator)
    hidden, nothing = torch.zeros(1, 6, HIDDEN), torch.zeros_like(gates)
    real = torch.arange(6)[None] < 4
    for reverse in (False, True):
        padded, _ = measure_influence("lstm", gates, nothing, hidden, real, reverse)
        short, _ = measure_influence(
            "lstm", gates[:, :4], nothing[:, :4], hidden[:, :4], real[:, :4], reverse
        )
        torch.testing.assert_close(padded[:, :4], short)
