"""What a recurrent layer is called with: torch's many forms enter, one leaves.

Every rule and every class of exception is `torch.nn.LSTM`'s, because code written for that layer
catches these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ttcompress.layers.steps import State


@dataclass(frozen=True, eq=False)
class LayerCall:
    """A call in one form.

    `data` is (time, batch, input), or (values, input) when packed. A packed call has `sizes`, the
    batch at each step, and the indices that sorted its sequences, if they were not sorted.
    """

    data: Tensor
    packed: PackedSequence | None
    batched: bool
    batch_first: bool

    @property
    def sizes(self) -> list[int] | None:
        """Sequences running at each step, None unless packed."""
        return None if self.packed is None else self.packed.batch_sizes.tolist()

    @property
    def batch(self) -> int:
        """Sequences in all."""
        return self.data.shape[1] if self.packed is None else int(self.packed.batch_sizes[0])

    @property
    def steps(self) -> int:
        """Length of the longest sequence."""
        return self.data.shape[0] if self.packed is None else len(self.packed.batch_sizes)

    def state_in(self, state: State) -> State:
        """The caller's state, batched, its sequences in the order of `data`."""
        if not self.batched:
            return tuple(member.unsqueeze(1) for member in state)
        order = None if self.packed is None else self.packed.sorted_indices
        return state if order is None else tuple(m.index_select(1, order) for m in state)

    def state_out(self, state: State) -> State:
        """The inverse of `state_in`."""
        if not self.batched:
            return tuple(member.squeeze(1) for member in state)
        order = None if self.packed is None else self.packed.unsorted_indices
        return state if order is None else tuple(m.index_select(1, order) for m in state)

    def output(self, data: Tensor) -> Tensor | PackedSequence:
        """The layer's output in the form of its input."""
        if self.packed is not None:
            return self.packed._replace(data=data)
        if not self.batched:
            return data.squeeze(1)
        return data.transpose(0, 1) if self.batch_first else data


def read_call(input: Tensor | PackedSequence, batch_first: bool, input_size: int) -> LayerCall:
    """Bring the input into one form.

    Raises:
        ValueError: it has neither two nor three dimensions.
        RuntimeError: its last side is not `input_size`, or no time step is in it.
    """
    if isinstance(input, PackedSequence):
        call = LayerCall(input.data, input, True, batch_first)
    elif input.dim() == 3:
        call = LayerCall(input.transpose(0, 1) if batch_first else input, None, True, batch_first)
    elif input.dim() == 2:
        call = LayerCall(input.unsqueeze(1), None, False, batch_first)
    else:
        raise ValueError(f"input has {input.dim()} dimensions; give 2 (unbatched) or 3")
    if call.data.shape[-1] != input_size:
        raise RuntimeError(
            f"input.size(-1) is {call.data.shape[-1]}, but the layer's input_size is {input_size}"
        )
    if call.steps == 0:
        raise RuntimeError("input has 0 time steps; a recurrent layer needs at least 1")
    return call


def read_state(call: LayerCall, state: State, sizes: tuple[int, ...], layers: int) -> State:
    """Check and order the caller's state; `sizes` are its members' last sides.

    Raises:
        RuntimeError: a member's shape is not (layers, batch, size), or (layers, size) unbatched.
    """
    for member, size in zip(state, sizes, strict=True):
        wanted = (layers, call.batch, size) if call.batched else (layers, size)
        if tuple(member.shape) != wanted:
            raise RuntimeError(
                f"the initial state is {tuple(member.shape)}, but the layer needs {wanted}"
            )
    return call.state_in(state)


def zero_state(call: LayerCall, sizes: tuple[int, ...], layers: int) -> State:
    """The state of a caller who gives none."""
    return tuple(
        torch.zeros(layers, call.batch, size, dtype=call.data.dtype, device=call.data.device)
        for size in sizes
    )
