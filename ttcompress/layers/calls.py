"""Brings the arguments of a recurrent layer's call into one form, and its result into the caller's.

The rules and the exception classes are those of `torch.nn.LSTM`, because code written for that
layer catches them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ttcompress.layers.recurrence import State
from ttcompress.layers.tracing import is_traced

Input = Tensor | PackedSequence
Hidden = Tensor | tuple[Tensor, ...]
"""A state as torch's layers take and return it: (hidden, memory) of an LSTM, otherwise hidden."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer.

    `data` is (time, batch, input), or (values, input) when packed. Each member of `state` is
    (layers * directions, batch, size), its sequences in the order of `data`.
    """

    data: Tensor
    state: State
    packed: PackedSequence | None
    batched: bool
    batch_first: bool

    @classmethod
    def read(
        cls,
        input: Input,
        hx: Hidden | None,
        *,
        batch_first: bool,
        input_size: int,
        dtype: torch.dtype,
        state_sizes: tuple[int, ...],
        layers: int,
    ) -> Self:
        """Check the arguments of a layer's `forward` and bring them into one form.

        Args:
            input: as torch's layers take it.
            hx: the first state; zeros where it is None.
            batch_first: whether a padded batch is (batch, time, input).
            input_size: the layer's input size.
            dtype: the number type of its weights.
            state_sizes: the last side of each member of the state.
            layers: layers times directions.

        Raises:
            ValueError: the input has neither two nor three dimensions, or its type differs from
                the weights'.
            RuntimeError: its last side is not `input_size`, it has no time step, or a member of
                the state is not (layers, batch, size), or (layers, size) unbatched.
        """
        packed = input if isinstance(input, PackedSequence) else None
        data = input.data if isinstance(input, PackedSequence) else input
        batched = packed is not None or data.dim() == 3
        if packed is None:
            if data.dim() not in (2, 3):
                raise ValueError(f"input has {data.dim()} dimensions; give 2 (unbatched) or 3")
            if not batched:
                data = data.unsqueeze(1)
            elif batch_first:
                data = data.transpose(0, 1)
        if data.shape[-1] != input_size:
            raise RuntimeError(
                f"input.size(-1) is {data.shape[-1]}, but the layer's input_size is {input_size}"
            )
        call = cls(data, (), packed, batched, batch_first)
        if call.steps == 0:
            raise RuntimeError("input has 0 time steps; a recurrent layer needs at least 1")
        if data.dtype != dtype and not call.autocast:
            raise ValueError(
                f"the input is {data.dtype}, but the layer's weights are {dtype}; "
                "convert one of them with .to"
            )
        return cls(data, call._first_state(hx, state_sizes, layers), packed, batched, batch_first)

    def _first_state(self, hx: Hidden | None, sizes: tuple[int, ...], layers: int) -> State:
        if hx is None:
            return tuple(self.data.new_zeros(layers, self.batch, size) for size in sizes)
        state = tuple(hx) if len(sizes) > 1 else (hx,)
        for k, (member, size) in enumerate(zip(state, sizes, strict=True)):
            wanted = (layers, self.batch, size) if self.batched else (layers, size)
            if tuple(member.shape) != wanted:
                name = "hidden" if len(sizes) == 1 else f"hidden[{k}]"  # the wording is torch's
                raise RuntimeError(f"Expected {name} size {wanted}, got {tuple(member.shape)}")
        if not self.batched:
            return tuple(member.unsqueeze(1) for member in state)
        order = None if self.packed is None else self.packed.sorted_indices
        return state if order is None else tuple(m.index_select(1, order) for m in state)

    @property
    def sizes(self) -> list[int] | None:
        """How many sequences run at each step; None unless packed."""
        return None if self.packed is None else self.packed.batch_sizes.tolist()

    @property
    def batch(self) -> int:
        """How many sequences there are."""
        if self.packed is None:
            return self.data.shape[1]
        first: Any = self.packed.batch_sizes[0]
        return first if is_traced() else int(first)  # a number would be fixed in the trace

    @property
    def steps(self) -> int:
        """Length of the longest sequence."""
        return self.data.shape[0] if self.packed is None else len(self.packed.batch_sizes)

    @property
    def autocast(self) -> bool:
        """Whether torch chooses the number types of products."""
        device = self.data.device.type
        # The first answer is for any device; to the second, a meta device is an error.
        return torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(device)

    def result(self, data: Tensor, state: State) -> tuple[Input, Hidden]:
        """Outputs and last state in the forms of the given input and state."""
        output: Input = data
        if self.packed is not None:
            output = self.packed._replace(data=data)
            order = self.packed.unsorted_indices
            if order is not None:
                state = tuple(member.index_select(1, order) for member in state)
        elif not self.batched:
            output, state = data.squeeze(1), tuple(member.squeeze(1) for member in state)
        elif self.batch_first:
            output = data.transpose(0, 1)
        return output, state if len(state) > 1 else state[0]
