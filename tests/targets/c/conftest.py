"""Random layers, packed for C and built for each instruction set that this processor has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from ttcompress.planning.flash import Bits
from ttcompress.targets.c.compiler import compile_files, find_compiler
from ttcompress.targets.c.description import Cell, Description, Direction, Map
from ttcompress.targets.c.library import Interface, Library
from ttcompress.targets.c.packing import pack
from ttcompress.targets.c.writing import Example, write_files

Make = Callable[..., Description]
Files = Callable[[Description, Bits], dict[str, bytes]]
Build = Callable[..., Library]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built libraries stay out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(params=["gcc", "clang"])
def each_compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compile with this one, by its name in CC."""
    if not shutil.which(request.param):
        pytest.skip(f"there is no {request.param} here")
    monkeypatch.setenv("CC", request.param)
    name: str = request.param
    return name


@pytest.fixture
def compiler() -> str:
    """Skip what needs a compiler where there is none."""
    if (found := find_compiler()) is None:
        pytest.skip("there is no C compiler here")
    return found[0]


@pytest.fixture(scope="session")
def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Flags by the instruction sets that they compile for and this processor has."""
    try:
        known = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        known = set()
    sets = {
        "plain": ("-DMODEL_PLAIN",),
        "baseline": (),
        "ssse3": ("-mssse3",),
        "avx2": ("-mavx2", "-mfma"),
        "avx_vnni": ("-mavx2", "-mavxvnni", "-mfma"),
        "avx512bw": ("-mavx512f", "-mavx512bw", "-mfma"),
        "avx512_vnni": ("-mavx512f", "-mavx512bw", "-mavx512vnni", "-mfma"),
    }
    there = {"plain", "baseline", *known}
    return {name: flags for name, flags in sets.items() if name in there}


@pytest.fixture
def make() -> Make:
    """Describe a random stack of layers, with factors of a rank or, at 0, without."""

    def random(cell: Cell, inputs: int, hidden: int, rank: int = 0, layers: int = 1) -> Description:
        rng = np.random.default_rng(0)
        rows = {"lstm": 4, "gru": 3}.get(cell, 1) * hidden

        def matrix(name: str, columns: int) -> Map:
            if not rank:
                return Map(name, rng.standard_normal((rows, columns)) / np.sqrt(columns))
            left = rng.standard_normal((rows, rank)) / np.sqrt(rank)
            return Map(name, left, rng.standard_normal((rank, columns)) / np.sqrt(columns))

        stack = tuple(
            Direction(
                cell=cell,
                hidden=hidden,
                outputs=hidden,
                reverse=False,
                input=matrix(f"input {k}", hidden if k else inputs),
                recurrent=matrix(f"recurrent {k}", hidden),
                projection=None,
                input_bias=0.3 * rng.standard_normal(rows),
                hidden_bias=0.3 * rng.standard_normal(rows) if cell == "gru" else None,
            )
            for k in range(layers)
        )
        return Description(None, inputs, None, False, (stack,), None, None, None)

    return random


@pytest.fixture
def files_of() -> Files:
    """The C files of a description."""

    def write(description: Description, bits: Bits) -> dict[str, bytes]:
        inputs = np.zeros((1, description.inputs), np.float32)
        example = Example(inputs, np.zeros((1, description.outputs), np.float32), limit=np.inf)
        facts = {"ttcompress": "0", "source_sha256": "0"}
        return write_files(pack(description, bits), "model", facts, example)

    return write


@pytest.fixture
def build(files_of: Files, tmp_path: Path, compiler: str) -> Build:
    """Compile a description with some flags."""
    numbers = count()

    def make(description: Description, bits: Bits, flags: tuple[str, ...] = ()) -> Library:
        files, path = files_of(description, bits), tmp_path / f"{next(numbers)}.so"
        sources = ("model.c", "model_weights.c")
        compile_files(files, sources, path, ("-O2", *flags), link=("-shared", "-fPIC"))
        return Library(path, Interface.read(files))

    return make
