"""How an exported module is called: its example, its free axes, the names of what goes in and out.

Files have flat lists of inputs and outputs, but a module's arguments may be nests of tensors;
`Flat` stands between them.
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
"""No 0 and no 1, which `torch.export` takes for constants."""


@dataclass(frozen=True, eq=False)
class Call:
    """The call of a module that is exported.

    Attributes:
        example: positional arguments, tensors or nests of them.
        axes: for each tensor among them the names of its free axes; other axes are constant.
        inputs: the name of each of these tensors.
        outputs: the name of each tensor that comes back.
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
        """The example, flat."""
        return tuple(pytree.tree_leaves(self.example))

    def random_inputs(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Inputs with free axes of these sizes: standard normal, or integers of the example."""
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


class Flat(nn.Module):
    """A module that takes a call's tensors one by one and gives a tuple of tensors.

    Args:
        module: what runs.
        call: whose nesting it gets its arguments in.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self._nesting = pytree.tree_structure(call.example)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The module's output, flat."""
        result = self.module(*pytree.tree_unflatten(tensors, self._nesting))
        return tuple(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))
