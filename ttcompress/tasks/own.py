"""Runs a user's own task, and turns what goes wrong in it into one message with file and line.

`OwnTask` stands in front of the task wherever the program uses it. It also checks what the task
returns, so that a slip is found where it was made and not by the arithmetic behind it.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ttcompress.errors import RecipeError, TaskError, TTCompressError
from ttcompress.system.memory import within_memory
from ttcompress.system.text import clip, shape_text
from ttcompress.tasks.protocol import (
    Batch,
    Metric,
    Outputs,
    OwnDistillation,
    State,
    Task,
    name_outputs,
)

MOST_CHARACTERS = 300
"""Of an exception's text: torch's may list every tensor of a model."""

_PACKAGE = Path(__file__).parents[1]

BROADCAST = "Using a target size"
"""Begins torch's warning that outputs and targets have different shapes and are broadcast: a loss
of (positions, 1) against (positions,) compares every position with every other.
"""


class OwnTask:
    """A user's task with checks around it; see `Task` for the members.

    Args:
        task: the user's.
        place: what messages call it: `mytask.py:NextCharacter`.

    Raises:
        TaskError: of every member: the task raised an exception.
        RecipeError: of every member: the task returned something else than `Task` says.
    """

    def __init__(self, task: Task, place: str) -> None:
        self._task, self._place = task, place
        self._broadcast_checked = set[
            tuple[torch.Size, ...]
        ]()  # shapes of outputs without positions
        with self._blame("metrics"):
            self.name: str = task.name
            self.metrics: tuple[Metric, ...] = tuple(task.metrics)
        if not self.metrics or not all(isinstance(metric, Metric) for metric in self.metrics):
            raise RecipeError(
                f"task {place}: metrics: expected at least one ttcompress.Metric, got "
                f'{task.metrics!r}. Write `metrics = (Metric("loss", higher_is_better=False),)`.'
            )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of copies that are being made, which have no task yet
            raise AttributeError(name)
        return getattr(self._task, name)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches `train_batches` yields."""
        with self._blame("batches_per_epoch"):
            found = self._task.batches_per_epoch
        if not isinstance(found, int):
            raise self._slip("batches_per_epoch", "a whole number", found, "as a property")
        return found

    def build(self) -> nn.Module:
        """The dense model, which must be a module of torch."""
        with self._blame("build"):
            model = self._task.build()
        if not isinstance(model, nn.Module):
            raise self._slip("build", "a torch.nn.Module", model, "the dense model itself")
        return model

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """The training data of one epoch."""
        with self._blame("train_batches"):
            yield from self._task.train_batches(epoch, seed)

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Outputs, State]:
        """A pair, checked since a tensor alone could be unpacked as one; the state is detached."""
        with self._blame("outputs"):
            found = self._task.outputs(model, batch, state)
        if not (isinstance(found, tuple) and len(found) == 2 and _are_outputs(found[0])):
            raise self._slip("outputs", "a pair (tensor, state)", found, "`outputs, None`")
        return found[0], pytree.tree_map_only(Tensor, Tensor.detach, found[1])

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """The loss, which must be one number."""
        columns = tuple(one.shape[1:] for one in name_outputs(outputs).values())
        if columns in self._broadcast_checked:
            return self._one_number("loss", self._task.loss, outputs, batch)
        self._broadcast_checked.add(columns)
        with _broadcasting_refused():
            return self._one_number("loss", self._task.loss, outputs, batch)

    @property
    def distillation(self) -> OwnDistillation | None:
        """The task's own distillation, if it has one."""
        own: OwnDistillation | None = getattr(self._task, "distillation", None)
        return None if own is None else partial(self._one_number, "distillation", own)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric, each of which must be a number."""
        with self._blame("evaluate"), _broadcasting_refused():
            found = self._task.evaluate(model)
        if not isinstance(found, Mapping):
            raise self._slip("evaluate", "metrics by name", found, "a dictionary")
        for name, value in found.items():
            try:
                float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise self._slip(f"evaluate: {name}", "a number", value, "a float") from error
        return {name: float(value) for name, value in found.items()}

    def _one_number(self, member: str, function: Callable[..., Tensor], *given: Any) -> Tensor:
        with self._blame(member):
            found = function(*given)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise self._slip(member, "a tensor with one number", found, "a mean over positions")
        return found.reshape(())

    def _blame(self, member: str) -> AbstractContextManager[None]:
        return blaming(f"task {self._place}: {member}")

    def _slip(self, member: str, expected: str, found: object, cure: str) -> RecipeError:
        return RecipeError(
            f"task {self._place}: {member}: expected {expected}, got {_kind(found)}. Return {cure}."
        )


def _are_outputs(found: object) -> bool:
    """Whether it is a tensor, or tensors by name."""
    if isinstance(found, Mapping) and found:
        return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())
    return isinstance(found, Tensor)


def _kind(found: object) -> str:
    """What a value is, for a message: `(dict, NoneType)`, `Tensor of 2 x 4`."""
    if isinstance(found, tuple):
        return f"({', '.join(map(_kind, found))})"
    name = type(found).__name__
    return f"{name} of {shape_text(found.shape)}" if isinstance(found, Tensor) else name


@contextmanager
def _broadcasting_refused() -> Iterator[None]:
    """Make torch's warning an exception. Not in every step: Python then forgets which warnings it
    has shown, and shows all of them again.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", BROADCAST)
        yield


@contextmanager
def blaming(place: str, cure: str = "Correct the task.") -> Iterator[None]:
    """Turn an exception of the user's code in the block into one message.

    Raises:
        TaskError: names the user's file and line, nearest to where it was raised.
        OutOfMemoryError: the block needed more memory than there is.
    """
    try:
        with within_memory(place):
            yield
    except TTCompressError:
        raise
    except Exception as error:
        text = clip(" ".join(str(error).split()), MOST_CHARACTERS).rstrip(".")
        fact = f"{type(error).__name__}: {text}" if text else type(error).__name__
        where = "".join(f"{line}: " for line in _place_of(error))
        raise TaskError(f"{place}: {where}{fact}. {cure}") from error


def _place_of(error: Exception) -> list[str]:
    """The last line of the user's that an exception passed, `model.py:31`, if there is one."""
    if isinstance(error, SyntaxError) and error.filename:
        return [f"{_shortest(error.filename)}:{error.lineno}"]
    frames = traceback.extract_tb(error.__traceback__)
    passed = [frame for frame in frames if not _is_of_a_library(frame.filename)]
    own = [frame for frame in passed if not frame.filename.startswith(_installed())]
    # An installed task may call other packages: the first line is the task's.
    chosen = own[-1:] or passed[:1]
    return [f"{_shortest(frame.filename)}:{frame.lineno}" for frame in chosen]


def _is_of_a_library(path: str) -> bool:
    """Whether a file is Python's, torch's or this package's."""
    if path.startswith(("<", _inside(_PACKAGE), _inside(Path(torch.__file__).parent))):
        return True
    standard = sysconfig.get_paths()["stdlib"]  # the folder of installed packages may lie in it
    return path.startswith(_inside(standard)) and not path.startswith(_installed())


def _inside(folder: str | Path) -> str:
    """How the paths of what is in a folder begin."""
    return f"{folder}{os.sep}"


@cache
def _installed() -> tuple[str, ...]:
    """The folders of installed packages."""
    paths = sysconfig.get_paths()
    return (_inside(paths["purelib"]), _inside(paths["platlib"]))


def _shortest(path: str) -> str:
    """A path relative to the working directory, if it is below that."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
