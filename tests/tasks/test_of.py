"""Tasks from a module and its loaders: what counts, what is measured, what is refused."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ttcompress.errors import RecipeError
from ttcompress.tasks.of import task_of


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(x)[0])
        return out


@pytest.fixture
def model() -> Tagger:
    torch.manual_seed(0)
    return Tagger().eval()


def batches(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(5, 6, 3, generator=generator),
            torch.randint(4, (5, 6), generator=generator),
        )
        for _ in range(count)
    ]


def test_padding_does_not_count(model: Tagger) -> None:
    x, y = batches(1)[0]
    y[:, 4:] = -100
    task = task_of(model, valid=[(x, y)], loss="cross_entropy")
    outputs, _ = task.outputs(model, (x, y), None)
    assert outputs.shape == (20, 4)
    with torch.no_grad():
        outputs, _ = task.outputs(model, (x, y), None)
    wanted = nn.functional.cross_entropy(model(x).detach()[:, :4].flatten(0, 1), y[:, :4].flatten())
    assert float(task.loss(outputs, (x, y))) == pytest.approx(float(wanted))
    assert task.evaluate(model)["cross_entropy"] == pytest.approx(float(wanted), rel=1e-5)


def test_a_mapping_with_a_mask_and_no_labels(model: Tagger) -> None:
    mask = torch.ones(5, 6)
    mask[0, 1:] = 0
    batch = {"x": batches(1)[0][0], "attention_mask": mask}
    task = task_of(model, train=[batch], valid=[batch], predicts="classes")
    assert task.outputs(model, batch, None)[0].shape == (25, 4)
    assert task.evaluate(model) == {"divergence": 0.0, "agreement": 1.0}


def test_likeness_counts_what_differs(model: Tagger) -> None:
    task = task_of(model, valid=[x for x, _ in batches()], predicts="classes")
    other = task.build()
    with torch.no_grad():
        other.head.bias[1] += 50  # type: ignore[union-attr, operator]
    found = task.evaluate(other)
    assert found["divergence"] > 10 / log(2) and found["agreement"] < 0.6
    values = task_of(model, valid=[x for x, _ in batches()], predicts="values")
    with torch.no_grad():
        other.load_state_dict(model.state_dict())
        other.head.bias += 1  # type: ignore[union-attr, operator]
    deviation = torch.cat([model(x).detach() for x, _ in batches()]).std(correction=0)
    assert values.evaluate(other)["output_error"] == pytest.approx(1 / float(deviation), rel=1e-3)


def test_values_are_compared_in_their_own_shape(model: Tagger) -> None:
    batch = (torch.randn(5, 6, 3), torch.randn(5, 6, 4))
    task = task_of(model, valid=[batch], loss="mse")
    assert task.predicts == "values"
    wanted = float((model(batch[0]).detach() - batch[1]).square().mean())
    assert task.evaluate(model)["mse"] == pytest.approx(wanted, rel=1e-5)


def test_a_torchmetrics_like_object_is_used(model: Tagger) -> None:
    class Right:
        higher_is_better = True
        count = 0.0

        def reset(self) -> None:
            self.count = self.total = 0.0

        def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
            self.count += float((preds.argmax(-1) == target).sum())
            self.total += len(target)

        def compute(self) -> torch.Tensor:
            return torch.tensor(self.count / self.total)

    metrics: dict[str, Any] = {"right": Right()}
    task = task_of(model, valid=batches(), loss="cross_entropy", metrics=metrics)
    plain = task_of(model, valid=batches(), loss="cross_entropy")
    for _ in range(2):  # each measurement starts anew
        assert task.evaluate(model)["right"] == pytest.approx(plain.evaluate(model)["accuracy"])
    assert [metric.name for metric in task.metrics] == ["right"]


def test_an_epoch_and_a_seed_decide_the_order(model: Tagger) -> None:
    data = TensorDataset(torch.randn(20, 6, 3), torch.arange(20))
    loader = DataLoader(data, batch_size=4, shuffle=True)
    task = task_of(model, train=loader, loss="cross_entropy")
    orders = [
        torch.cat([y for _, y in task.train_batches(epoch, seed)]).tolist()
        for epoch, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) == 3
    assert task.batches_per_epoch == 5 and sorted(orders[2]) == list(range(20))


def test_the_module_stays_as_it_was(model: Tagger) -> None:
    task = task_of(model, train=batches(), loss="cross_entropy")
    with torch.no_grad():
        task.build().head.bias.zero_()  # type: ignore[union-attr, operator]
    assert model.head.bias.any() and task.build().head.bias.any()  # type: ignore[union-attr, operator]


class Endless(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Any:
        while True:
            yield torch.ones(1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "crossentropy"}, "no loss 'crossentropy'"),
        ({}, "say what the outputs are"),
        ({"train": iter([])} | {"loss": "mse"}, "has no length"),
        ({"loss": "mse", "metrics": {"mae": nn.L1Loss()}}, "whether higher is better"),
        ({"predicts": "values", "metrics": {"mae": (nn.L1Loss(), False)}}, "a loss is needed"),
    ],
)
def test_arguments_that_do_not_fit(model: Tagger, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        task_of(model, **given)


def test_labels_that_are_missing(model: Tagger) -> None:
    task = task_of(model, valid=[x for x, _ in batches()], loss="cross_entropy")
    with pytest.raises(RecipeError, match="a batch has no labels"):
        task.evaluate(model)
    with pytest.raises(RecipeError, match="yields no batch"):
        task_of(model, valid=[], loss="cross_entropy").evaluate(model)
