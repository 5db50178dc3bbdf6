"""Makes a task from a module and its loaders: `task_of`.

With labels the task has a loss and metrics; without, it compares a compressed model with the module
itself, so that distillation needs no label. A module with several outputs gives them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.system.text import shape_text
from ttcompress.tasks.batches import check_batches, run_batch
from ttcompress.tasks.likeness import Likeness, likeness_metrics
from ttcompress.tasks.protocol import (
    OUTPUT_KINDS,
    SINGLE,
    Batch,
    Metric,
    OutputKind,
    Outputs,
    State,
    name_outputs,
    unname_outputs,
)
from ttcompress.tasks.recurrent_task import PADDING

LABELS = ("labels", "label", "targets", "target", "y")
"""The keys under which a mapping may hold its labels."""

TOTAL = Metric("loss", higher_is_better=False)
"""The counting metric of several outputs: the sum of their losses."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs (positions, columns) and labels (positions,) or (positions, columns) to a number."""

LOSSES: dict[str, tuple[Loss, OutputKind]] = {
    "cross_entropy": (functional.cross_entropy, "classes"),
    "binary_cross_entropy": (functional.binary_cross_entropy_with_logits, "binary"),
    "mse": (functional.mse_loss, "values"),
    "l1": (functional.l1_loss, "values"),
}
"""By name, with the kind of outputs that each is for."""


