"""Compares a model's outputs with the original's: the part of the loss that needs no labels.

`make_distillation` finds out what the outputs of a task are and, for values, in which units they
differ; the `Distillation` that it makes is then asked in every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from ttcompress.errors import RecipeError, TaskError, TrainingError
from ttcompress.recipe import Finetune
from ttcompress.system.text import shape_text
from ttcompress.tasks.likeness import binary_divergence, class_divergence, squared_error
from ttcompress.tasks.protocol import Batch, OutputKind, OwnDistillation, State, Task, kind_of

MEASURED = 16
"""Batches of the first epoch from which the units of values are measured."""

ROUNDING = 1e-6
"""The relative deviation below which float32 values count as constant."""

SAY_IT = (
    'Write `predicts = "values"` in the task\'s class (or "binary": yes or no, one question a '
    'column; or "classes": their logits), give the task its own `distillation`, or turn it off: '
    "`finetune: {distill: 0}`."
)


@dataclass(frozen=True, eq=False)
class Distillation:
    """Trains a student to answer as the original does (Hinton, Vinyals and Dean 2015).

    The loss is (1 - share) of the task's and share of the distance to the original's outputs: for
    classes and binary outputs the divergence of the probabilities at a temperature, for values the
    squared error in units of the original's variance. With a share of 1 the task's loss is never
    asked for.

    Attributes:
        task: runs both models.
        teacher: the original, on the device of the training.
        share: of the loss, from 0 to 1.
        temperature: at which probabilities are compared.
        compare: the distance of outputs from the original's, or the task's own.
        kind: what the outputs are; None if the task compares them itself.
        task_unit: what the task's loss is divided by, so that both parts have one unit.
    """

    task: Task
    teacher: nn.Module
    share: float
    temperature: float
    kind: OutputKind | None
    own: OwnDistillation | None = None
    units: Tensor | None = None
    task_unit: float = 1.0

    def loss(self, outputs: Tensor, batch: Batch, state: State) -> tuple[Tensor, State]:
        """The loss of a student's outputs, and the teacher's state for the next batch.

        Raises:
            RecipeError: the outputs break the contract of `Task.outputs`.
            TrainingError: the original's outputs are not finite.
        """
        with torch.no_grad():
            original, state = self.task.outputs(self.teacher, batch, state)
        original = original.float()
        part = self.share * self._distance(outputs, original, batch)
        if self.share < 1:
            seen = outputs
            if self.kind == "classes":
                seen = outputs.view_as(outputs)
                seen.register_hook(self._check_ignored)  # type: ignore[no-untyped-call]
            part = part + (1 - self.share) / self.task_unit * self.task.loss(seen, batch)
        return part, state

    def _distance(self, outputs: Tensor, original: Tensor, batch: Batch) -> Tensor:
        if self.own is not None:
            return self.own(outputs, original, batch)
        name = self.task.name
        if outputs.shape != original.shape:
            raise RecipeError(
                f"task {name}: outputs: {shape_text(outputs.shape)} from the compressed model, but "
                f"{shape_text(original.shape)} from the original for the same batch. Return the "
                "same positions for both."
            )
        check_outputs(name, original, self.kind)
        match self.kind:
            case "classes":
                return class_divergence(outputs, original, self.temperature)
            case "binary":
                return binary_divergence(outputs, original, self.temperature)
            case _:
                assert self.units is not None  # `make_distillation` measured them
                return squared_error(outputs, original, self.units)

    def _check_ignored(self, gradient: Tensor) -> None:
        """Refuse padding: cross entropy ignores it, but a divergence would count it.

        The gradient of cross entropy in a row is softmax - target: zeros only where it is ignored.
        """
        counted = int(gradient.any(1).sum())
        if 0 < counted < len(gradient):
            raise RecipeError(
                f"task {self.task.name}: the loss ignores {len(gradient) - counted} of "
                f"{len(gradient)} positions (padding?), but distillation would count them. Return "
                "from `outputs` only those that count, or give the task its own `distillation`."
            )


def make_distillation(
    task: Task, teacher: nn.Module, settings: Finetune, seed: int
) -> Distillation:
    """Find out what a task's outputs are, and measure the units of values.

    Args:
        task: gives the batches.
        teacher: the original, in evaluation mode and on the device of the training.
        settings: the recipe's `finetune:` block.
        seed: for the order of the batches.

    Raises:
        RecipeError: the task does not say what its outputs are and they need not be classes, or
            they break the contract of `Task.outputs`.
        TrainingError: the original's outputs are not finite.
    """
    share, temperature = settings.distill, settings.temperature
    own: OwnDistillation | None = getattr(task, "distillation", None)
    if own is not None:
        return Distillation(task, teacher, share, temperature, None, own)
    answers = _answers(task, teacher, seed)
    first = next(answers, None)
    if first is None:
        raise RecipeError(
            f"task {task.name}: train_batches gave 0 batches, so there is nothing to train on. "
            "Give it training data, or remove the finetune block."
        )
    original, batch = first
    check_outputs(task.name, original, None)
    kind = kind_of(task) or _infer_kind(task, original, batch)
    check_outputs(task.name, original, kind)
    _check_logits(task.name, original, kind)
    if kind != "values":
        return Distillation(task, teacher, share, temperature, kind)
    several = [first, *islice(answers, MEASURED - 1)]
    for original, _ in several:
        check_outputs(task.name, original, kind)
    units = value_units(original for original, _ in several)
    unit = 1.0 if share == 1 else _unit_of_loss(task, several, units)
    return Distillation(task, teacher, share, temperature, kind, units=units, task_unit=unit)


def value_units(originals: Iterable[Tensor]) -> Tensor:
    """The unit of the squared error of each feature, from (positions, features) of the original.

    It is the variance over all positions, so that features of different size count alike. A
    feature that never changes has none: its unit is its square, or 1 if it is always zero.
    """
    values = torch.cat([original.double() for original in originals])
    variance, square = values.var(0, correction=0), values.square().mean(0)
    varies = variance > ROUNDING**2 * square
    return torch.where(varies, variance, torch.where(square > 0, square, 1.0)).float()


def check_outputs(name: str, original: Tensor, kind: OutputKind | None) -> None:
    """Check the original's outputs against the contract of `Task.outputs`.

    Raises:
        RecipeError: they are not (positions, columns), or one column of classes.
        TrainingError: they are not finite; -inf is allowed as the logit of a class.
    """
    if original.dim() != 2:
        raise RecipeError(
            f"task {name}: outputs: expected the shape (positions, columns), got "
            f"{shape_text(original.shape)}. Flatten batch and time: `outputs.flatten(0, 1)`, or "
            "give a single column its axis: `outputs[:, None]`."
        )
    if kind == "classes" and original.shape[1] == 1:
        raise RecipeError(
            f"task {name}: outputs: 1 column of logits, but at least 2 classes are needed: the "
            f"softmax of one number is always 1. {SAY_IT}"
        )
    if not original.numel():
        raise RecipeError(
            f"task {name}: outputs: {shape_text(original.shape)}, so there is nothing to compare. "
            "Leave batches without positions out of `train_batches`."
        )
    low, high = (float(value) for value in original.aminmax())  # NaN if any is
    if not math.isfinite(high) or (not math.isfinite(low) and kind in ("binary", "values")):
        broken = int((~original.isfinite()).sum())
        raise TrainingError(
            f"task {name}: {broken} of {original.numel()} of the original's outputs are not "
            "finite, so nothing can be learned from them. Check the data, and the original with "
            "`ttcompress evaluate`."
        )


def _check_logits(name: str, original: Tensor, kind: OutputKind | None) -> None:
    """Refuse probabilities where logits are needed: their softmax is nearly uniform."""
    low, high = (float(value) for value in original.aminmax())
    sums = original.sum(1)
    if kind == "classes":
        found = low >= 0 and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-3).all())
    else:
        found = kind == "binary" and low >= 0 and high <= 1 and original.numel() >= MEASURED
    if found:
        raise RecipeError(
            f"task {name}: outputs: they are probabilities, from {low:.3g} to {high:.3g}, but "
            f"{kind} are compared by their logits. Return the outputs before the softmax or "
            "sigmoid, or their logarithm for classes."
        )


def _answers(task: Task, teacher: nn.Module, seed: int) -> Iterator[tuple[Tensor, Batch]]:
    """The original's outputs for the batches of the first epoch."""
    state = None
    for batch in task.train_batches(0, seed):
        with torch.no_grad():
            original, state = task.outputs(teacher, batch, state)
        yield original.float(), batch


