"""Trains a compressed model on a task and keeps the best model on the way.

The dense matrices are rebuilt from the cores once a step and run by torch's fused kernels, so a
step costs about as much as a dense one. The first part of the steps is in float; after that the
forward pass uses the values that the store will keep. The stored model itself is judged at the end
of every epoch, and the start is the first candidate: the result is never worse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttcompress.artifact import CompressedModel
from ttcompress.errors import RecipeError, TrainingError
from ttcompress.recipe import Finetune
from ttcompress.tasks.evaluation import Metrics, measure_metrics
from ttcompress.tasks.protocol import Batch, State, Task, name_outputs, unname_outputs
from ttcompress.training.coded import STEER_EVERY
from ttcompress.training.distillation import make_distillation
from ttcompress.training.machine import Machine, OneDevice, share, steps_per_process
from ttcompress.training.student import apply_rounding, make_student, rate_control, snapshot

FLOAT_PART = 1 / 3
"""Fraction of the steps before the forward pass uses rounded values."""

FLOOR = 0.02
"""The learning rate at the end of the cosine, as a fraction of the highest."""

PATIENCE = 3
"""Epochs without a better metric, once values are rounded, before training stops."""

ONE_CPU = OneDevice()
"""The default machine."""


@dataclass(frozen=True)
class StepReport:
    """The progress of training, for a watcher; `metrics` are set at the end of an epoch."""

    step: int
    steps: int
    epoch: int
    loss: float
    steps_per_second: float
    metrics: Metrics | None = None


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The best stored model, its metrics and those at the start.

    `steps` counts the whole run even if it was resumed; `seconds` are since it was resumed. The
    best model was measured after `best_step`, which is 0 for the start.
    """

    model: CompressedModel
    before: Metrics
    after: Metrics
    steps: int
    seconds: float
    best_step: int = 0


def steps_in(task: Task, settings: Finetune, machine: Machine) -> int:
    """How many steps a run takes on each process.

    Raises:
        RecipeError: the task has no training data.
    """
    if task.batches_per_epoch < 1:
        raise RecipeError(
            f"task {task.name}: an epoch has {task.batches_per_epoch} batches, but at least 1 is "
            "needed. Give it training data, or remove the finetune block."
        )
    steps = settings.epochs * steps_per_process(task.batches_per_epoch, machine)
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


