"""Names and shapes of the tensors of a recurrent layer, derived from its `RecurrentStack`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ttcompress.model.weights import GATES, RecurrentStack


@dataclass(frozen=True)
class DirectionNames:
    """Names of one layer's tensors in one direction, in torch's order; None for those it lacks."""

    weight_ih: str
    weight_hh: str
    bias_ih: str | None
    bias_hh: str | None
    weight_hr: str | None

    @cached_property
    def present(self) -> tuple[str, ...]:
        """Those it has."""
        names = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.weight_hr)
        return tuple(name for name in names if name is not None)


def direction_names(stack: RecurrentStack) -> tuple[DirectionNames, ...]:
    """Name the tensors of each layer: its forward direction, then its reverse one if any."""
    suffixes = [""] if stack.cell else _suffixes(stack)
    return tuple(
        DirectionNames(
            weight_ih=f"weight_ih{suffix}",
            weight_hh=f"weight_hh{suffix}",
            bias_ih=f"bias_ih{suffix}" if stack.bias else None,
            bias_hh=f"bias_hh{suffix}" if stack.bias else None,
            weight_hr=f"weight_hr{suffix}" if stack.proj_size else None,
        )
        for suffix in suffixes
    )


def _suffixes(stack: RecurrentStack) -> list[str]:
    directions = ("", "_reverse") if stack.bidirectional else ("",)
    return [f"_l{layer}{end}" for layer in range(stack.num_layers) for end in directions]


def tensor_shapes(stack: RecurrentStack) -> dict[str, tuple[int, ...]]:
    """Every tensor of the layer with its shape, in torch's order.

    >>> tensor_shapes(RecurrentStack("", "lstm", input_size=3, hidden_size=5, bias=False))
    {'weight_ih_l0': (20, 3), 'weight_hh_l0': (20, 5)}
    """
    rows = GATES[stack.kind] * stack.hidden_size
    output = stack.proj_size or stack.hidden_size
    directions = 2 if stack.bidirectional else 1
    shapes: dict[str, tuple[int, ...]] = {}
    for position, names in enumerate(direction_names(stack)):
        columns = stack.input_size if position < directions else output * directions
        sizes = ((rows, columns), (rows, output), (rows,), (rows,), (output, stack.hidden_size))
        fields = (names.weight_ih, names.weight_hh, names.bias_ih, names.bias_hh, names.weight_hr)
        shapes |= {name: size for name, size in zip(fields, sizes, strict=True) if name is not None}
    return shapes


def stored_name(stack: RecurrentStack, name: str) -> str:
    """Translate a stack's own name of a tensor into its name in the model's state dict."""
    raw = stack.raw and name.startswith("weight_hh")
    return f"{stack.prefix}{name}{'_raw' if raw else ''}"


def stored_names(stack: RecurrentStack) -> dict[str, str]:
    """Map each name in torch's layer to the name in the model's state dict.

    A cell counts as a single layer; under weight-drop the true weight ends in `_raw`.

    >>> stored_names(RecurrentStack("cell.", "rnn", 3, 5, bias=False, cell=True))
    {'weight_ih_l0': 'cell.weight_ih', 'weight_hh_l0': 'cell.weight_hh'}
    """
    return {
        f"{name}_l0" if stack.cell else name: stored_name(stack, name)
        for name in tensor_shapes(stack)
    }
