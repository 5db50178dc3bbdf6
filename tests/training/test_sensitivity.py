"""The sensitivity of weights is the curvature of the outputs' distance, by closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttcompress.model.weights import Weight
from ttcompress.tasks.of import task_of
from ttcompress.tasks.protocol import OutputKind
from ttcompress.training.sensitivity import BATCHES, measure_sensitivity

INPUTS, OUTPUTS, BATCH, SEEDS = 6, 5, 64, 16


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(3, INPUTS)
        self.head = nn.Linear(INPUTS, OUTPUTS)
        self.unused = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, symbols: Tensor) -> Tensor:
        return self.head(self.table(symbols))


WEIGHTS = tuple(
    Weight(name, (name,), "linear", shape, "float32")
    for name, shape in (
        ("table.weight", (3, INPUTS)),
        ("head.weight", (OUTPUTS, INPUTS)),
        ("unused.weight", (OUTPUTS, INPUTS)),
    )
)


def curvature(kind: OutputKind, outputs: Tensor) -> Tensor:
    """The second derivative of the distance at a position by its outputs, by hand."""
    match kind:
        case "classes":
            p = outputs.softmax(1)
            return p.diag_embed() - p[:, :, None] * p[:, None]
        case "binary":
            p = outputs.sigmoid()
            return (p * (1 - p)).diag_embed() / OUTPUTS
        case _:
            return (2 / outputs.var(0, correction=0) / OUTPUTS).expand_as(outputs).diag_embed()


@pytest.mark.parametrize("kind", ["classes", "binary", "values"])
def test_it_is_the_curvature_of_the_distance(kind: Any) -> None:
    model = Model()
    symbols = torch.randint(3, (BATCHES, BATCH), generator=torch.Generator().manual_seed(1))
    task = task_of(model, train=list(symbols), predicts=kind)
    draws = [measure_sensitivity(task, task.build(), WEIGHTS, seed) for seed in range(SEEDS)]
    assert all(draw.keys() == {"table.weight", "head.weight"} for draw in draws)
    found = {name: sum(draw[name] for draw in draws) / SEEDS for name in draws[0]}
    with torch.no_grad():
        inputs = model.table(symbols.flatten())
        bent = curvature(kind, model(symbols.flatten()))
        head = bent.diagonal(dim1=1, dim2=2).sum(1) * inputs.square().sum(1)
        matrix = model.head.weight
        table = torch.einsum("oi,noq,qi->n", matrix, bent, matrix)
    assert found["head.weight"] == pytest.approx(float(head.mean()) / (OUTPUTS * INPUTS), rel=0.1)
    assert found["table.weight"] == pytest.approx(float(table.mean()) / (3 * INPUTS), rel=0.1)


def test_a_distance_of_the_tasks_own_counts_like_that_of_values_up_to_a_factor() -> None:
    model = Model()
    symbols = torch.randint(3, (BATCHES, BATCH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        variance = model(symbols.flatten()).var(0)
    task = task_of(model, train=list(symbols), predicts="values")
    shares = []
    for own in (False, True):
        if own:
            task.distillation = lambda ours, theirs, _: ((ours - theirs) ** 2 / variance).mean()
        draws = [measure_sensitivity(task, task.build(), WEIGHTS, seed) for seed in range(SEEDS)]
        assert all(draw.keys() == {"table.weight", "head.weight"} for draw in draws)
        head, table = (sum(d[f"{name}.weight"] for d in draws) for name in ("head", "table"))
        shares.append(head / table)
    assert shares[1] == pytest.approx(shares[0], rel=0.1)


def test_a_distance_of_the_tasks_own_needs_no_second_position_in_a_batch() -> None:
    symbols = torch.arange(BATCHES)[:, None] % 3
    task = task_of(Model(), train=list(symbols), predicts="values")
    task.distillation = lambda ours, theirs, _: (ours - theirs).square().mean()
    found = measure_sensitivity(task, task.build(), WEIGHTS)
    assert found.keys() == {"table.weight", "head.weight"}
    assert all(0 < one < 1e3 for one in found.values())  # NaN is not