class MetricObject(Protocol):
    """A metric that adds up over batches, as those of torchmetrics."""

    higher_is_better: bool | None

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add the outputs and labels of a batch."""

    def compute(self) -> Tensor:
        """The metric over all batches since the last reset."""

    def reset(self) -> None:
        """Forget all batches."""


AnyMetric = MetricObject | tuple[Callable[[Tensor, Tensor], Any], bool]
"""An object of torchmetrics, or a function of outputs and labels with whether higher is better."""


def task_of(
    model: nn.Module,
    *,
    train: Iterable[Any] | None = None,
    valid: Iterable[Any] | None = None,
    loss: str | Loss | Mapping[str, str | Loss] | None = None,
    metrics: Mapping[str, AnyMetric] | None = None,
    forward: Callable[[nn.Module, Any], Any] = run_batch,
    predicts: OutputKind | Mapping[str, OutputKind] | None = None,
    batches: int | None = None,
    name: str = "own",
) -> LoaderTask:
    """Make a task of a module and its loaders.

    Args:
        model: the trained module; it is copied, never changed.
        train: batches to train on, such as a DataLoader. A batch is a tuple whose last part is the
            labels, a mapping with `labels`, or inputs alone.
        valid: batches to measure on, read whole at every measurement.
        loss: a name in `LOSSES`, or a function of outputs (positions, columns) and labels; None
            if the batches have no labels: the model is then compared with `model`. For several
            outputs a mapping of their names to losses, which add up.
        metrics: by name, the counting one first; by default the loss, and for classes accuracy.
            Without labels they are `divergence` and `agreement`, or for values `output_error`. Of
            several outputs, "regime.f1" is one of the output `regime`; their total loss is first.
        forward: runs a module on a batch; by default see `run_batch`. It returns the outputs, or a
            tuple or mapping in which they come first or are called `logits`. Several are a mapping
            with their names, or a tuple in the order in which `loss` or `predicts` names them; so
            are their labels, or they are the last parts of a batch.
        predicts: what the outputs are: "classes", "binary" or "values"; a named loss tells. For
            several outputs a mapping.
        batches: how many make an epoch, where `train` has no length.
        name: what reports call the task.

    Raises:
        RecipeError: an argument does not fit, or a loader yields no batch.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
        >>> task = task_of(model, valid=[(torch.ones(4, 2, 3), torch.zeros(4).long())],
        ...                loss="cross_entropy")
        >>> sorted(task.evaluate(model))
        ['accuracy', 'cross_entropy']
    """
    losses: dict[str, str | Loss | None] = (
        dict(loss) if isinstance(loss, Mapping) else {SINGLE: loss}
    )
    kinds: dict[str, OutputKind | None] = (
        dict(predicts) if isinstance(predicts, Mapping) else dict.fromkeys(losses, predicts)
    )
    if loss is None:
        losses = dict.fromkeys(kinds)
    lacking = [name for name, one in losses.items() if one is None]
    if loss is not None and lacking:
        raise RecipeError(f"task_of: {_listed(lacking)}: has no loss. Give one for each output.")
    if set(losses) != set(kinds) or not losses:
        raise RecipeError(
            f"task_of: loss names the outputs {_listed(losses)}, but predicts {_listed(kinds)}. "
            "Name the same in both, or give no predicts where every loss is known by name."
        )
    outputs = tuple(_Output.of(one, losses[one], kinds[one]) for one in losses)
    if metrics and loss is None:
        raise RecipeError("task_of: metrics compare with labels, so a loss is needed too.")
    scored = None if loss is None else _scored(outputs, metrics)
    for place, loader in (("train", train), ("valid", valid)):
        if loader is not None:
            check_batches(f"task_of: {place}", loader)
    if isinstance(valid, Iterator):
        raise RecipeError(
            f"task_of: valid: a {type(valid).__name__} can be read only once, but every "
            "measurement reads it. Give a list or a DataLoader."
        )
    if train is not None and batches is None and not isinstance(train, Sized):
        raise RecipeError(
            f"task_of: the {type(train).__name__} for training has no length. "
            "Say how many batches make an epoch: batches=500."
        )
    count = batches if batches is not None else len(train) if isinstance(train, Sized) else 0
    return LoaderTask(name, model, train, valid, outputs, scored, forward, count)


@dataclass(frozen=True, eq=False)
class _Output:
    """One of a module's outputs: its name, what it is, its loss, and what the loss is called."""

    name: str
    kind: OutputKind | None
    loss: Loss | None
    label: str

    @classmethod
    def of(cls, name: str, loss: str | Loss | None, kind: OutputKind | None) -> _Output:
        """Look up a loss that is named, and check that the output's kind is known.

        Raises:
            RecipeError: there is no such loss or kind, or nothing says what the output is.
        """
        place = f"task_of: {name}" if name != SINGLE else "task_of"
        if kind is not None and kind not in OUTPUT_KINDS:
            raise RecipeError(
                f"{place}: predicts: expected one of {', '.join(OUTPUT_KINDS)}, got {kind!r}."
            )
        label = "loss"
        if isinstance(loss, str):
            if loss not in LOSSES:
                raise RecipeError(
                    f"{place}: there is no loss {loss!r}. Those known by name are "
                    f"{', '.join(LOSSES)}; or give a function of outputs and labels."
                )
            label, (loss, usual) = loss, LOSSES[loss]
            kind = kind or usual
        if kind is None and (loss is None or name != SINGLE):
            fact = "without a loss" if loss is None else "where a loss is a function"
            raise RecipeError(
                f"{place}: {fact}, say what the outputs are: predicts='classes' for logits, "
                "'binary' or 'values'."
            )
        return cls(name, kind, loss, label)

    def full(self, metric: str) -> str:
        """A metric's name in the task."""
        return metric if self.name == SINGLE else f"{self.name}.{metric}"


@dataclass(frozen=True, eq=False)
class _Scored:
    """A metric, and the output that it is of."""

    metric: Metric
    over: AnyMetric
    output: str


