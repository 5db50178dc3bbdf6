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
        outputs: a name for each tensor that is returned, of the first ones; none means all.
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
        for name, tensor, axes in zip(self.inputs, self.tensors, self.axes, strict=False):
            for k, axis in axes.items():
                if k >= tensor.dim() or tensor.shape[k] < 2:
                    size = "no such axis" if k >= tensor.dim() else f"size {tensor.shape[k]}"
                    raise RecipeError(
                        f"export: axis {k} of {name} shall be free ({axis}), but has {size} in the "
                        "example. Give an example of at least 2 there: torch takes smaller sizes "
                        "for constants."
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

    @property
    def free(self) -> Sizes:
        """The free axes, with their sizes in the example."""
        pairs = zip(self.tensors, self.axes, strict=True)
        return {name: tensor.shape[k] for tensor, axes in pairs for k, name in axes.items()}

    def random_inputs(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Make inputs with free axes of these sizes, as alike to the example as they can be.

        Floats are standard normal. Masks, which have two values of which one is 0, and everything
        that is not a float repeat the example's entries in their order; the steps of symbols are
        mixed. Integers without a time axis that would fit the example's are lengths or positions:
        they stay within the new one.

        Args:
            sizes: those to change, by name.
            seed: for the floats.
        """
        generator = torch.Generator().manual_seed(seed)
        found = []
        for tensor, axes in zip(self.tensors, self.axes, strict=True):
            shape = [sizes.get(axes.get(k, ""), size) for k, size in enumerate(tensor.shape)]
            values = torch.unique(tensor)
            if tensor.is_floating_point() and not (len(values) == 2 and 0 in values):
                found.append(torch.randn(shape, generator=generator, dtype=tensor.dtype))
                continue
            for k, size in enumerate(shape):
                places = torch.arange(size) * tensor.shape[k] // max(size, 1)
                if len(values) > 2 and axes.get(k, BATCH) != BATCH:  # symbols, not a mask
                    places = torch.randint(tensor.shape[k], (size,), generator=generator)
                    places[:1] = 0  # padding, which may be in the example, never comes first
                tensor = tensor.index_select(k, places)
            if not (tensor.is_floating_point() or tensor.dtype == torch.bool):
                tensor = self._within_time(tensor, values, set(axes.values()), sizes)
            found.append(tensor)
        return tuple(found)

    def _within_time(self, tensor: Tensor, values: Tensor, axes: set[str], sizes: Sizes) -> Tensor:
        """Integers as lengths of, or positions on, the time axis that they fit best, if any.

        Args:
            tensor: the integers.
            values: those of the example.
            axes: the free axes that they have.
            sizes: the new sizes.
        """
        times = {name: size for name, size in self.free.items() if name != BATCH}
        if not values.numel() or values.min() < 0 or axes & times.keys():
            return tensor
        longest = int(values.max())
        fits = {name: size for name, size in times.items() if size >= longest}
        if not fits:
            return tensor
        name = min(fits, key=lambda name: fits[name])
        before, after = fits[name], sizes.get(name, fits[name])
        if 0 in values:  # positions; or numbers of something else, which get no larger
            return tensor.clamp(max=min(after - 1, longest))
        if longest < before:
            return tensor.clamp(max=after)
        tensor = -(-tensor * after // before)  # lengths, the longest as long as the axis
        return torch.where(tensor == tensor.max(), after, tensor).to(tensor.dtype)


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
        self._count = len(call.outputs) or None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The module's outputs that the call names, flattened."""
        result = self.module(*pytree.tree_unflatten(tensors, self._nesting))
        leaves = (leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))
        return tuple(leaves)[: self._count]
