"""Makes the C files of a part, and runs them: the two verbs of the target, with torch."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttcompress.errors import TTCompressError
from ttcompress.planning.flash import Bits
from ttcompress.targets.c.compiler import QUICK, compile_files
from ttcompress.targets.c.description import describe
from ttcompress.targets.c.library import Interface, Library, States, build_library
from ttcompress.targets.c.packing import Packed, pack
from ttcompress.targets.c.writing import Example, state_bytes, write_files
from ttcompress.targets.calls import BATCH, TIME, Call, FlatModule
from ttcompress.targets.limits import SENSITIVITY
from ttcompress.targets.target import Arrays, Part, Written

BITS: Mapping[str | None, Bits] = {None: 32, "int8": 8, "int4": 4}

STEPS = 16
"""Of the generated test."""

Floats = NDArray[np.float32]


def write_part(part: Part, facts: Mapping[str, str], quantize: str | None, name: str) -> Written:
    """The files of a part by name; the name is an identifier already.

    Raises:
        RecipeError: the module is a user's, whose code cannot be read.
    """
    packed = pack_part(part, quantize)
    files = write_files(packed, name, facts, make_example(part))
    sizes = {"flash": packed.flash, "ram": state_bytes(packed)}
    return Written(files, packed.holds, sizes, packed.errors)


def pack_part(part: Part, quantize: str | None) -> Packed:
    """Round a part's matrices: what is written of it."""
    return pack(describe(part), BITS[quantize])


def make_example(part: Part) -> Example:
    """Random inputs for the generated test, from a state of zeros, and torch's outputs."""
    call = part.call
    sizes = {name: {TIME: STEPS, BATCH: 1}[name] for name in call.free}
    x, *states = call.random_inputs(sizes, seed=1)
    inputs = (x, *(torch.zeros_like(state) for state in states))
    wide = tuple(v.double() if v.is_floating_point() else v for v in inputs)
    with torch.no_grad():
        ours: Tensor = FlatModule(part.module, call).eval()(*inputs)[0]
        module = deepcopy(part.module).double()
        exact: Tensor = FlatModule(module, call).eval()(*wide)[0]
    largest = max(1.0, float(exact.abs().max()))
    own = float((ours - exact).abs().max()) / largest
    kept = x.numpy()[0] if _batch_first(call) else x.numpy()[:, 0]
    outputs = exact.float().reshape(-1, exact.shape[-1]).numpy()
    return Example(kept, outputs, SENSITIVITY * own)


def run_files(written: Written, call: Call, cases: Sequence[Arrays]) -> Iterator[Arrays]:
    """Compile the files, run the test among them, then each case.

    Raises:
        TTCompressError: the code does not compile, or the test fails.
    """
    files = written.files
    interface = Interface.read(files)
    name = interface.name
    with TemporaryDirectory() as folder:
        test, shared = Path(folder) / "test", Path(folder) / "model.so"
        sources = (f"{name}_test.c", f"{name}.c", f"{name}_weights.c")
        compile_files(files, sources, test, QUICK, link=("-lm",))
        done = subprocess.run([str(test)], capture_output=True, text=True)
        if done.returncode:
            said = " ".join(done.stdout.split()) or f"exit code {done.returncode}"
            raise TTCompressError(f"the generated test fails: {said}")
        build_library(files, name, shared, flags=QUICK)
        library = Library(shared, interface)
        for case in cases:
            yield run_case(library, call, case)


def run_case(library: Library, call: Call, case: Arrays) -> Arrays:
    """Run a model on the inputs of a call, and give its outputs: values, and states if it has any.

    Args:
        library: the model.
        call: how its module is called.
        case: the first is (time, batch, ...) or (batch, time, ...); others (layers, batch, size).
    """
    x, *given = case
    x = np.swapaxes(x, 0, 1) if _batch_first(call) else x
    batch = x.shape[1]
    states = States(library, batch)
    if given:
        rows = [np.swapaxes(state, 0, 1).reshape(batch, -1) for state in given]
        states.load(np.concatenate(rows, axis=1))
    y = states.run(x)
    if _batch_first(call) and not library.interface.pooled:
        y = np.swapaxes(y, 0, 1)
    memory, ends = states.save(), np.cumsum([s.shape[0] * s.shape[2] for s in given])[:-1]
    pieces = np.split(memory, ends, axis=1) if given else []
    after = (
        np.swapaxes(piece.reshape(batch, s.shape[0], s.shape[2]), 0, 1)
        for piece, s in zip(pieces, given, strict=True)
    )
    return [y, *after]


def _batch_first(call: Call) -> bool:
    return call.axes[0][0] == BATCH
