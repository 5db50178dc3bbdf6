"""Distillation by what the outputs are: classes, binary, values, and what must be refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import ttcompress
from ttcompress.errors import RecipeError, TrainingError
from ttcompress.recipe import Finetune
from ttcompress.tasks.own import OwnTask
from ttcompress.tasks.protocol import Metric
from ttcompress.training.distillation import (
    binary_divergence,
    class_divergence,
    make_distillation,
    squared_error,
    value_units,
)
from ttcompress.training.finetune import Conditions, finetune
from ttcompress.workflows.compress import build
from ttcompress.workflows.job import prepare

HALF, ALL = Finetune(distill=0.5), Finetune(distill=1.0)


class Line(nn.Module):
    """A forecaster of `features` series from their past."""

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, 12, batch_first=True)
        self.head = nn.Linear(12, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class Told:
    """A task whose outputs are what the test says: a batch is (outputs, targets)."""

    name, metrics = "told", (Metric("loss", False),)

    def __init__(self, outputs: Any, targets: Any = None, loss: Any = None, **members: Any) -> None:
        self.batches, self.batches_per_epoch = [(outputs, targets)], 1
        self.measure = loss
        vars(self).update(members)

    def build(self) -> nn.Module:
        return nn.Linear(1, 1)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Any]:
        yield from self.batches

    def outputs(self, model: nn.Module, batch: Any, state: Any) -> tuple[Tensor, Any]:
        return batch[0], None

    def loss(self, outputs: Tensor, batch: Any) -> Tensor:
        if self.measure is None:
            raise KeyError("labels")
        return self.measure(outputs, batch[1])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"loss": 0.0}


def made(*told: Any, settings: Finetune = HALF, **members: Any):
    task = OwnTask(Told(*told, **members), "told.py:Told")
    return make_distillation(task, nn.Linear(1, 1), settings, seed=0)


LOGITS = torch.randn(20, 5, generator=torch.Generator().manual_seed(1)) * 3
LABELS = LOGITS.argmax(1)
REAL = torch.tensor([[0.0, 1e5, 3.0], [1.0, 1e5 + 2, 3.0], [2.0, 1e5 + 4, 3.0]])


# What the outputs are.


@pytest.mark.parametrize(
    ("outputs", "targets", "loss"),
    [
        (LOGITS, LABELS, functional.cross_entropy),
        (LOGITS, LOGITS.softmax(1), functional.cross_entropy),  # labels that are floats
        (LOGITS + 500, LABELS, functional.multi_margin_loss),
        (LOGITS.log_softmax(1), LABELS, functional.nll_loss),
    ],
)
def test_a_task_that_says_nothing_has_classes_where_its_loss_shows_it(outputs, targets, loss):
    assert made(outputs, targets, loss).distances[""].kind == "classes"


@pytest.mark.parametrize(
    ("outputs", "targets", "loss"),
    [
        (LOGITS[:, :1], LABELS, functional.cross_entropy),  # a loss of 0 whatever the outputs
        (LOGITS[:, :1], LOGITS[:, :1], functional.mse_loss),
        (LOGITS, LOGITS, functional.mse_loss),
        (LOGITS * 1e-4, LOGITS * 1e-4, functional.mse_loss),
        (LOGITS * 1e6, LOGITS * 1.1e6, functional.mse_loss),
        (LOGITS, LOGITS, functional.l1_loss),
        (LOGITS, (LOGITS > 0).float(), functional.binary_cross_entropy_with_logits),
        (LOGITS, None, None),  # no labels: one cannot know
    ],
)
def test_and_is_refused_where_it_does_not(outputs, targets, loss):
    with pytest.raises(RecipeError, match=r"does not say what its outputs are.* `predicts = "):
        made(outputs, targets, loss)


@pytest.mark.parametrize("kind", ["classes", "binary", "values"])
def test_what_a_task_says_counts_and_no_label_is_asked_for(kind):
    assert made(LOGITS, predicts=kind, settings=ALL).distances[""].kind == kind


def test_another_word_is_refused():
    with pytest.raises(RecipeError, match="expected one of classes, binary, values, got 'numbers'"):
        made(LOGITS, predicts="numbers")


@pytest.mark.parametrize(
    ("outputs", "kind", "fact"),
    [
        (
            torch.randn(4, 6, 5),
            "classes",
            r"expected the shape \(positions, columns\), got 4 x 6 x",
        ),
        (torch.randn(4), "values", r"got 4\. .*outputs\[:, None\]"),
        (torch.randn(4, 1), "classes", "1 column of logits, but at least 2 classes"),
        (torch.randn(0, 5), "classes", "0 x 5, so there is nothing to compare"),
        (LOGITS.softmax(1), "classes", "they are probabilities"),
        (LOGITS.sigmoid(), "binary", "they are probabilities"),
    ],
)
def test_outputs_that_break_the_contract_are_refused_with_their_shape(outputs, kind, fact):
    with pytest.raises(RecipeError, match=fact):
        made(outputs, predicts=kind, settings=ALL)


@pytest.mark.parametrize("kind", ["classes", "binary", "values"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_original_that_gives_no_numbers_is_refused(kind, value):
    broken = LOGITS.clone()
    broken[3, 2] = value
    with pytest.raises(TrainingError, match="1 of 100 of the original's outputs are not finite"):
        made(broken, predicts=kind, settings=ALL)


def test_student_and_teacher_of_different_shapes_are_refused_with_both():
    found = made(LOGITS, predicts="classes", settings=ALL)
    with pytest.raises(RecipeError, match="19 x 5 from the compressed model, but 20 x 5 from the"):
        found.loss(LOGITS[:-1], (LOGITS, None), None)


def test_padding_that_the_loss_ignores_is_refused_before_it_is_distilled():
    labels = LABELS.clone()
    labels[15:] = -100
    found = made(LOGITS, labels, functional.cross_entropy)
    outputs = LOGITS.clone().requires_grad_()
    loss, _ = found.loss(outputs, (LOGITS, labels), None)
    with pytest.raises(RecipeError, match="the loss ignores 5 of 20 positions"):
        torch.autograd.backward(loss)
    loss, _ = found.loss(outputs[:15], (LOGITS[:15], labels[:15]), None)
    torch.autograd.backward(loss)


# The distances.


def test_the_divergence_of_classes_is_that_of_their_probabilities():
    own, wanted = LOGITS[:10], LOGITS[10:]
    p, q = ((x / 2).softmax(1).double() for x in (wanted, own))
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    assert float(class_divergence(own, wanted, 2.0)) == pytest.approx(float(expected), rel=1e-5)
    assert float(class_divergence(own, own, 2.0)) == pytest.approx(0, abs=1e-6)


def test_classes_that_the_original_rules_out_add_nothing():
    mask = torch.zeros(10, 5).index_fill_(1, torch.tensor([2]), -math.inf)
    left = [0, 1, 3, 4]
    own = (LOGITS[:10] + mask).requires_grad_()
    found = class_divergence(own, LOGITS[10:] + mask, 2.0)
    assert found.item() == pytest.approx(
        float(class_divergence(LOGITS[:10, left], LOGITS[10:][:, left], 2.0)), rel=1e-5
    )
    torch.autograd.backward(found)
    assert bool(own.grad.isfinite().all())


def test_one_logit_is_a_choice_between_it_and_zero():
    own, wanted = LOGITS[:10, :1], LOGITS[10:, :1]
    two = (torch.cat([torch.zeros(10, 1), x], 1) for x in (own, wanted))
    expected = class_divergence(*two, 2.0)
    assert float(binary_divergence(own, wanted, 2.0)) == pytest.approx(float(expected), rel=1e-5)


def test_a_certain_logit_has_a_finite_divergence_and_gradient():
    own = torch.tensor([[-200.0], [200.0]], requires_grad=True)
    found = binary_divergence(own, -own.detach(), 1.0)
    assert found.item() == pytest.approx(200, rel=1e-5)
    torch.autograd.backward(found)
    assert own.grad.flatten().tolist() == pytest.approx([-0.5, 0.5])


def test_each_feature_is_measured_in_its_own_variance():
    units = value_units([REAL[:1], REAL[1:]])
    assert units.tolist() == pytest.approx([2 / 3, 8 / 3, 9.0])  # 3.0 never changes: its square
    assert value_units([torch.zeros(4, 2)]).tolist() == [1.0, 1.0]
    assert value_units([torch.full((1, 1), 2.0)]).tolist() == [4.0]
    rounding = torch.tensor([[1e5], [1e5 + 2**-7]])  # neighbours in float32
    assert value_units([rounding]).tolist() == pytest.approx([1e10])
    off = REAL + torch.tensor([1.0, 2.0, 3.0])
    assert float(squared_error(off, REAL, units)) == pytest.approx((1.5 + 1.5 + 1.0) / 3)


@given(st.integers(-6, 6), st.integers(0, 4))
def test_the_unit_that_values_are_given_in_does_not_matter(power, seed):
    """A series in mV is distilled as the same one in kV, and weighs as much beside the labels."""
    generator = torch.Generator().manual_seed(seed)
    original, targets, own = torch.randn(3, 40, 2, generator=generator)
    size = 10.0**power
    plain, scaled = (
        made(original * k, targets * k, functional.mse_loss, predicts="values").loss(
            own * k, (original * k, targets * k), None
        )[0]
        for k in (1.0, size)
    )
    assert float(scaled) == pytest.approx(float(plain), rel=1e-4)


def test_a_squared_error_and_the_distance_to_the_original_have_one_unit():
    original = LOGITS * 7
    found = made(original, original, functional.mse_loss, predicts="values")
    variances = original.var(0, correction=0)
    assert found.task_unit == pytest.approx(float(variances.mean()), rel=1e-4)


def test_a_loss_that_cannot_be_weighed_is_refused():
    flat = lambda outputs, targets: (outputs * 0).sum()  # noqa: E731
    with pytest.raises(RecipeError, match="the loss does not rise where values are off"):
        made(LOGITS, LOGITS, flat, predicts="values")


# Several outputs.


BOTH: Any = {"next": "values", "regime": "classes"}


def mixed(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    regime = functional.cross_entropy(outputs["regime"], targets["regime"])
    return functional.mse_loss(outputs["next"], targets["next"]) + regime


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_distances_of_several_outputs_add_up_in_the_unit_of_the_loss(share):
    """Values of another size are a loss of another size: so is their distance."""
    values, other = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(2)) * 9
    original = {"next": values, "regime": LOGITS}
    targets = {"next": other, "regime": LABELS}
    found = made(original, targets, mixed, predicts=BOTH, settings=Finetune(distill=share))
    outputs = {"next": other, "regime": LOGITS.flip(0).requires_grad_()}
    loss, _ = found.loss(outputs, (original, targets), None)
    weight = float(values.var(0, correction=0).mean()) if share < 1 else 1.0
    distances = weight * squared_error(other, values, value_units([values]))
    distances += class_divergence(LOGITS.flip(0), LOGITS, found.temperature)
    labelled = mixed(outputs, targets).item() if share < 1 else 0.0
    expected = (share * distances.item() + (1 - share) * labelled) / (weight + 1)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_padding_of_one_of_several_outputs_is_refused_by_name():
    labels = LABELS.clone()
    labels[15:] = -100
    original = {"next": REAL, "regime": LOGITS}
    targets = {"next": REAL, "regime": labels}
    found = made(original, targets, mixed, predicts=BOTH)
    outputs = {name: one.clone().requires_grad_() for name, one in original.items()}
    loss, _ = found.loss(outputs, (original, targets), None)
    with pytest.raises(RecipeError, match=r"outputs\['regime'\]: the loss ignores 5 of 20 pos"):
        torch.autograd.backward(loss)


@pytest.mark.parametrize(
    ("outputs", "predicts", "fact"),
    [
        ({"next": REAL}, BOTH, "expected the names next, regime, got the names next"),
        (LOGITS, BOTH, "expected the names next, regime, got one tensor"),
        ({"next": REAL}, "values", "expected one tensor, got the names next"),
        ({"next": REAL}, None, "expected one tensor, got the names next"),
        ({"next": REAL}, {"next": "numbers"}, "expected one of classes, binary, values, got 'num"),
        ({"next": REAL}, {}, "expected one of classes, binary, values, got {}"),
        ({}, BOTH, "expected a pair"),
        ({"next": 3.0}, BOTH, "expected a pair"),
        ({"next": REAL[None]}, {"next": "values"}, r"outputs\['next'\]: expected the shape"),
    ],
)
def test_outputs_without_their_names_are_refused(outputs, predicts, fact):
    with pytest.raises(RecipeError, match=fact):
        made(outputs, predicts=predicts, settings=ALL)


def test_a_task_may_bring_its_own():
    def distillation(outputs: Tensor, original: Tensor, batch: Any) -> Tensor:
        return (outputs - original).abs().max()

    found = made(LOGITS[None], distillation=distillation, settings=ALL)
    assert float(found.loss(LOGITS[None] + 2, (LOGITS[None], None), None)[0]) == pytest.approx(2)


def test_a_task_without_batches_is_refused():
    task = Told(LOGITS, predicts="classes")
    task.batches = []
    with pytest.raises(RecipeError, match="train_batches gave 0 batches"):
        make_distillation(task, nn.Linear(1, 1), ALL, seed=0)


# The whole training.


class Forecast:
    """Batches of a series without its targets beside it: labels cannot be asked for."""

    name, metrics, predicts = "forecast", (Metric("mse", higher_is_better=False),), "values"
    batches_per_epoch = 6

    def __init__(self, structure: Any = None) -> None:
        steps = torch.arange(6 * 8 * 20 + 1)
        series = torch.sin(steps * 0.3) + torch.sin(steps * 0.81)
        self.windows = series.unfold(0, 21, 20)[:, :, None].split(8)

    def build(self) -> nn.Module:
        return Line()

    def train_batches(self, epoch: int, seed: int) -> Iterator[Tensor]:
        yield from (window[:, :-1] for window in self.windows)

    def outputs(self, model: nn.Module, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        return model(batch).flatten(0, 1), None

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        raise KeyError("labels")

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        held_out = self.windows[0]
        outputs = model(held_out[:, :-1])
        return {"mse": functional.mse_loss(outputs, held_out[:, 1:]).item()}


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory):
    """A trained univariate forecaster, and what it is compressed to."""
    torch.manual_seed(0)
    model, task = Line(), Forecast()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(40):
        for window in task.windows:
            optimizer.zero_grad()
            torch.autograd.backward(functional.mse_loss(model(window[:, :-1]), window[:, 1:]))
            optimizer.step()
    path = tmp_path_factory.mktemp("forecaster") / "model.pt"
    torch.save(model.state_dict(), path)
    recipe = {"version": 1, "format": "mps", "budget": {"factor": 8}, "store": "int8"}
    job = prepare(path, recipe)
    return job.checkpoint, build(job)


def test_a_univariate_forecaster_learns_from_the_original_alone(forecaster) -> None:
    """By the softmax of one number its loss would be 0, and it would never change."""
    checkpoint, compressed = forecaster
    task, losses = Forecast(), []
    settings = Finetune(epochs=4, learning_rate=1e-2, distill=1.0)
    conditions = Conditions(watch=lambda report: losses.append(report.loss))
    tuned = finetune(compressed, task, settings, conditions, checkpoint)
    dense, before, after = (
        ttcompress.evaluate(model, task)["mse"] for model in (checkpoint, compressed, tuned)
    )
    assert losses[0] > 0.02 and losses[-1] < 0.5 * losses[0]
    assert after - dense < 0.5 * (before - dense)


def test_everything_from_the_original_needs_the_original(forecaster) -> None:
    with pytest.raises(RecipeError, match=r"learned from the original, but there is none"):
        finetune(forecaster[1], Forecast(), ALL, Conditions())
    with pytest.raises(RecipeError, match=r"--control trains the original on the task's loss"):
        finetune(forecaster[1], Forecast(), ALL, Conditions(control=True), forecaster[0])