class LoaderTask:
    """A `Task` of a module and its loaders; made by `task_of`."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        train: Iterable[Any] | None,
        valid: Iterable[Any] | None,
        outputs: tuple[_Output, ...],
        scored: tuple[_Scored, ...] | None,
        forward: Callable[[nn.Module, Any], Any],
        batches: int,
    ) -> None:
        self.name, self.batches_per_epoch = name, batches
        self._outputs = {one.name: one for one in outputs}
        kinds = {one.name: one.kind for one in outputs if one.kind is not None}
        if kinds:
            self.predicts = kinds.get(SINGLE, kinds)
        self._kinds = kinds
        self._model = deepcopy(model).cpu()
        self._train, self._valid = train, valid
        self._scored, self._forward = scored, forward
        self.labelled = scored is not None
        if scored is None:
            self.metrics: tuple[Metric, ...] = tuple(
                replace(metric, name=one.full(metric.name))
                for one in outputs
                for metric in likeness_metrics(kinds[one.name])
            )
        else:
            total = () if SINGLE in self._outputs else (TOTAL,)
            self.metrics = (*total, *(one.metric for one in scored))

    def build(self) -> nn.Module:
        """A copy of the module."""
        return deepcopy(self._model)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """The loader's batches, in an order that the epoch and the seed decide."""
        if self._train is None:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1_000_003 + epoch)
            own = getattr(self._train, "generator", None)
            if isinstance(own, torch.Generator):
                own.manual_seed(seed * 1_000_003 + epoch)
            rest = islice(iter(self._train), self.batches_per_epoch)
            first = next(rest, None)  # samplers draw the order as the first batch is asked for
        if first is None and isinstance(self._train, Iterator):
            raise RecipeError(
                f"task {self.name}: the {type(self._train).__name__} to train on has ended, since "
                "it can be read only once. Give a list or a DataLoader."
            )
        if first is not None:
            yield first
            yield from rest

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Outputs, State]:
        """The outputs (positions, columns) that count, without padding; several by name."""
        found = self._forward(model, batch)
        named = {}
        for name in self._outputs:
            values = self._one_output(found, name)
            counts = _counted(values, batch, self._labels_in(batch, name))
            flat = values.flatten(0, -2) if values.dim() > 1 else values[:, None]
            named[name] = flat if counts is None else flat[counts.flatten().to(flat.device)]
        return unname_outputs(named), None

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """The loss of the outputs that count; the sum over several."""
        named = name_outputs(outputs)
        parts = [self._loss(one, named[name], batch) for name, one in self._outputs.items()]
        return torch.stack(parts).sum()

    def _loss(self, output: _Output, values: Tensor, batch: Batch) -> Tensor:
        if output.loss is None:
            raise RecipeError(
                f"task {self.name}: has no loss. Train with `distill: 1`, or give task_of a loss."
            )
        return output.loss(values, self._labels(output, values, batch))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric over the loader of held-out batches."""
        if self._valid is None:
            raise RecipeError(
                f"task {self.name}: there is nothing to measure on. Give task_of `valid`."
            )
        with evaluating(model), evaluating(self._model):
            found = self._compare(model) if self._scored is None else self._score(model)
        if found is None:
            raise RecipeError(f"task {self.name}: the loader to measure on yields no batch.")
        return found

    def _compare(self, model: nn.Module) -> dict[str, float] | None:
        """How closely the outputs follow the original's; None without a batch."""
        sums = {name: Likeness(kind) for name, kind in self._kinds.items()}
        seen = False
        for batch in self._valid or ():
            seen = True
            ours, theirs = (
                name_outputs(self.outputs(one, batch, None)[0]) for one in (model, self._model)
            )
            for name, likeness in sums.items():
                likeness.add(ours[name].float().cpu(), theirs[name].float())
        return (
            {
                self._outputs[name].full(metric): value
                for name, likeness in sums.items()
                for metric, value in likeness.figures().items()
            }
            if seen
            else None
        )

    def _score(self, model: nn.Module) -> dict[str, float] | None:
        """The metrics against the labels; None without a batch."""
        assert self._scored is not None
        sums = [_Running(f"task {self.name}: {one.metric.name}", one.over) for one in self._scored]
        losses = (
            {}
            if SINGLE in self._outputs
            else {
                name: _Running(f"task {self.name}: the loss of {name}", (one.loss, False))
                for name, one in self._outputs.items()
                if one.loss
            }
        )
        seen = False
        for batch in self._valid or ():
            seen = True
            values = {
                name: one.float().cpu()
                for name, one in name_outputs(self.outputs(model, batch, None)[0]).items()
            }
            labels = {
                name: self._labels(one, values[name], batch) for name, one in self._outputs.items()
            }
            for one, running in zip(self._scored, sums, strict=True):
                running.add(values[one.output], labels[one.output])
            for name, running in losses.items():
                running.add(values[name], labels[name])
        found = {
            one.metric.name: running.value()
            for one, running in zip(self._scored, sums, strict=True)
        }
        if losses:
            found = {TOTAL.name: sum(one.value() for one in losses.values())} | found
        return found if seen else None

    def _one_output(self, found: Any, name: str) -> Tensor:
        """The tensor of one output in what the module returns."""
        if name == SINGLE:
            return _first_tensor(found)
        one = _named(found, name, list(self._outputs))
        if not isinstance(one, Tensor):
            raise RecipeError(
                f"task {self.name}: the module returns a {type(found).__name__} without a tensor "
                f"for the output {name}. Return a mapping with {_listed(self._outputs)}, or give "
                "`forward=` a function that does."
            )
        return one

    def _labels_in(self, batch: Batch, name: str) -> Tensor | None:
        """The labels of one output in a batch, as they are."""
        found = _labels_of(batch, 1 if name == SINGLE else len(self._outputs))
        if name != SINGLE:
            found = _named(found, name, list(self._outputs))
            if found is None and isinstance(batch, Mapping):
                found = batch.get(name)
        return found if isinstance(found, Tensor) else None

    def _labels(self, output: _Output, values: Tensor, batch: Batch) -> Tensor:
        """The labels of the positions that count, in the form that the output's loss takes.

        Raises:
            RecipeError: there are none, or they are of another kind or number than the outputs.
        """
        labels = self._labels_in(batch, output.name)
        place = f"task {self.name}" + (f": {output.name}" if output.name != SINGLE else "")
        if labels is None:
            raise RecipeError(
                f"{place}: a batch has no labels. Make its last part the labels, or a "
                f"mapping with {LABELS[0]!r}; without any, give task_of no loss."
            )
        flat = labels.to(values.device)
        mask = _mask_of(batch)
        if mask is not None and flat.is_floating_point() and flat.shape[: mask.dim()] == mask.shape:
            flat = flat[mask.to(flat.device)]
        kind, whole = output.kind, not flat.is_floating_point()
        if kind is None and values.shape[1] == 1:
            kind = "values"  # one column cannot be classes
        if whole and (kind in ("classes", None) or flat.numel() != values.numel()):
            flat = flat.flatten()
            flat = flat[flat != PADDING]
        if kind is None and (whole or flat.numel() != values.numel()):
            return flat  # of a loss that is a function: it knows
        if not (whole and kind == "classes"):
            if flat.numel() != values.numel():
                raise self._misfit(place, kind, values, labels)
            return flat.reshape(values.shape).to(values.dtype)
        if len(flat) != len(values):
            raise self._misfit(place, kind, values, labels)
        low, high = (int(one) for one in flat.long().aminmax()) if len(flat) else (0, 0)
        if low < 0 or high >= values.shape[1]:
            raise RecipeError(
                f"{place}: the labels are from {low} to {high}, but the outputs have "
                f"{values.shape[1]} classes, numbered from 0. Correct the labels; {PADDING} marks "
                "positions that do not count."
            )
        return flat.long()

    def _misfit(
        self, place: str, kind: OutputKind | None, values: Tensor, labels: Tensor
    ) -> RecipeError:
        cure = "Give a number for each of the outputs."
        if kind == "classes":
            cure = "Give the number of a class for each position, as an integer."
        return RecipeError(
            f"{place}: the outputs are {shape_text(values.shape)} (positions x columns), but a "
            f"batch has labels of {shape_text(labels.shape)} in "
            f"{str(labels.dtype).removeprefix('torch.')}. {cure}"
        )