def _infer_kind(task: Task, original: Tensor, batch: Batch) -> OutputKind:
    """Whether a task that does not say so has classes: by what its loss does not see.

    Cross entropy, and whatever else only sees the softmax, does not change if all logits of a
    position rise by the same number. Squared errors and binary cross entropy do. Log-probabilities
    are known by their sum.

    Raises:
        RecipeError: the outputs are not classes, or one cannot know.
    """
    fact = "does not say what its outputs are"
    if original.shape[1] == 1:
        fact += ", and one column cannot be classes"
    elif bool((original.logsumexp(1).abs() < 1e-3).all()):
        return "classes"
    else:
        finite = original.masked_fill(~original.isfinite(), 0.0)
        generator = torch.Generator().manual_seed(0)
        shift = torch.randn(len(original), 1, generator=generator).to(original.device)
        shifted = original + shift * (1 + finite.abs().max())
        try:
            with torch.no_grad():
                one, other = (float(task.loss(values, batch)) for values in (original, shifted))
        except TaskError as error:
            raise RecipeError(f"task {task.name}: {fact} ({error}). {SAY_IT}") from error
        if abs(one - other) <= 1e-4 * (1 + abs(one)):
            return "classes"
        fact += ", and its loss is not that of classes"
    raise RecipeError(f"task {task.name}: {fact}. {SAY_IT}")


def _unit_of_loss(task: Task, several: Iterable[tuple[Tensor, Batch]], units: Tensor) -> float:
    """How much the task's loss rises where `squared_error` rises by 1: the ratio of their units.

    Both signs of an error of one deviation are tried, so that for a squared error the slope cancels
    and exactly its unit is left.

    Raises:
        RecipeError: the loss does not rise.
    """
    generator, rises = torch.Generator().manual_seed(0), []
    for original, batch in several:
        signs = torch.randint(2, original.shape, generator=generator).to(original) * 2 - 1
        away = signs * units.sqrt()
        with torch.no_grad():
            here, up, down = (
                float(task.loss(values, batch))
                for values in (original, original + away, original - away)
            )
        rises.append((up + down) / 2 - here)
    unit = sum(rises) / len(rises)
    if not (math.isfinite(unit) and unit > 0):
        raise RecipeError(
            f"task {task.name}: the loss does not rise where values are off by one deviation (by "
            f"{unit:.3g}), so it cannot be weighed against the original's outputs. Use `distill: 0`"
            " or `distill: 1`, or give the task its own `distillation`."
        )
    return unit
