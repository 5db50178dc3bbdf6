"""Runs a model that was written in C, from Python: `Library` loads it, `States` hold sequences."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttcompress.targets.c.compiler import FAST, compile_files

TOGETHER = 4
"""Sequences that share a loaded weight."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Interface:
    """How a library is called.

    Attributes:
        name: the prefix of its functions.
        symbols: how many there are; None if inputs are values.
        inputs: numbers in each step.
        outputs: values that come out.
        memory: values of a state as torch has it.
        flash: bytes of constants.
        ram: bytes of a state.
        work: floats for each step of a model with a direction that runs backwards, else 0.
        pooled: whether a run gives one output.
    """

    name: str
    symbols: int | None
    inputs: int
    outputs: int
    memory: int
    flash: int
    ram: int
    work: int
    pooled: bool

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> Interface:
        """What the header among these files says."""
        name = next(name for name in files if name.endswith(".h")).removesuffix(".h")
        defined = re.findall(rb"^#define (\w+) (\d+)", files[f"{name}.h"], re.MULTILINE)
        prefix = f"{name.upper()}_"
        sizes = {key.decode().removeprefix(prefix): int(value) for key, value in defined}
        return cls(
            name=name,
            symbols=sizes.get("SYMBOLS"),
            inputs=sizes["INPUTS"],
            outputs=sizes["OUTPUTS"],
            memory=sizes["MEMORY"],
            flash=sizes["FLASH_BYTES"],
            ram=sizes["RAM_BYTES"],
            work=sizes.get("WORK", 0),
            pooled="POOLED" in sizes,
        )

    @property
    def input_type(self) -> type[np.generic]:
        """The type of inputs in C."""
        return np.float32 if self.symbols is None else np.int32


def build_library(
    files: Mapping[str, bytes],
    name: str,
    output: Path,
    *,
    sources: Sequence[str] = (),
    flags: Sequence[str] = FAST,
) -> None:
    """Compile a model for this machine, of the C files or of other sources.

    Raises:
        MissingExtraError: there is no compiler.
        TTCompressError: it refuses the code.
    """
    together = f"-D{name.upper()}_TOGETHER={TOGETHER}"
    chosen = sources or (f"{name}.c", f"{name}_weights.c")
    compile_files(files, chosen, output, (*flags, together), link=("-shared", "-fPIC"))


class Library:
    """A compiled model.

    Args:
        path: of the shared library.
        interface: how it is called.
    """

    def __init__(self, path: Path, interface: Interface) -> None:
        self.interface = interface
        self._library = ctypes.CDLL(str(path))

    def function(self, name: str) -> Callable[..., None]:
        """One of its functions, without the prefix. No result is returned."""
        found = getattr(self._library, f"{self.interface.name}_{name}")
        found.restype = None
        called: Callable[..., None] = found
        return called


class States:
    """The states of several sequences, all at their start.

    Args:
        library: the model.
        count: how many.
    """

    def __init__(self, library: Library, count: int) -> None:
        self.library, self.count = library, count
        ram = library.interface.ram
        self._room = np.zeros(count * ram + 64, np.uint8)
        start = -self._room.ctypes.data % 64
        self._states = self._room[start : start + count * ram].reshape(count, ram)
        self.address = ctypes.c_void_p(self._states.ctypes.data)
        self.reset(range(count))

    def reset(self, which: Iterable[int]) -> None:
        """Start new sequences."""
        for k in which:
            self.library.function("reset")(self._place(k))

    def prepare_step(
        self, x: NDArray[np.generic], y: Floats
    ) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """The function of one step that reads `x` and writes `y`, and its arguments."""
        if self.count == 1 and self.library.interface.symbols is None:
            return self.library.function("step"), (self.address, _pointer(x), _pointer(y))
        function = self.library.function("step_many")
        return function, (self.address, ctypes.c_int(self.count), _pointer(x), _pointer(y))

    def save(self) -> Floats:  # (count, memory)
        """The states as torch has them: of each stack hidden states of all layers, then cells."""
        memory = np.empty((self.count, self.library.interface.memory), np.float32)
        for k, row in enumerate(memory):
            self.library.function("save")(self._place(k), _pointer(row))
        return memory

    def load(self, memory: Floats) -> None:  # (count, memory)
        """Continue from states that `save` or torch gave."""
        rows = np.ascontiguousarray(memory, np.float32)
        for k, row in enumerate(rows):
            self.library.function("load")(self._place(k), _pointer(row))

    def prepare_symbol(
        self, y: Floats
    ) -> tuple[Callable[..., None], ctypes.c_void_p, ctypes.c_void_p]:
        """The function of one step of the first sequence, the state and the output for its call:
        `function(state, symbol, output)`, with a whole number between them.
        """
        return self.library.function("step"), self.address, _pointer(y)

    def run(self, x: NDArray[np.generic]) -> Floats:
        """Run some steps.

        Args:
            x: (steps, count) of symbols, or (steps, count, inputs).

        Returns:
            (steps, count, outputs), or (count, outputs) of a model that pools.
        """
        return self.prepare_run(x)()

    def prepare_run(self, x: NDArray[np.generic]) -> Callable[[], Floats]:
        """A call of `run` with nothing left to prepare; each goes on from where the last ended."""
        found = self.library.interface
        x = np.ascontiguousarray(x, found.input_type)
        steps = len(x)
        shape = (self.count, found.outputs) if found.pooled else (steps, self.count, found.outputs)
        y = np.empty(shape, np.float32)
        work = np.empty(steps * self.count * found.work, np.float32)
        extra = [_pointer(work)] if found.work else []
        arguments = (ctypes.c_int(self.count), ctypes.c_int(steps), _pointer(x), _pointer(y))
        function = self.library.function("run_many")

        def call(kept: object = (self, x, work)) -> Floats:  # their memory is used
            function(self.address, *arguments, *extra)
            return y

        return call

    def _place(self, k: int) -> ctypes.c_void_p:
        return _pointer(self._states[k])


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
