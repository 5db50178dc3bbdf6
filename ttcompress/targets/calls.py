"""Describes how an exported module is called: a `Call` has an example, free axes and names.

Files have flat lists of inputs and outputs, but a module's arguments may be nested; `FlatModule`
translates between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ttcompress.errors import RecipeError

BATCH, TIME = "batch", "time"
Axes = Mapping[int, str]
Sizes = Mapping[str, int]

EXAMPLE_SIZES: Sizes = {BATCH: 3, TIME: 5}
"""Neither 0 nor 1, which `torch.export` treats as constants."""


@dataclass(frozen=True, eq=False)
class Call:
    """How a module is called, for its export.

    Attributes:
        example: positional arguments, each a tensor or a nest of tensors.
        axes: for each of these tensors the names of its free axes; other axes are constant.
        inputs: a name for each of these tensors.
        outputs: a name for each tensor that is returned.
    """

    example: tuple[Any, ...]
    axes: tuple[Axes, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        others = sorted({type(v).__name__ for v in self.tensors if not isinstance(v, Tensor)})
        if others:
            raise RecipeError(
                f"export: the example holds {', '.join(others)}; only tensors can be inputs. "
                "Give tensors, and omit arguments that have a default."
            )
        if not len(self.tensors) == len(self.axes) == len(self.inputs):
            raise RecipeError(
                f"export: the example holds {len(self.tensors)} tensors, but there are "
                f"{len(self.inputs)} names and axes for {len(self.axes)}. Give one for each."
            )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the example, flattened."""
        return tuple(pytree.tree_leaves(self.example))

    def random_inputs(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Make inputs with free axes of these sizes: standard normal, or the example's integers."""
        generator = torch.Generator().manual_seed(seed)
        found = []
        for tensor, axes in zip(self.tensors, self.axes, strict=True):
            shape = [sizes.get(axes.get(k, ""), size) for k, size in enumerate(tensor.shape)]
            if tensor.is_floating_point():
                found.append(torch.randn(shape, generator=generator, dtype=tensor.dtype))
            else:
                picked = torch.randint(tensor.numel(), shape, generator=generator)
                found.append(tensor.flatten()[picked])
        return tuple(found)


class FlatModule(nn.Module):
    """Calls a module with a flat list of tensors, and returns a flat tuple of tensors.

    Args:
        module: the module to call.
        call: its example shows how arguments are nested.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self._nesting = pytree.tree_structure(call.example)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The module's output, flattened."""
        result = self.module(*pytree.tree_unflatten(tensors, self._nesting))
        return tuple(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))
