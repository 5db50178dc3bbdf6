"""The interface of a task: what measures how good a model is and knows how to train it.

Evaluation, fine-tuning and distillation use only these members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from torch import Tensor, nn

from ttcompress.errors import RecipeError

Batch = Any
"""Of the task's choice: what its `train_batches` yields and its `outputs` and `loss` take."""

State = Any
"""Of the task's choice: what is carried from batch to batch; None at the start or if stateless."""

Outputs = Any
"""What a task takes from a model: a tensor (positions, columns) without padding, or several by
name, each of its own positions: a mapping.
"""

OutputKind = Literal["classes", "binary", "values"]
"""What the columns of a task's outputs are, which decides how they are distilled:

classes  logits of classes that exclude each other; their softmax is meant
binary   logits of yes or no, one question in each column; their sigmoid is meant
values   the numbers themselves: a forecast, a position, a spectrum
"""

OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

OwnDistillation = Callable[[Outputs, Outputs, Batch], Tensor]
"""From outputs and the original's outputs, both as `Task.outputs` gives them, and the batch: how
far apart they are, one number with a gradient, in the unit of the task's loss.
"""


@dataclass(frozen=True)
class Metric:
    """A figure of merit and its direction, so that a limit on perplexity is not read backwards."""

    name: str
    higher_is_better: bool


class Task(Protocol):
    """Measures how good a model is, and knows how to train it.

    Your own class needs no base class. It is built as `Name(structure, **options)`, with a
    `ttcompress.layers.structure.Structure` and the options of the recipe's `task:` block.

    Two more members are read where a task has them, so that a compressed model can be trained to
    answer as the original does:

        predicts = "values"        # or "classes", or "binary": an `OutputKind`
        predicts = {"next": "values", "regime": "classes"}    # `outputs` is a mapping then
        def distillation(self, outputs, original, batch): ...    # instead of the program's own

    A task that runs a part of the model only says which: `covers` has the names of its tensors.
    `labelled = False` says that it has no loss, so that everything is learned from the original.

    Without `predicts` or `distillation`, outputs count as classes if the task's loss shows that
    they are, and are refused otherwise.

    Attributes:
        name: what reports call it.
        metrics: what `evaluate` returns, the counting one first.
    """

    name: str
    metrics: tuple[Metric, ...]

    @property
    def batches_per_epoch(self) -> int:
        """How many batches `train_batches` yields."""
        ...

    def build(self) -> nn.Module:
        """Build the dense model with any values; its state dict has the model's own names."""
        ...

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """The training data of one epoch, on the CPU; the same for the same epoch and seed.

        With `finetune: {distill: 1}` they may lack labels: `loss` is not called then.
        """
        ...

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Outputs, State]:
        """Run the model, on its own device.

        Args:
            model: what `build` made, perhaps with compressed layers in it.
            batch: one of `train_batches`.
            state: what the previous batch returned, detached; None at the start of an epoch.

        Returns:
            `Outputs`, (positions, columns) without padding, and the state for the next batch.
        """
        ...

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """A scalar: the mean loss over positions of what `outputs` gave for `batch`."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric on held-out data; deterministic, and leaves the model unchanged."""
        ...


def detach(state: State) -> State:
    """The same state without its history of gradients: a tensor, or tuples of them."""
    return state.detach() if isinstance(state, Tensor) else tuple(map(detach, state))


TaskFactory = Callable[..., Task]
"""A class or function that makes a task from a structure and options."""


SINGLE = ""
"""The name of outputs that are one tensor, where outputs are taken by name."""


def kinds_of(task: Task) -> Mapping[str, OutputKind] | None:
    """What a task says that its outputs are, by name; None if it says nothing.

    Raises:
        RecipeError: it says something else than an `OutputKind` of each.
    """
    found = getattr(task, "predicts", None)
    if found is None:
        return None
    kinds: Mapping[str, OutputKind] = found if isinstance(found, Mapping) else {SINGLE: found}
    for kind in kinds.values() if kinds else [found]:
        if kind not in OUTPUT_KINDS:
            raise RecipeError(
                f"task {task.name}: predicts: expected one of {', '.join(OUTPUT_KINDS)}, got "
                f"{kind!r}."
            )
    return kinds


def name_outputs(outputs: Outputs) -> dict[str, Tensor]:
    """Outputs by name."""
    return {SINGLE: outputs} if isinstance(outputs, Tensor) else dict(outputs)


def unname_outputs(named: Mapping[str, Tensor]) -> Outputs:
    """Outputs as the task gave them: undoes `name_outputs`."""
    return named.get(SINGLE, named)