def _scored(
    outputs: tuple[_Output, ...], metrics: Mapping[str, AnyMetric] | None
) -> tuple[_Scored, ...]:
    """The metrics with their directions, and the outputs that they are of."""
    by_prefix = {one.full(""): one for one in outputs}
    if metrics is None:
        found: dict[str, AnyMetric] = {}
        for one in outputs:
            assert one.loss is not None  # `task_of` asked for all of them or none
            found[one.full(one.label)] = (one.loss, False)
            if one.kind == "classes":
                found[one.full("accuracy")] = (_accuracy, True)
        metrics = found
    scored = []
    for name, over in metrics.items():
        higher = over[1] if isinstance(over, tuple) else getattr(over, "higher_is_better", None)
        if not isinstance(higher, bool):
            raise RecipeError(
                f"task_of: metric {name}: whether higher is better is not known. Give a pair: "
                "(function, True) where higher is better, else (function, False)."
            )
        owner = next((one for prefix, one in by_prefix.items() if name.startswith(prefix)), None)
        if owner is None:
            raise RecipeError(
                f"task_of: metric {name}: begins with none of the outputs "
                f"{_listed(one.name for one in outputs)}. Call it {outputs[0].full(name)}, say."
            )
        scored.append(_Scored(Metric(name, higher), over, owner.name))
    return tuple(scored)


