"""Runs a part as C in this process: `load_native` builds its library once and keeps it.

Libraries are kept in the user's cache folder, by what they were made of: the code, the weights, the
compiler and the processor.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import mkstemp

import numpy as np
import torch
from torch import Tensor, nn

from ttcompress.errors import OutputError
from ttcompress.targets.c.build import make_example, pack_part
from ttcompress.targets.c.compiler import require_compiler
from ttcompress.targets.c.library import Interface, Library, States, build_library
from ttcompress.targets.c.packing import Packed
from ttcompress.targets.c.writing import write_assembly, write_files
from ttcompress.targets.target import Part

NAME = "model"
"""The prefix of the functions."""


def load_native(part: Part, quantize: str | None) -> Library:
    """The library of a part, built unless it has been before.

    Args:
        part: a stack, or a whole model of the common structure.
        quantize: "int8" or "int4"; None for float32.

    Raises:
        MissingExtraError: there is no C compiler.
        RecipeError: the part has a user's code.
        OutputError: the cache folder is not writable.
    """
    compiler = require_compiler("running a model as C")
    packed = pack_part(part, quantize)
    facts = {"ttcompress": version("ttcompress"), "source_sha256": "-"}
    files = write_files(packed, NAME, facts, make_example(part), weights=not _assembles())
    files |= _weights(packed)
    interface = Interface.read(files)
    digest = _digest([*compiler, _processor(), *sorted(files)], files.values())
    path = cache_folder() / f"{digest[:32]}.so"
    if not path.exists():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = mkstemp(suffix=".part", dir=path.parent)
            os.close(handle)
        except OSError as error:
            raise OutputError(
                f"{path.parent}: the compiled model cannot be kept there: {error.strerror}. Name "
                "another folder in XDG_CACHE_HOME."
            ) from error
        try:
            build_library(files, NAME, Path(name), sources=_sources())
            os.replace(name, path)  # whole or not at all
        finally:
            Path(name).unlink(missing_ok=True)
    return Library(path, interface)


def cache_folder() -> Path:
    """Where libraries are kept: `ttcompress/c` in the user's cache folder."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "ttcompress" / "c"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ttcompress" / "c"
    return Path.home() / ".cache" / "ttcompress" / "c"


def _assembles() -> bool:
    """Whether weights are included as they are: compilers take minutes for large arrays."""
    return sys.platform == "linux"


def _sources() -> tuple[str, ...]:
    return (f"{NAME}.c", f"{NAME}_weights.{'S' if _assembles() else 'c'}")


def _weights(packed: Packed) -> dict[str, bytes]:
    return write_assembly(packed, NAME) if _assembles() else {}


def _digest(texts: Iterable[str], contents: Iterable[bytes]) -> str:
    found = hashlib.sha256("\n".join(texts).encode())
    for content in contents:
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()


@cache
def _processor() -> str:
    """What -march=native depends on: several machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    kept = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return platform.machine() + "".join(sorted(kept))


class NativeModel(nn.Module):
    """A model as C that a built-in task can call as its own `RecurrentModel`.

    Its state is a tensor (batch, memory).
    """

    def __init__(self, library: Library) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))  # a task asks its model's first for the device
        self._library = library

    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs, and the state at the end."""
        x = np.swapaxes(inputs.numpy(), 0, 1)
        if lengths is None:
            states = self._states(len(inputs), state)
            y = states.run(x)
            found = y if self._library.interface.pooled else np.swapaxes(y, 0, 1)
            return torch.from_numpy(np.ascontiguousarray(found)), torch.from_numpy(states.save())
        rows, memory = [], []
        for k, length in enumerate(lengths.tolist()):
            states = self._states(1, None if state is None else state[k : k + 1])
            y = states.run(x[:length, k : k + 1])
            rows.append(torch.from_numpy(y if self._library.interface.pooled else y[:, 0]))
            memory.append(torch.from_numpy(states.save()))
        if self._library.interface.pooled:
            return torch.cat(rows), torch.cat(memory)
        padded = [nn.functional.pad(row, (0, 0, 0, len(x) - len(row))) for row in rows]
        return torch.stack(padded), torch.cat(memory)

    def _states(self, count: int, state: Tensor | None) -> States:
        states = States(self._library, count)
        if state is not None:
            states.load(state.numpy())
        return states
