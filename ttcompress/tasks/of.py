"""Makes a task from a module and its loaders: `task_of`.

With labels the task has a loss and metrics; without, it compares a compressed model with the module
itself, so that distillation needs no label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.tasks.batches import run_batch
from ttcompress.tasks.likeness import Likeness, likeness_metrics
from ttcompress.tasks.protocol import Batch, Metric, OutputKind, State
from ttcompress.tasks.recurrent_task import PADDING

LABELS = ("labels", "label", "targets", "target", "y")
"""The keys under which a mapping may hold its labels."""

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
    loss: str | Loss | None = None,
    metrics: Mapping[str, AnyMetric] | None = None,
    forward: Callable[[nn.Module, Any], Any] = run_batch,
    predicts: OutputKind | None = None,
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
            if the batches have no labels: the model is then compared with `model`.
        metrics: by name, the counting one first; by default the loss, and for classes accuracy.
            Without labels they are `divergence` and `agreement`, or for values `output_error`.
        forward: runs a module on a batch; by default see `run_batch`. It returns the outputs, or a
            tuple or mapping in which they come first or are called `logits`.
        predicts: what the outputs are: "classes", "binary" or "values"; a named loss tells.
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
    found: Loss | None
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise RecipeError(
                f"task_of: there is no loss {loss!r}. Those known by name are {', '.join(LOSSES)}; "
                "or give a function of outputs and labels."
            )
        found, kind = LOSSES[loss]
        predicts, label = predicts or kind, loss
    else:
        found, label = loss, "loss"
    if predicts is None and found is None:
        raise RecipeError(
            "task_of: without a loss, say what the outputs are: predicts='classes' for logits, "
            "'binary' or 'values'."
        )
    scored = None if found is None else _scored(found, label, metrics, predicts)
    if metrics and found is None:
        raise RecipeError("task_of: metrics compare with labels, so a loss is needed too.")
    if train is not None and batches is None and not isinstance(train, Sized):
        raise RecipeError(
            f"task_of: the {type(train).__name__} for training has no length. "
            "Say how many batches make an epoch: batches=500."
        )
    count = batches if batches is not None else len(train) if isinstance(train, Sized) else 0
    return LoaderTask(name, model, train, valid, found, scored, forward, predicts, count)


@dataclass(frozen=True, eq=False)
class _Scored:
    """A metric with its name."""

    metric: Metric
    over: AnyMetric


class LoaderTask:
    """A `Task` of a module and its loaders; made by `task_of`."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        train: Iterable[Any] | None,
        valid: Iterable[Any] | None,
        loss: Loss | None,
        scored: tuple[_Scored, ...] | None,
        forward: Callable[[nn.Module, Any], Any],
        predicts: OutputKind | None,
        batches: int,
    ) -> None:
        self.name, self.batches_per_epoch = name, batches
        if predicts is not None:
            self.predicts = predicts
        self._model = deepcopy(model).cpu()
        self._train, self._valid = train, valid
        self._loss, self._scored, self._forward = loss, scored, forward
        self.labelled = loss is not None
        if scored is not None:
            self.metrics = tuple(one.metric for one in scored)
        else:
            assert predicts is not None  # `task_of` asked for it
            self.metrics = likeness_metrics(predicts)

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
        if first is not None:
            yield first
            yield from rest

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        """The outputs (positions, columns) that count, without padding."""
        found = _first_tensor(self._forward(model, batch))
        counts = _counted(found, batch)
        flat = found.flatten(0, -2) if found.dim() > 1 else found[:, None]
        return flat if counts is None else flat[counts.flatten().to(flat.device)], None

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of the outputs that count."""
        if self._loss is None:
            raise RecipeError(
                f"task {self.name}: has no loss. Train with `distill: 1`, or give task_of a loss."
            )
        return self._loss(outputs, self._labels(outputs, batch))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric over the loader of held-out batches."""
        if self._valid is None:
            raise RecipeError(
                f"task {self.name}: there is nothing to measure on. Give task_of `valid`."
            )
        likeness = None if self._scored is not None else Likeness(self.predicts)
        sums = [_Running(one) for one in self._scored or ()]
        seen = 0
        with evaluating(model), evaluating(self._model):
            for batch in self._valid:
                outputs, seen = self.outputs(model, batch, None)[0].float().cpu(), seen + 1
                if likeness is not None:
                    likeness.add(outputs, self.outputs(self._model, batch, None)[0].float())
                else:
                    labels = self._labels(outputs, batch)
                    for one in sums:
                        one.add(outputs, labels)
        if not seen:
            raise RecipeError(f"task {self.name}: the loader to measure on yields no batch.")
        if likeness is not None:
            return likeness.figures()
        return {one.scored.metric.name: one.value() for one in sums}

    def _labels(self, outputs: Tensor, batch: Batch) -> Tensor:
        labels = _labels_of(batch)
        if labels is None:
            raise RecipeError(
                f"task {self.name}: a batch has no labels. Make its last part the labels, or a "
                f"mapping with {LABELS[0]!r}; without any, give task_of no loss."
            )
        flat = labels.to(outputs.device)
        if not flat.is_floating_point() and self._loss is not functional.mse_loss:
            flat = flat.flatten()
            return flat[flat != PADDING]
        return flat.reshape(outputs.shape).to(outputs.dtype)


def _scored(
    loss: Loss,
    label: str,
    metrics: Mapping[str, AnyMetric] | None,
    predicts: OutputKind | None,
) -> tuple[_Scored, ...]:
    """The metrics with their directions."""
    if metrics is None:
        found: dict[str, AnyMetric] = {label: (loss, False)}
        if predicts == "classes":
            found["accuracy"] = (_accuracy, True)
        metrics = found
    scored = []
    for name, one in metrics.items():
        higher = one[1] if isinstance(one, tuple) else getattr(one, "higher_is_better", None)
        if not isinstance(higher, bool):
            raise RecipeError(
                f"task_of: metric {name}: whether higher is better is not known. Give a pair: "
                "(function, True) where higher is better, else (function, False)."
            )
        scored.append(_Scored(Metric(name, higher), one))
    return tuple(scored)


def _accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(-1) == labels).float().mean()


class _Running:
    """A metric over batches: functions are averaged by the number of positions."""

    def __init__(self, scored: _Scored) -> None:
        self.scored = scored
        self._total, self._positions = 0.0, 0
        if not isinstance(scored.over, tuple):
            scored.over.reset()

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        over = self.scored.over
        if isinstance(over, tuple):
            self._total += float(over[0](outputs, labels)) * len(outputs)
            self._positions += len(outputs)
        else:
            over.update(outputs, labels)

    def value(self) -> float:
        over = self.scored.over
        if isinstance(over, tuple):
            return self._total / max(self._positions, 1)
        return float(over.compute())


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


def _labels_of(batch: Batch) -> Tensor | None:
    if isinstance(batch, Mapping):
        found = next((batch[key] for key in LABELS if key in batch), None)
    else:
        found = batch[-1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    return found if isinstance(found, Tensor) else None


def _counted(outputs: Tensor, batch: Batch) -> Tensor | None:
    """Which positions count: not those labelled -100, nor those that a mask leaves out."""
    places = outputs.shape[:-1]
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    labels = _labels_of(batch)
    if labels is not None and labels.shape == places and not labels.is_floating_point():
        return labels != PADDING
    if isinstance(mask, Tensor) and mask.shape == places:
        return mask.bool()
    return None
