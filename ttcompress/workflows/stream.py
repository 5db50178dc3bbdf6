"""Runs a compressed model step by step, compiled as C: `stream` is the entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttcompress.artifact import CompressedModel, load
from ttcompress.errors import RecipeError
from ttcompress.layers.stacks import Nonlinearity
from ttcompress.targets.c.library import Library, States
from ttcompress.targets.c.native import load_native
from ttcompress.targets.registry import find_target
from ttcompress.tasks.protocol import Task
from ttcompress.workflows.export import choose_parts, choose_rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Stream", "stream"]


def stream(
    source: str | Path | CompressedModel,
    *,
    states: int = 1,
    task: str | Task | None = None,
    layer: str | None = None,
    quantize: str | None = None,
    nonlinearity: Nonlinearity = "tanh",
) -> Stream:
    """Compile a compressed model for this processor, and run it step by step.

    The library is built once, and kept in the user's cache folder.

    Args:
        source: an artifact's path, or a `CompressedModel`.
        states: sequences that run side by side.
        task: runs the whole model as the task builds it; not needed if its structure is an
            embedding, recurrent layers and a linear layer.
        layer: a recurrent layer by its name, to run that alone.
        quantize: "int8" or "int4"; "none" is float32. None: what the model was planned for if its
            recipe's target is c, else float32.
        nonlinearity: of RNNs; a checkpoint does not tell it.

    Raises:
        MissingExtraError: there is no C compiler.
        RecipeError: an argument does not fit, or there are several layers and none is named.

    Example:
        model = ttcompress.stream("charlm.safetensors", quantize="int8")
        logits = model.step(17)  # of the symbol after symbol 17
    """
    if states < 1:
        raise RecipeError(f"stream: states must be at least 1, got {states}.")
    target = find_target("c")
    compressed = source if isinstance(source, CompressedModel) else load(source)
    quantize = choose_rounding(target, quantize, compressed)
    parts = choose_parts(compressed, target, task, nonlinearity=nonlinearity, layer=layer)
    if len(parts) > 1:
        raise RecipeError(
            f"stream: the model has {len(parts)} recurrent layers whose connection is not known: "
            f"{', '.join(part.name for part in parts)}. Name one: layer={parts[0].name!r}."
        )
    return Stream(load_native(parts[0], quantize), states)


class Stream:
    """One or several sequences that run through a model, each with a state of its own.

    Inputs are symbols, or `inputs` values a step; outputs are `outputs` values. With one state,
    arrays have no axis for it.

    Attributes:
        states: how many sequences.
        symbols: how many symbols there are; None if inputs are values.
        inputs: values in each step, 1 for symbols.
        outputs: values that come out.
    """

    def __init__(self, library: Library, states: int) -> None:
        found = library.interface
        self.states = states
        self.symbols, self.inputs, self.outputs = found.symbols, found.inputs, found.outputs
        self._states = States(library, states)
        self._pooled, self._whole = found.pooled, found.work > 0
        alone = () if states == 1 else (states,)
        self._shape = alone if self.symbols is not None else (*alone, self.inputs)
        self._result = (*alone, self.outputs)
        # A step takes a microsecond, so its memory and arguments are prepared once.
        self._x = np.zeros(self._shape, found.input_type)
        self._y = np.zeros(self._result, np.float32)
        self._most = self.symbols if not self._shape and not self._whole else None
        if not self._whole:
            self._step, self._arguments = self._states.prepare_step(self._x, self._y)
            self._look, self._place, self._output = self._states.prepare_symbol(self._y)

    def step(self, x: ArrayLike) -> NDArray[np.float32]:
        """One step of every sequence.

        Args:
            x: (states,) of symbols, or (states, inputs); without the first axis if there is one.

        Returns:
            (states, outputs); of a model that pools, for all steps so far.

        Raises:
            ValueError: x has another shape, or a symbol is not one of the model's.
            RecipeError: a direction runs backwards, so only whole sequences can be run.
        """
        if self._whole:
            raise RecipeError(
                "stream: a layer is bidirectional, so a step needs those after it. Use `run`."
            )
        if self._most is not None and type(x) is int and 0 <= x < self._most:
            self._look(self._place, x, self._output)  # no array is needed
        else:
            ready = self.symbols is None and type(x) is np.ndarray and x.shape == self._shape
            self._x[...] = x if ready else self._checked(x, self._shape)
            self._step(*self._arguments)
        return self._y.copy()

    def run(self, x: ArrayLike) -> NDArray[np.float32]:
        """Several steps of every sequence.

        Args:
            x: (steps, states) of symbols, or (steps, states, inputs); without the axis of states
                if there is one.

        Returns:
            (steps, states, outputs), or (states, outputs) of a model that pools.

        Raises:
            ValueError: x has another shape, or a symbol is not one of the model's.
        """
        steps = np.shape(x)[0] if np.ndim(x) else 0
        if steps == 0:
            raise ValueError("x has 0 steps; give at least 1")
        values = self._checked(x, (steps, *self._shape))
        tail = () if self.symbols is not None else (self.inputs,)
        found = self._states.run(values.reshape(steps, self.states, *tail))
        return found.reshape(self._result if self._pooled else (steps, *self._result))

    def reset(self, state: int | None = None) -> None:
        """Start new sequences: all, or one."""
        self._states.reset(range(self.states) if state is None else (range(self.states)[state],))

    @property
    def memory(self) -> NDArray[np.float32]:
        """A copy of the states, (states, values), as torch has them: of each stack the hidden
        states of all layers, then the cells. Assign it to continue from there.
        """
        return self._states.save()

    @memory.setter
    def memory(self, values: ArrayLike) -> None:
        held = self._states.save()
        given = np.asarray(values, np.float32)
        if given.shape != held.shape:
            raise ValueError(f"the memory is {given.shape}, but the model needs {held.shape}")
        self._states.load(given)

    def _checked(self, x: ArrayLike, shape: Sequence[int]) -> NDArray[Any]:
        values = np.asarray(x)
        if values.shape != tuple(shape):
            raise ValueError(f"x has the shape {values.shape}, but {tuple(shape)} is needed")
        if self.symbols is None:
            return values
        if values.dtype.kind not in "iu":
            raise ValueError(f"x has the type {values.dtype}, but symbols are integers")
        if values.min() < 0 or values.max() >= self.symbols:
            raise ValueError(
                f"x has the symbols {values.min()} to {values.max()}, but there are "
                f"{self.symbols}, from 0 to {self.symbols - 1}"
            )
        return values
