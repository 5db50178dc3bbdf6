"""Compares a model's outputs with the original's: the part of the loss that needs no labels.

`make_distillation` finds out what the outputs of a task are and, for values, in which units they
differ; the `Distillation` that it makes is then asked in every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from ttcompress.errors import RecipeError, TaskError, TrainingError
from ttcompress.recipe import Finetune
from ttcompress.system.text import shape_text
from ttcompress.tasks.likeness import binary_divergence, class_divergence, squared_error
from ttcompress.tasks.protocol import (
    SINGLE,
    Batch,
    OutputKind,
    Outputs,
    OwnDistillation,
    State,
    Task,
    kinds_of,
    name_outputs,
    unname_outputs,
)

MEASURED = 16
"""Batches of the first epoch from which the units of values are measured."""

Answer = tuple[dict[str, Tensor], Batch]
"""The original's outputs by name, and the batch that they answer."""

ROUNDING = 1e-6
"""The relative deviation below which float32 values count as constant."""

SAY_IT = (
    'Write `predicts = "values"` in the task\'s class (or "binary": yes or no, one question a '
    'column; or "classes": their logits), give the task its own `distillation`, or turn it off: '
    "`finetune: {distill: 0}`."
)


@dataclass(frozen=True, eq=False)
class Distance:
    """How far one of a task's outputs is from the original's.

    Attributes:
        place: for messages: the task and the output.
        kind: what the columns are.
        units: of the squared error of values, (columns,); None for other kinds.
        loss_unit: how much the task's loss rises where the distance does by 1.
    """

    place: str
    kind: OutputKind
    units: Tensor | None = None
    loss_unit: float = 1.0

    def measure(self, outputs: Tensor, original: Tensor, temperature: float) -> Tensor:
        """The distance in its own unit.

        Raises:
            RecipeError: the outputs break the contract of `Task.outputs`.
            TrainingError: the original's outputs are not finite.
        """
        if outputs.shape != original.shape:
            raise RecipeError(
                f"{self.place}: {shape_text(outputs.shape)} from the compressed model, but "
                f"{shape_text(original.shape)} from the original for the same batch. Return the "
                "same positions for both."
            )
        check_outputs(self.place, original, self.kind)
        match self.kind:
            case "classes":
                return class_divergence(outputs, original, temperature)
            case "binary":
                return binary_divergence(outputs, original, temperature)
            case _:
                assert self.units is not None  # `make_distillation` measured them
                return squared_error(outputs, original, self.units)

    def check_ignored(self, gradient: Tensor) -> None:
        """Refuse padding: cross entropy ignores it, but a divergence would count it.

        The gradient of cross entropy in a row is softmax - target: zeros only where it is ignored.
        """
        counted = int(gradient.any(1).sum())
        if 0 < counted < len(gradient):
            raise RecipeError(
                f"{self.place}: the loss ignores {len(gradient) - counted} of "
                f"{len(gradient)} positions (padding?), but distillation would count them. Return "
                "from `outputs` only those that count, or give the task its own `distillation`."
            )


