"""Tasks from a module and its loaders: what counts, what is measured, what is refused."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import ttcompress
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


def test_likeness_of_binary_outputs_counts_signs(model: Tagger) -> None:
    task = task_of(model, valid=[x for x, _ in batches()], predicts="binary")
    assert task.evaluate(model) == {"divergence": 0.0, "agreement": 1.0}
    other = task.build()
    with torch.no_grad():
        other.head.weight[2] *= -1  # type: ignore[union-attr, operator, index]
        other.head.bias[2] *= -1  # type: ignore[union-attr, operator, index]
    found = task.evaluate(other)
    assert found["agreement"] == pytest.approx(0.75) and found["divergence"] > 0


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


@pytest.mark.parametrize("generator", [None, torch.Generator()])
def test_an_epoch_and_a_seed_decide_the_order(
    model: Tagger, generator: torch.Generator | None
) -> None:
    data = TensorDataset(torch.randn(20, 6, 3), torch.arange(20))
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=generator)
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


def test_a_loss_that_is_a_function_gets_classes_without_padding(model: Tagger) -> None:
    x, y = batches(1)[0]
    y[:, 4:] = -100
    given = task_of(model, valid=[(x, y)], loss=nn.functional.cross_entropy)
    named = task_of(model, valid=[(x, y)], loss="cross_entropy")
    wanted = named.evaluate(model)["cross_entropy"]
    assert given.evaluate(model)["loss"] == pytest.approx(wanted, rel=1e-5)


def test_the_outputs_are_the_logits_where_a_module_returns_more(model: Tagger) -> None:
    class More(Tagger):
        def forward(self, x: torch.Tensor) -> Any:
            return {"hidden": x, "logits": super().forward(x)}

    more = More().eval()
    more.load_state_dict(model.state_dict())
    found = [
        task_of(one, valid=batches(), loss="cross_entropy").evaluate(one) for one in (model, more)
    ]
    assert found[0] == found[1]


def test_what_a_task_was_not_given_is_named_where_it_is_needed(model: Tagger) -> None:
    inputs = [x for x, _ in batches()]
    task = task_of(model, train=inputs, predicts="classes")
    outputs, _ = task.outputs(model, inputs[0], None)
    with pytest.raises(RecipeError, match=r"has no loss\. Train with `distill: 1`"):
        task.loss(outputs, inputs[0])
    with pytest.raises(RecipeError, match=r"nothing to measure on\. Give task_of `valid`"):
        task.evaluate(model)
    assert not list(task_of(model, valid=inputs, predicts="classes").train_batches(0, seed=0))


def test_a_module_without_a_tensor_among_its_outputs(model: Tagger) -> None:
    class Nothing(Tagger):
        def forward(self, x: torch.Tensor) -> Any:
            return {"logits": ["none"]}

    task = task_of(Nothing(), valid=batches(), loss="cross_entropy")
    with pytest.raises(RecipeError, match=r"returns a list without a tensor.*`forward=`"):
        task.evaluate(Nothing())


def test_a_module_that_takes_any_arguments_is_given_the_whole_batch(model: Tagger) -> None:
    class Any_(Tagger):
        def forward(self, *parts: torch.Tensor) -> torch.Tensor:
            return super().forward(parts[0] + parts[1])

    made = Any_().eval()
    made.load_state_dict(model.state_dict())
    x = batches(1)[0][0]
    task = task_of(made, valid=[(x, x)], predicts="values")
    outputs, _ = task.outputs(made, (x, x), None)
    torch.testing.assert_close(outputs, model(2 * x).flatten(0, 1))


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


class Two(Tagger):
    def forward(self, x: torch.Tensor) -> Any:
        found = super().forward(x)
        return {"regime": found, "next": found[:, -1, :1] * 2}


LOSSES = {"next": "mse", "regime": "cross_entropy"}


def two(model: Tagger) -> Two:
    made = Two().eval()
    made.load_state_dict(model.state_dict())
    return made


def test_several_outputs_add_their_losses(model: Tagger) -> None:
    x, regime = batches(1)[0]
    following = torch.randn(5, 1)
    regime[0, 3:] = -100
    forms: list[Any] = [
        (x, {"next": following, "regime": regime}),
        (x, (following, regime)),
        (x, following, regime),
        {"x": x, "labels": {"regime": regime, "next": following}},
        {"x": x, "regime": regime, "next": following},
    ]
    with torch.no_grad():
        found = model(x)
    logits = found.flatten(0, 1)[regime.flatten() != -100]
    wanted = regime.flatten()[regime.flatten() != -100]
    mse = float((found[:, -1, :1] * 2 - following).square().mean())
    entropy = float(nn.functional.cross_entropy(logits, wanted))
    for batch in forms:
        task = task_of(two(model), valid=[batch], loss=LOSSES)
        assert task.predicts == {"next": "values", "regime": "classes"}
        outputs, _ = task.outputs(two(model), batch, None)
        assert outputs["regime"].shape == (27, 4) and outputs["next"].shape == (5, 1)
        assert float(task.loss(outputs, batch).detach()) == pytest.approx(mse + entropy, rel=1e-5)
        figures = task.evaluate(two(model))
        assert list(figures) == [one.name for one in task.metrics]
        assert figures["loss"] == pytest.approx(mse + entropy, rel=1e-5)
        assert figures["next.mse"] == pytest.approx(mse, rel=1e-5)
        right = float((logits.argmax(1) == wanted).float().mean())
        assert figures["regime.accuracy"] == pytest.approx(right)
    named = {"regime.error": (lambda a, b: (a.argmax(-1) != b).float().mean(), False)}
    only = task_of(two(model), valid=forms[:1], loss=LOSSES, metrics=named)
    assert only.evaluate(two(model))["regime.error"] == pytest.approx(1 - right)


def test_several_outputs_without_labels(model: Tagger) -> None:
    kinds: dict[str, Any] = {"next": "values", "regime": "classes"}
    task = task_of(two(model), valid=[x for x, _ in batches()], predicts=kinds)
    other = task.build()
    with torch.no_grad():
        other.head.bias[1] += 50  # type: ignore[union-attr, operator]
    found = task.evaluate(other)
    assert list(found) == ["next.output_error", "regime.divergence", "regime.agreement"]
    assert found["next.output_error"] == 0 and found["regime.divergence"] > 10


def test_several_outputs_are_trained(model: Tagger) -> None:
    data = [(x, torch.randn(5, 1), y) for x, y in batches(6)]
    task = task_of(two(model), train=data, valid=data, loss=LOSSES)
    recipe = {
        "version": 1,
        "format": "mps",
        "budget": {"factor": 4},
        "finetune": {"epochs": 2, "learning_rate": 1e-2},
    }
    made = ttcompress.compress(two(model), recipe, task=task)
    start = ttcompress.compress(two(model), {**recipe, "finetune": None}, task=task)
    assert made.report.metrics is not None and start.report.metrics is not None
    assert made.report.metrics["loss"]["after"] < start.report.metrics["loss"]["after"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": {"next": "mse", "regime": "crossentropy"}}, "regime: there is no loss"),
        ({"loss": {"next": "mse", "regime": None}}, "regime: has no loss"),
        ({"loss": {"next": nn.MSELoss()}}, "next: where a loss is a function, say what"),
        ({"loss": LOSSES, "predicts": {"next": "values"}}, "next, regime, but predicts next"),
        ({"loss": LOSSES, "predicts": {"next": "values", "regime": "class"}}, "got 'class'"),
        ({"loss": LOSSES, "metrics": {"f1": (len, True)}}, "f1: begins with none .* next.f1"),
    ],
)
def test_several_outputs_that_do_not_fit(
    model: Tagger, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        task_of(two(model), **given)


def test_an_output_that_is_missing_is_named(model: Tagger) -> None:
    task = task_of(model, valid=batches(), predicts={"next": "values", "regime": "classes"})
    with pytest.raises(RecipeError, match="returns a Tensor without a tensor for the output next"):
        task.evaluate(model)


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        ("cross_entropy", torch.rand(5, 6), r"30 x 4 .* labels of 5 x 6 in float32\. .* integer"),
        ("cross_entropy", torch.randint(4, (5, 5)), "labels of 5 x 5 in int64"),
        ("cross_entropy", torch.full((5, 6), 4), "from 4 to 4, but the outputs have 4 classes"),
        ("cross_entropy", torch.full((5, 6), -1), "from -1 to -1"),
        ("mse", torch.rand(5, 6), "a number for each of the outputs"),
        ("mse", torch.randint(4, (5, 6)), "labels of 5 x 6 in int64"),
        ("l1", torch.randint(4, (5, 6)), "labels of 5 x 6 in int64"),
        ("binary_cross_entropy", torch.rand(5, 6, 3), "labels of 5 x 6 x 3"),
    ],
)
def test_labels_of_the_wrong_kind(
    model: Tagger, loss: str, labels: torch.Tensor, message: str
) -> None:
    batch = (batches(1)[0][0], labels)
    task = task_of(model, train=[batch], valid=[batch], loss=loss)
    with pytest.raises(RecipeError, match=message):
        task.evaluate(model)
    with pytest.raises(RecipeError, match=message):
        task.loss(task.outputs(model, batch, None)[0], batch)


def test_whole_numbers_are_values_where_values_are_meant(model: Tagger) -> None:
    x, values = batches(1)[0][0], torch.randint(9, (5, 6, 4))
    with torch.no_grad():
        wanted = float((model(x) - values).abs().mean())
    task = task_of(model, valid=[(x, values)], loss="l1")
    assert task.evaluate(model)["l1"] == pytest.approx(wanted, rel=1e-5)


def test_values_under_a_mask(model: Tagger) -> None:
    x, values, mask = batches(1)[0][0], torch.randn(5, 6, 4), torch.ones(5, 6)
    mask[:, 4:] = 0
    batch = {"x": x, "labels": values, "attention_mask": mask}
    with torch.no_grad():
        wanted = float((model(x) - values)[:, :4].square().mean())
    task = task_of(model, valid=[batch], loss="mse")
    assert task.evaluate(model)["mse"] == pytest.approx(wanted, rel=1e-5)


def test_whole_numbers_of_a_single_column_are_values_for_any_loss(model: Tagger) -> None:
    class One(Tagger):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[..., :1]

    one, (x, labels) = One().eval(), batches(1)[0]
    one.load_state_dict(model.state_dict())
    with torch.no_grad():
        wanted = float((model(x)[..., 0] - labels).square().mean())
    task = task_of(one, valid=[(x, labels)], loss=nn.functional.mse_loss)
    assert task.evaluate(one)["loss"] == pytest.approx(wanted, rel=1e-5)
