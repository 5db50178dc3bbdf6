"""What recurrent layers and cells share: a geometry and tensors enter, an `nn.Module` leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ttcompress.errors import ArtifactError
from ttcompress.layers.matrices import TrainWeight, matrix_of, put_matrix
from ttcompress.layers.products import Product
from ttcompress.layers.speed import LayerWork, Run, Way, checked_run, faster_way
from ttcompress.layers.steps import Direction, Mode
from ttcompress.model.geometry import DirectionNames, direction_names, tensor_shapes
from ttcompress.model.weights import Kind, RecurrentStack
from ttcompress.trains.train import Train


class RecurrentHolder(nn.Module):
    """The tensors of a recurrent layer under torch's names, trains and dense ones together."""

    kind: ClassVar[Kind]
    trains_rebuilt: ClassVar[bool]  # "auto" rebuilds the dense weights at every training step

    def __init__(
        self,
        stack: RecurrentStack,
        tensors: Mapping[str, Train | Tensor],
        *,
        nonlinearity: str = "tanh",
        run: Run = "auto",
    ) -> None:
        super().__init__()
        if stack.kind != self.kind:
            raise ValueError(f"the geometry is of kind {stack.kind}, but this is a {self.kind}")
        self.stack = stack
        self.mode: Mode = _mode(stack.kind, nonlinearity)
        self.run: Run = checked_run(run)
        self.input_size = stack.input_size
        self.hidden_size = stack.hidden_size
        self.bias = stack.bias
        self._names = direction_names(stack)
        self._ways: dict[tuple[int, int, bool], Way] = {}
        for name, value in _checked(stack, tensors).items():
            put_matrix(self, name, value)

    @property
    def nonlinearity(self) -> str:
        """ "relu" or "tanh", as `torch.nn.RNN` says it."""
        return "relu" if self.mode == "RNN_RELU" else "tanh"

    @property
    def trains(self) -> dict[str, TrainWeight]:
        """The matrices held as trains."""
        return {name: m for name, m in self.named_children() if isinstance(m, TrainWeight)}

    def _direction(self, names: DirectionNames, reverse: bool = False) -> Direction:
        """One layer in one direction, ready to run without its dense weights."""
        hr: Product | None = None
        if names.weight_hr is not None:
            hr = matrix_of(self, names.weight_hr).product()
        return Direction(
            mode=self.mode,
            ih=matrix_of(self, names.weight_ih).product(),
            hh=matrix_of(self, names.weight_hh).product(),
            hr=hr,
            bias_ih=None if names.bias_ih is None else getattr(self, names.bias_ih),
            bias_hh=None if names.bias_hh is None else getattr(self, names.bias_hh),
            reverse=reverse,
        )

    def _way(self, batch: int, steps: int) -> Way:
        """How a call runs: as `run` says, or by cost."""
        if self.run != "auto":
            return self.run
        if not self.trains:
            return "rebuilt"
        tracked = self._trained()
        if tracked and self.training and self.trains_rebuilt:
            return "rebuilt"
        key = (batch, steps, tracked)
        if key not in self._ways:  # if weights were replaced since, it costs time and no more
            device = getattr(self, self._names[0].weight_ih).device.type
            self._ways[key] = faster_way(self._work, batch, steps, device, tracked=tracked)
        return self._ways[key]

    def _trained(self) -> bool:
        """Whether gradients must reach cores."""
        return torch.is_grad_enabled() and any(weight.trained for weight in self.trains.values())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._ways.clear()  # it may move to another device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def _work(self) -> tuple[LayerWork, ...]:
        """What each layer and direction has to multiply, both ways."""
        return tuple(
            LayerWork(
                self.mode,
                self.hidden_size,
                ih=matrix_of(self, names.weight_ih).work,
                hh=matrix_of(self, names.weight_hh).work,
                hr=None if names.weight_hr is None else matrix_of(self, names.weight_hr).work,
            )
            for names in self._names
        )


def _mode(kind: Kind, nonlinearity: str) -> Mode:
    """The equations, in torch's words.

    Raises:
        ValueError: an RNN's nonlinearity is neither "tanh" nor "relu".
    """
    modes: dict[tuple[Kind, str], Mode] = {("rnn", "tanh"): "RNN_TANH", ("rnn", "relu"): "RNN_RELU"}
    if kind == "lstm":
        return "LSTM"
    if kind == "gru":
        return "GRU"
    if (kind, nonlinearity) not in modes:
        raise ValueError(f"nonlinearity is {nonlinearity!r}; it must be 'tanh' or 'relu'")
    return modes[kind, nonlinearity]


def _checked(
    stack: RecurrentStack, tensors: Mapping[str, Train | Tensor]
) -> dict[str, Train | Tensor]:
    """The tensors in torch's order.

    Raises:
        ArtifactError: one is missing, unknown or of another shape; the message holds all of these.
    """
    wanted = tensor_shapes(stack)
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} is no tensor of this layer" for name in tensors if name not in wanted]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, but the layer needs {shape}"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise ArtifactError(
            "; ".join(problems) + ". Use the file with the model that it was made from."
        )
    return {name: tensors[name] for name in wanted}