@dataclass(frozen=True, eq=False)
class Distillation:
    """Trains a student to answer as the original does (Hinton, Vinyals and Dean 2015).

    The loss is (1 - share) of the task's and share of the distance to the original's outputs: for
    classes and binary outputs the divergence of the probabilities at a temperature, for values the
    squared error in units of the original's variance. Distances of several outputs add up, each
    weighed by how much the task's loss rises with it. With a share of 1 the task's loss is never
    asked for.

    Attributes:
        task: runs both models.
        teacher: the original, on the device of the training.
        share: of the loss, from 0 to 1.
        temperature: at which probabilities are compared.
        distances: of each output; none if the task compares them itself.
        own: the task's own distance.
    """

    task: Task
    teacher: nn.Module
    share: float
    temperature: float
    distances: Mapping[str, Distance]
    own: OwnDistillation | None = None

    @property
    def task_unit(self) -> float:
        """What the task's loss is divided by, so that both parts have one unit."""
        return sum(distance.loss_unit for distance in self.distances.values()) or 1.0

    def loss(self, outputs: Outputs, batch: Batch, state: State) -> tuple[Tensor, State]:
        """The loss of a student's outputs, and the teacher's state for the next batch.

        Raises:
            RecipeError: the outputs break the contract of `Task.outputs`.
            TrainingError: the original's outputs are not finite.
        """
        with torch.no_grad():
            original, state = self.task.outputs(self.teacher, batch, state)
        wanted = {name: one.float() for name, one in name_outputs(original).items()}
        if self.own is not None:
            part = self.share * self.own(outputs, unname_outputs(wanted), batch)
        else:
            part = self.share * self._distance(name_outputs(outputs), wanted)
        if self.share < 1:
            seen = {name: self._watch(name, one) for name, one in name_outputs(outputs).items()}
            labelled = self.task.loss(unname_outputs(seen), batch)
            part = part + (1 - self.share) / self.task_unit * labelled
        return part, state

    def _distance(self, outputs: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> Tensor:
        for found in (outputs, original):
            check_names(self.task.name, found, self.distances)
        parts = [
            one.loss_unit / self.task_unit * one.measure(outputs[k], original[k], self.temperature)
            for k, one in self.distances.items()
        ]
        return torch.stack(parts).sum()

    def _watch(self, name: str, outputs: Tensor) -> Tensor:
        """The same values, for the task's loss; of classes it must not ignore any."""
        distance = self.distances.get(name)
        if distance is None or distance.kind != "classes":
            return outputs
        seen = outputs.view_as(outputs)
        seen.register_hook(distance.check_ignored)  # type: ignore[no-untyped-call]
        return seen


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
        return Distillation(task, teacher, share, temperature, {}, own)
    answers = _answers(task, teacher, seed)
    first = next(answers, None)
    if first is None:
        raise RecipeError(
            f"task {task.name}: train_batches gave 0 batches, so there is nothing to train on. "
            "Give it training data, or remove the finetune block."
        )
    original, batch = first
    kinds = kinds_of(task)
    if kinds is None:
        check_names(task.name, original, {SINGLE})
        check_outputs(_place(task, SINGLE), original[SINGLE], None)
        kinds = {SINGLE: _infer_kind(task, original[SINGLE], batch)}
    check_names(task.name, original, kinds)
    for name, kind in kinds.items():
        check_outputs(_place(task, name), original[name], kind)
        _check_logits(_place(task, name), original[name], kind)
    several = [first]
    if "values" in kinds.values():
        several += islice(answers, MEASURED - 1)
    distances = {name: _distance_of(task, several, name, kind) for name, kind in kinds.items()}
    if share < 1:
        for name, distance in distances.items():
            if distance.units is not None:
                unit = _unit_of_loss(task, several, name, distance.units)
                distances[name] = replace(distance, loss_unit=unit)
    return Distillation(task, teacher, share, temperature, distances)


def _distance_of(task: Task, several: Iterable[Answer], name: str, kind: OutputKind) -> Distance:
    place, units = _place(task, name), None
    if kind == "values":
        originals = [original[name] for original, _ in several]
        for original in originals:
            check_outputs(place, original, kind)
        units = value_units(originals)
    return Distance(place, kind, units)


def _place(task: Task, name: str) -> str:
    return f"task {task.name}: outputs" + (f"[{name!r}]" if name != SINGLE else "")


def value_units(originals: Iterable[Tensor]) -> Tensor:
    """The unit of the squared error of each feature, from (positions, features) of the original.

    It is the variance over all positions, so that features of different size count alike. A
    feature that never changes has none: its unit is its square, or 1 if it is always zero.
    """
    values = torch.cat([original.double() for original in originals])
    variance, square = values.var(0, correction=0), values.square().mean(0)
    varies = variance > ROUNDING**2 * square
    return torch.where(varies, variance, torch.where(square > 0, square, 1.0)).float()


def check_names(task: str, outputs: Iterable[str], kinds: Iterable[str]) -> None:
    """Check that outputs have the names that their task says.

    Raises:
        RecipeError: they are others, or a tensor is a mapping or the reverse.
    """
    if set(outputs) != set(kinds):
        found, said = (
            "one tensor" if SINGLE in names else f"the names {', '.join(names)}"
            for names in (outputs, kinds)
        )
        raise RecipeError(
            f"task {task}: outputs: expected {said}, got {found}. Let `predicts` say what each is: "
            '`predicts = {"next": "values", "regime": "classes"}`.'
        )


def check_outputs(place: str, original: Tensor, kind: OutputKind | None) -> None:
    """Check one of the original's outputs against the contract of `Task.outputs`.

    Raises:
        RecipeError: they are not (positions, columns), or one column of classes.
        TrainingError: they are not finite; -inf is allowed as the logit of a class.
    """
    if original.dim() != 2:
        raise RecipeError(
            f"{place}: expected the shape (positions, columns), got "
            f"{shape_text(original.shape)}. Flatten batch and time: `outputs.flatten(0, 1)`, or "
            "give a single column its axis: `outputs[:, None]`."
        )
    if kind == "classes" and original.shape[1] == 1:
        raise RecipeError(
            f"{place}: 1 column of logits, but at least 2 classes are needed: the "
            f"softmax of one number is always 1. {SAY_IT}"
        )
    if not original.numel():
        raise RecipeError(
            f"{place}: {shape_text(original.shape)}, so there is nothing to compare. "
            "Leave batches without positions out of `train_batches`."
        )
    low, high = (float(value) for value in original.aminmax())  # NaN if any is
    if not math.isfinite(high) or (not math.isfinite(low) and kind in ("binary", "values")):
        broken = int((~original.isfinite()).sum())
        raise TrainingError(
            f"{place}: {broken} of {original.numel()} of the original's outputs are not finite, so "
            " nothing can be learned from them. Check the data, and the original with "
            "`ttcompress evaluate`."
        )


def _check_logits(place: str, original: Tensor, kind: OutputKind | None) -> None:
    """Refuse probabilities where logits are needed: their softmax is nearly uniform."""
    low, high = (float(value) for value in original.aminmax())
    sums = original.sum(1)
    if kind == "classes":
        found = low >= 0 and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-3).all())
    else:
        found = kind == "binary" and low >= 0 and high <= 1 and original.numel() >= MEASURED
    if found:
        raise RecipeError(
            f"{place}: they are probabilities, from {low:.3g} to {high:.3g}, but "
            f"{kind} are compared by their logits. Return the outputs before the softmax or "
            "sigmoid, or their logarithm for classes."
        )