class Training:
    """One run of fine-tuning; `run` continues from its present step.

    Args:
        start: the model to start from.
        task: gives batches, losses and metrics.
        settings: the recipe's `finetune:` block.
        seed: for batches and dropout.
        teacher: the original, for distillation; see `Distillation`.
        machine: what to train on.

    Raises:
        RecipeError: the task has no training data, or its outputs cannot be distilled.
    """

    def __init__(
        self,
        start: CompressedModel,
        task: Task,
        settings: Finetune,
        *,
        seed: int = 0,
        teacher: nn.Module | None = None,
        machine: Machine = ONE_CPU,
    ) -> None:
        self.task, self.settings, self.seed, self.machine = task, settings, seed, machine
        self.steps = steps_in(task, settings, machine)
        self.steps_per_epoch = steps_per_process(task.batches_per_epoch, machine)
        self.start = start
        self.student = make_student(start, task.build()).to(machine.device)
        self.distillation = None
        if teacher is not None and settings.distill:
            teacher = teacher.to(machine.device).eval()
            self.distillation = make_distillation(task, teacher, settings, seed)
        if not settings.kept:
            for name, parameter in self.student.named_parameters():
                parameter.requires_grad_(".cores." in f".{name}")
        self.rate = rate_control(self.student, start)
        self.optimizer = machine.prepare(
            torch.optim.AdamW(
                self._trained(), lr=settings.learning_rate, weight_decay=settings.weight_decay
            )
        )
        self.step, self.state, self.sees_store = 0, None, False
        self.before = self.metrics = self._measure(start)
        self.best, self.best_step, self.stale, self.judged = start, 0, 0, 0
        torch.manual_seed(seed + machine.rank)

    def run(self, watch: Callable[[StepReport], None] = lambda report: None) -> TrainingResult:
        """Train to the end and call `watch` after every step.

        Raises:
            TrainingError: the loss is not finite.
        """
        started, first = time.monotonic(), self.step
        if self._is_due():  # interrupted between the last step of an epoch and its judgement
            self._judge()
        while self.step < self.steps and self.stale < PATIENCE:
            epoch = self.step // self.steps_per_epoch
            for loss in self._rest_of_epoch(epoch):
                found = None
                if self._is_due():
                    found = self._judge()
                speed = (self.step - first) / (time.monotonic() - started)
                watch(StepReport(self.step, self.steps, epoch, loss, speed, found))
        seconds = time.monotonic() - started
        return TrainingResult(
            self.best, self.before, self.metrics, self.step, seconds, self.best_step
        )

    def _is_due(self) -> bool:
        """Whether an epoch (or the run) is over and its last model has not been measured."""
        over = self.step % self.steps_per_epoch == 0 or self.step == self.steps
        return over and self.judged < self.step

    def _rest_of_epoch(self, epoch: int) -> Iterator[float]:
        """Train on the rest of an epoch, and yield the loss of every step.

        Raises:
            RecipeError: the task gives fewer batches than it says.
        """
        done = self.step % self.steps_per_epoch
        if done == 0:
            self.state = None
        whole = self.task.train_batches(epoch, self.seed)
        mine = share(whole, self.task.batches_per_epoch, self.machine)
        for batch in islice(mine, done, None):
            if not self.sees_store and self.step >= FLOAT_PART * self.steps:
                apply_rounding(self.student, self.start)
                self.sees_store = True
            loss = self._one_step(batch)
            self.step, done = self.step + 1, done + 1
            yield loss
            if self.step == self.steps:
                return
        if done < self.steps_per_epoch:
            raise RecipeError(
                f"task {self.task.name}: batches_per_epoch makes {self.steps_per_epoch} steps, but "
                f"train_batches gave {done}. Make the two agree."
            )

    def _one_step(self, batch: Batch) -> float:
        self.student.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._schedule()
        self.optimizer.zero_grad(set_to_none=True)
        with parametrize.cached():
            with self.machine.autocast():
                loss, state = self._loss(batch)
                if self.rate is not None:
                    loss = loss + self.rate.penalty()
            self.machine.backward(loss, self._trained(), self.settings.clip)
        value = float(loss.detach())
        if not math.isfinite(value):
            cure = f"Use a learning rate below {self.settings.learning_rate:g}."
            if self.step == 0:
                cure = "Nothing was trained yet: check the data and its labels for NaN."
            raise TrainingError(
                f"finetune: the loss is {value} at step {self.step + 1} of {self.steps}. {cure}"
            )
        self.optimizer.step()
        if self.rate is not None and (self.step + 1) % STEER_EVERY == 0:
            self.rate.steer()
        self.state = state
        return value

    def _loss(self, batch: Batch) -> tuple[Tensor, State]:
        """The loss, and the states of student and teacher for the next batch."""
        mine, theirs = self.state if self.state is not None else (None, None)
        outputs, mine = self.task.outputs(self.student, batch, mine)
        # The loss in float32, whatever the precision of the products.
        outputs = unname_outputs({k: one.float() for k, one in name_outputs(outputs).items()})
        if self.distillation is None:
            return self.task.loss(outputs, batch), (mine, None)
        loss, theirs = self.distillation.loss(outputs, batch, theirs)
        return loss, (mine, theirs)

    def _judge(self) -> Metrics:
        """Measure the model as it would be stored, and keep it if it is the best so far."""
        candidate = snapshot(self.student, self.start)
        found = self._measure(candidate)
        self.judged = self.step
        counting = self.task.metrics[0]
        sign = 1 if counting.higher_is_better else -1
        if sign * found[counting.name] > sign * self.metrics[counting.name]:
            self.best, self.best_step = candidate, self.step
            self.metrics, self.stale = found, 0
        else:
            self.stale += self.sees_store
        return found

    def _measure(self, model: CompressedModel) -> Metrics:
        return self.machine.from_first(lambda: measure_metrics(self.task, model))

    def _schedule(self) -> float:
        """The learning rate as a fraction: linear warm-up, then a cosine down to `FLOOR`."""
        warm = max(1, round(self.settings.warmup * self.steps))
        if self.step < warm:
            return (self.step + 1) / warm
        done = (self.step - warm) / max(1, self.steps - warm)
        return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.student.parameters() if p.requires_grad]
