"""What recurrent layers and cells share: a geometry and tensors enter, an `nn.Module` leaves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ttcompress.errors import ArtifactError
from ttcompress.modules.geometry import DirectionNames, direction_names, tensor_shapes
from ttcompress.modules.products import Product
from ttcompress.modules.running import Run, checked_run
from ttcompress.modules.steps import Direction, Mode
from ttcompress.modules.weights import Matrix, TrainWeight, hold, product
from ttcompress.trains.train import Train
from ttcompress.weights import RecurrentStack


class RecurrentHolder(nn.Module):
    """The tensors of a recurrent layer under torch's names, trains and dense ones together."""

    def __init__(
        self, stack: RecurrentStack, tensors: Mapping[str, Train | Tensor], mode: Mode, run: Run
    ) -> None:
        super().__init__()
        self.stack = stack
        self.mode = mode
        self.run: Run = checked_run(run)
        self.input_size = stack.input_size
        self.hidden_size = stack.hidden_size
        self.bias = stack.bias
        for name, value in _checked(stack, tensors).items():
            setattr(self, name, hold(value))

    @property
    def _names(self) -> tuple[DirectionNames, ...]:
        return direction_names(self.stack)

    def _matrix(self, name: str) -> Matrix:
        held: Matrix = getattr(self, name)
        return held

    def _direction(self, names: DirectionNames, reverse: bool = False) -> Direction:
        """One layer in one direction, ready to run without its dense weights."""
        hr: Product | None = None
        if names.weight_hr is not None:
            hr = product(self._matrix(names.weight_hr))
        return Direction(
            mode=self.mode,
            ih=product(self._matrix(names.weight_ih)),
            hh=product(self._matrix(names.weight_hh)),
            hr=hr,
            bias_ih=None if names.bias_ih is None else getattr(self, names.bias_ih),
            bias_hh=None if names.bias_hh is None else getattr(self, names.bias_hh),
            reverse=reverse,
        )

    @property
    def trains(self) -> dict[str, TrainWeight]:
        """The matrices held as trains."""
        return {name: m for name, m in self.named_children() if isinstance(m, TrainWeight)}

    def _trained(self) -> bool:
        """Whether this call must lead gradients back to cores."""
        return torch.is_grad_enabled() and any(
            core.requires_grad for weight in self.trains.values() for core in weight.cores
        )


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