def _answers(task: Task, teacher: nn.Module, seed: int) -> Iterator[Answer]:
    """The original's outputs for the batches of the first epoch."""
    state = None
    for batch in task.train_batches(0, seed):
        with torch.no_grad():
            original, state = task.outputs(teacher, batch, state)
        yield {name: one.float() for name, one in name_outputs(original).items()}, batch


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


def _unit_of_loss(task: Task, several: Iterable[Answer], name: str, units: Tensor) -> float:
    """How much the task's loss rises where the `squared_error` of an output does by 1.

    Both signs of an error of one deviation are tried, so that for a squared error the slope cancels
    and exactly its unit is left.

    Raises:
        RecipeError: the loss does not rise.
    """
    generator, rises = torch.Generator().manual_seed(0), []
    for original, batch in several:
        here = original[name]
        signs = torch.randint(2, here.shape, generator=generator).to(here) * 2 - 1
        away = signs * units.sqrt()
        with torch.no_grad():
            at, up, down = (
                float(task.loss(unname_outputs({**original, name: values}), batch))
                for values in (here, here + away, here - away)
            )
        rises.append((up + down) / 2 - at)
    unit = sum(rises) / len(rises)
    if not (math.isfinite(unit) and unit > 0):
        raise RecipeError(
            f"{_place(task, name)}: the loss does not rise where values are off by one "
            f"deviation (by {unit:.3g}), so it cannot be weighed against the original's outputs. "
            "Use `distill: 0` or `distill: 1`, or give the task its own `distillation`."
        )
    return unit
