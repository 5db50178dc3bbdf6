"""What size costs: time over a decade of sizes, a checkpoint of 2 GB, a large vocabulary.

    python tests/tools/bench_scale.py decade       # one layer, hidden 320 to 3,200
    python tests/tools/bench_scale.py large        # four layers of hidden 4,096: 2.1 GB
    python tests/tools/bench_scale.py vocabulary   # an embedding of 200,000 x 650: 520 MB

Every checkpoint is made with singular values that fall as those of trained weights do, written to
a temporary folder, and decomposed by the command line in a process of its own. Memory is the most
that was resident, beside the file's size; `cores` is processor time over seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measure import Measured, ttcompress
from safetensors.torch import save_file
from torch import Tensor

DECADE = (320, 640, 1280, 2240, 3200)
RECURRENT = "{version: 1, format: mps, budget: {factor: 8}}"
EMBEDDING = """
version: 1
format: mps
budget: {factor: 16}
rules: [{weights: embedding}]
default: keep
"""
START_UP = 64
"""Hidden units of a model whose time is all but that of starting."""


def matrix(rows: int, columns: int) -> Tensor:
    """Values of a size as in a trained LSTM; half of the energy in a sixteenth of the ranks."""
    rank = max(1, columns // 16)
    low = torch.randn(rows, rank) @ (torch.randn(rank, columns) / rank**0.5)
    return (low + torch.randn(rows, columns)) / columns**0.5


def lstm(hidden: int, layers: int) -> dict[str, Tensor]:
    tensors = {}
    for layer in range(layers):
        for part in ("ih", "hh"):
            tensors[f"lstm.weight_{part}_l{layer}"] = matrix(4 * hidden, hidden)
            tensors[f"lstm.bias_{part}_l{layer}"] = torch.zeros(4 * hidden)
    return tensors


def decomposed(tensors: dict[str, Tensor], recipe: str) -> tuple[int, Measured]:
    """Bytes of the checkpoint, and what it took to decompose it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_file(tensors, folder / "model.safetensors")
        tensors.clear()
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        given = ("model.safetensors", "-r", "recipe.yaml", "-o", "small.safetensors")
        size = (folder / "model.safetensors").stat().st_size
        return size, ttcompress("decompose", *given, "-q", folder=folder)


def decade() -> None:
    """Times beside those that the largest, under the cubic model, foretells for the others."""
    _, least = decomposed(lstm(START_UP, 1), RECURRENT)
    found = {n: decomposed(lstm(n, 1), RECURRENT)[1] for n in DECADE}
    last = found[DECADE[-1]].processor - least.processor
    print("| hidden | seconds | processor s | without the start | cubic model | memory MB |")
    print("|--:|--:|--:|--:|--:|--:|")
    for n, one in found.items():
        model = last * (n / DECADE[-1]) ** 3
        alone = one.processor - least.processor
        print(
            f"| {n:,} | {one.seconds:.1f} | {one.processor:.1f} | {alone:.2f} | {model:.2f} "
            f"| {one.peak / 1e6:,.0f} |"
        )


def one(title: str, tensors: dict[str, Tensor], recipe: str) -> None:
    size, found = decomposed(tensors, recipe)
    print(
        f"{title}: {size / 1e6:,.0f} MB of file, {found.seconds:.0f} s, {found.processor:.0f} s of "
        f"processor time, cores {found.processor / found.seconds:.2f}, "
        f"memory {found.peak / 1e6:,.0f} MB, {found.peak / size:.2f} times the file"
    )


def large() -> None:
    one("four layers of hidden 4,096", lstm(4096, 4), RECURRENT)


def vocabulary() -> None:
    tensors = {"embedding.weight": matrix(200_000, 650)} | lstm(64, 1)
    one("200,000 x 650", tensors, EMBEDDING)


if __name__ == "__main__":
    torch.manual_seed(0)
    {"decade": decade, "large": large, "vocabulary": vocabulary}[sys.argv[1]]()
