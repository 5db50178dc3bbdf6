"""Reads what a part computes, as matrices, layers and a head: `describe` is the entry.

Matrices are numpy arrays in float64, (rows, columns). An MPS gives its two factors, everything
else the whole matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttcompress.errors import RecipeError
from ttcompress.layers.matrices import TrainWeight
from ttcompress.layers.recurrent_model import Chain, Pooling, RecurrentModel
from ttcompress.layers.stacks import Layer, Nonlinearity, layers_of, nonlinearity_of
from ttcompress.model.geometry import direction_names, stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.planning.flash import factors_pay
from ttcompress.targets.target import Part
from ttcompress.trains.train import Train

Array = NDArray[np.float64]
Cell = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
Values = Callable[[str], Train | Tensor]


@dataclass(frozen=True, eq=False)
class Map:
    """A matrix, up @ down, or up alone; `name` is that of the weight."""

    name: str
    up: Array
    down: Array | None = None

    @property
    def columns(self) -> int:
        """Length of the vectors it takes."""
        return int((self.up if self.down is None else self.down).shape[1])

    def after(self, matrix: Array) -> Map:
        """This map of `matrix` times a vector."""
        if self.down is None:
            return replace(self, up=self.up @ matrix)
        return replace(self, down=self.down @ matrix)


@dataclass(frozen=True, eq=False)
class Direction:
    """One layer in one direction.

    `input_bias` and `hidden_bias` are of the rows of their maps; all that can be added to the
    former is. `outputs` values go to the next layer: those of the projection, if there is one.
    """

    cell: Cell
    hidden: int
    outputs: int
    reverse: bool
    input: Map
    recurrent: Map
    projection: Map | None
    input_bias: Array | None
    hidden_bias: Array | None

    @property
    def gates(self) -> int:
        """Blocks of rows in its maps."""
        return {"lstm": 4, "gru": 3}.get(self.cell, 1)


@dataclass(frozen=True, eq=False)
class Description:
    """What is computed at each step.

    Attributes:
        symbols: how many there are, if inputs are symbols; None for values.
        inputs: values in each step that the first layer takes.
        table: a row for each symbol; None for values and one-hot inputs.
        tied: whether the table is the head's matrix, or its `up`.
        stacks: the directions of each stack, from its first layer to its last.
        head: the linear layer; None if outputs are those of the last layer.
        head_bias: of the head.
        pooling: how a sequence becomes one output; None for an output at each step.
    """

    symbols: int | None
    inputs: int
    table: Map | None
    tied: bool
    stacks: tuple[tuple[Direction, ...], ...]
    head: Map | None
    head_bias: Array | None
    pooling: Pooling | None

    @property
    def directions(self) -> tuple[Direction, ...]:
        """All of them in the order they run."""
        return tuple(one for stack in self.stacks for one in stack)

    @property
    def features(self) -> int:
        """Values that the last layer gives, in all its directions."""
        last = self.stacks[-1][-1]
        return last.outputs * (2 if last.reverse else 1)

    @property
    def outputs(self) -> int:
        """Values that come out."""
        return self.features if self.head is None else int(self.head.up.shape[0])

    @property
    def bidirectional(self) -> bool:
        """Whether any direction runs backwards."""
        return any(one.reverse for one in self.directions)

    @property
    def memory(self) -> int:
        """Values of a state as torch has it."""
        lstm = sum(one.hidden for one in self.directions if one.cell == "lstm")
        return lstm + sum(one.outputs for one in self.directions)


def describe(part: Part) -> Description:
    """Read a part: a stack, or a whole model whose structure is known.

    Raises:
        RecipeError: the module is a user's, whose code cannot be read.
    """

    def values(name: str) -> Train | Tensor:
        owner, _, leaf = name.rpartition(".")
        held = getattr(part.module.get_submodule(owner), leaf)
        return held.as_train() if isinstance(held, TrainWeight) else held

    if part.stack is not None:
        names = {name: own for own, name in stored_names(part.stack).items()}
        stack = _directions(
            part.stack, lambda name: values(names[name]), nonlinearity_of(part.module)
        )
        return _description(None, part.stack.input_size, (stack,))
    if not isinstance(module := part.module, RecurrentModel):
        raise RecipeError(
            "c: only a model of the common structure can be written in C, but this module has its "
            "own code. Export its recurrent layers: omit the task or the module."
        )
    chain = module.chain
    stacks = tuple(
        _directions(
            stack, values, nonlinearity_of(module.get_submodule(stack.prefix.removesuffix(".")))
        )
        for stack in chain.stacks
    )
    head = _map(f"{chain.linear}.weight", values)
    bias = _array(values(f"{chain.linear}.bias")) if chain.bias else None
    takes_values = part.call.tensors[0].is_floating_point()
    found = _description(
        None if takes_values else chain.symbols, chain.stacks[0].input_size, stacks
    )
    found = replace(found, head=head, head_bias=bias, pooling=module.pooling)
    return found if takes_values else _with_table(found, chain, values)


def _description(
    symbols: int | None, inputs: int, stacks: tuple[tuple[Direction, ...], ...]
) -> Description:
    return Description(symbols, inputs, None, False, stacks, None, None, None)


def _with_table(found: Description, chain: Chain, values: Values) -> Description:
    """Look symbols up, in a table of what the first layer multiplies by its `up`, if it can.

    Embedding and `down` are then one table, which is no larger; one-hot inputs are one of `down`.
    """
    if chain.embedding is None:
        table = Map("the table of symbols", np.eye(chain.symbols))
    else:
        embedding = _map(f"{chain.embedding}.weight", values, pays=False)
        table = replace(embedding, down=None)
        if (right := embedding.down) is not None:  # of the rows of `up`
            found = _with_inputs(found, lambda given: given.after(right.T))
    first = found.stacks[0][0]
    alone = not any(one.reverse for one in found.stacks[0])
    down = first.input.down
    if alone and down is not None and not chain.tied and len(down) <= down.shape[1]:
        table = replace(table, up=table.up @ down.T)
        found = _with_inputs(found, lambda given: replace(given, down=None))
    elif chain.embedding is None:
        return found
    return replace(found, table=table, inputs=table.columns, tied=chain.tied)


def _with_inputs(found: Description, change: Callable[[Map], Map]) -> Description:
    """The same with other input maps of the first layer."""
    first, *rest = found.stacks
    count = 2 if any(one.reverse for one in first[:2]) else 1
    changed = tuple(replace(one, input=change(one.input)) for one in first[:count])
    return replace(found, stacks=((*changed, *first[count:]), *rest))


def _directions(
    stack: RecurrentStack, values: Values, nonlinearity: Nonlinearity
) -> tuple[Direction, ...]:
    return tuple(
        direction
        for layer in layers_of(stack)
        for direction in _of_layer(layer, values, nonlinearity)
    )


def _of_layer(layer: Layer, values: Values, nonlinearity: Nonlinearity) -> Iterator[Direction]:
    stack = layer.stack
    cells: dict[str, Cell] = {"lstm": "lstm", "gru": "gru"}
    cell = cells.get(stack.kind) or ("rnn_relu" if nonlinearity == "relu" else "rnn_tanh")
    hidden = stack.hidden_size
    full = dict(zip(_own_names(stack), stored_names(stack).values(), strict=True))
    for k, names in enumerate(layer.directions):
        ours = None if names.bias_ih is None else _array(values(full[names.bias_ih]))
        theirs = None if names.bias_hh is None else _array(values(full[names.bias_hh]))
        if ours is not None and theirs is not None:
            early = np.ones(len(theirs), bool)
            if stack.kind == "gru":  # the reset gate multiplies the hidden share, bias included
                early[2 * hidden :] = False
            ours = ours + np.where(early, theirs, 0.0)
            theirs = None if early.all() else np.where(early, 0.0, theirs)
        yield Direction(
            cell=cell,
            hidden=hidden,
            outputs=stack.proj_size or hidden,
            reverse=k > 0,
            input=_map(full[names.weight_ih], values),
            recurrent=_map(full[names.weight_hh], values),
            projection=None if names.weight_hr is None else _map(full[names.weight_hr], values),
            input_bias=ours,
            hidden_bias=theirs,
        )


def _own_names(stack: RecurrentStack) -> list[str]:
    return [name for names in direction_names(stack) for name in names.present]


def _map(name: str, values: Values, *, pays: bool = True) -> Map:
    """The factors of an MPS, unless the whole matrix costs less; otherwise the matrix."""
    value = values(name)
    if not isinstance(value, Train):
        return Map(name, _array(value))
    train = value.double()
    if factors := train.factors():
        left, right = map(_array, factors)
        if not pays or factors_pay(*value.shape, left.shape[1]):
            return Map(name, left, right)
    return Map(name, _array(train.to_dense()))


def _array(value: Train | Tensor) -> Array:
    assert isinstance(value, Tensor)
    found: Array = value.detach().double().numpy()
    return found