def _accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(-1) == labels).float().mean()


class _Running:
    """A metric over batches: functions are averaged by the number of positions."""

    def __init__(self, place: str, over: AnyMetric) -> None:
        self._place, self._over = place, over
        self._total, self._positions = 0.0, 0
        if not isinstance(over, tuple):
            over.reset()

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        if isinstance(self._over, tuple):
            self._total += self._number(self._over[0](outputs, labels)) * len(outputs)
            self._positions += len(outputs)
        else:
            self._over.update(outputs, labels)

    def value(self) -> float:
        if isinstance(self._over, tuple):
            return self._total / max(self._positions, 1)
        return self._number(self._over.compute())

    def _number(self, found: Any) -> float:
        numeric = isinstance(found, int | float) or getattr(found, "shape", None) == ()
        if not numeric and not (isinstance(found, Tensor) and found.numel() == 1):
            got = type(found).__name__
            if isinstance(found, Tensor):
                got += f" of {shape_text(found.shape)}"
            raise RecipeError(
                f"{self._place} is not a number but a {got}. Let it give one number for a batch."
            )
        return float(found)


def _first_tensor(found: Any) -> Tensor:
    """The outputs in what a module returns."""
    if isinstance(found, Mapping) and "logits" in found:
        found = found["logits"]
    tensors = [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]
    if not tensors:
        raise RecipeError(
            f"task_of: the module returns a {type(found).__name__} without a tensor. "
            "Give `forward=` a function that returns the outputs."
        )
    return tensors[0]


def _named(found: Any, name: str, names: Sequence[str]) -> Any:
    """One of several values by its name, or by its place where they have no names."""
    if isinstance(found, Mapping):
        return found.get(name)
    if isinstance(found, tuple | list) and len(found) >= len(names):
        has_name = name in getattr(found, "_fields", ())
        return getattr(found, name) if has_name else found[names.index(name)]
    return None


def _labels_of(batch: Batch, count: int) -> Any:
    """The labels in a batch: of one output, or of several by name or in order."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in LABELS if key in batch), None)
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        return None
    if count == 1 or isinstance(batch[-1], Mapping | tuple | list):
        return batch[-1]
    return batch[-count:] if len(batch) > count else None


def _mask_of(batch: Batch) -> Tensor | None:
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask.bool() if isinstance(mask, Tensor) else None


def _counted(outputs: Tensor, batch: Batch, labels: Tensor | None) -> Tensor | None:
    """Which positions count: not those labelled -100, nor those that a mask leaves out."""
    places, mask = outputs.shape[:-1], _mask_of(batch)
    if labels is not None and labels.shape == places and not labels.is_floating_point():
        return labels != PADDING
    return mask if mask is not None and mask.shape == places else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name or "(one output)" for name in names) or "none"
