"""What size costs: time over a decade of sizes, a checkpoint of 2 GB, a large vocabulary.

    python tests/tools/bench_scale.py decade       # one layer, hidden 320 to 3,200
    python tests/tools/bench_scale.py large        # four layers of hidden 4,096: 2.1 GB
    python tests/tools/bench_scale.py vocabulary   # an embedding of 200,000 x 650: 520 MB
    python tests/tools/bench_scale.py two          # two layers of hidden 1,500, as mps and as mpo
    python tests/tools/bench_scale.py tiny         # a plan of 240 LSTMs of hidden 32
    python tests/tools/bench_scale.py peers        # TT-SVD beside tensorly and torchTT

Every checkpoint is made with singular values that fall as those of trained weights do, written to
a temporary folder, and decomposed by the command line in a process of its own. Memory is the most
that was resident, beside the file's size; `cores` is processor time over seconds. Peers decompose
one matrix in this process, in float32, at the ranks that ours found; medians of turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import tensorly
import torch
from measure import Measured, ttcompress
from safetensors.torch import save_file
from tensorly.decomposition import tensor_train
from torch import Tensor

from ttcompress.planning.formats import Layout, MpoLayout, MpsLayout
from ttcompress.trains.tt_svd import tensorize, tt_svd

DECADE = (320, 640, 1280, 2240, 3200)
RECURRENT = "{version: 1, format: mps, budget: {factor: 8}}"
EMBEDDING = """
version: 1
format: mps
budget: {factor: 16}
rules: [{weights: embedding}]
default: keep
"""
MPO = "{version: 1, format: mpo, budget: {factor: 8}}"
SMALL = "{version: 1, format: auto, budget: {factor: 16}}"
TURNS = 7
PEERS: tuple[tuple[Layout, int], ...] = (
    (MpsLayout((1024,), (256,)), 32),
    (MpsLayout((4, 16, 16), (16, 16)), 32),
    (MpsLayout((32, 32), (16, 16)), 96),
    (MpoLayout((32, 32), (16, 16)), 32),
    (MpoLayout((4, 16, 16), (4, 8, 8)), 32),
)
"""Layouts of a matrix of 1,024 x 256, and the largest rank."""

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


def measured(
    tensors: dict[str, Tensor], recipe: str, command: str = "decompose"
) -> tuple[int, Measured]:
    """Bytes of the checkpoint, and what it took to decompose it, or to plan that."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_file(tensors, folder / "model.safetensors")
        tensors.clear()
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        given = ["model.safetensors", "-r", "recipe.yaml"]
        if command == "decompose":
            given += ["-o", "small.safetensors"]
        size = (folder / "model.safetensors").stat().st_size
        return size, ttcompress(command, *given, "-q", folder=folder)


def decade() -> None:
    """Times beside those that the largest, under the cubic model, foretells for the others."""
    _, least = measured(lstm(START_UP, 1), RECURRENT)
    found = {n: measured(lstm(n, 1), RECURRENT)[1] for n in DECADE}
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


def one(title: str, tensors: dict[str, Tensor], recipe: str, command: str = "decompose") -> None:
    size, found = measured(tensors, recipe, command)
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


def two() -> None:
    one("two layers of hidden 1,500, mps", lstm(1500, 2), RECURRENT)
    one("two layers of hidden 1,500, mpo", lstm(1500, 2), MPO)


def tiny() -> None:
    tensors = {f"n{k}.{name}": t for k in range(240) for name, t in lstm(32, 1).items()}
    one("a plan of 240 LSTMs of hidden 32", tensors, SMALL, "plan")


def peers() -> None:
    """Processor time, and the relative errors, which show that all do the same."""
    tensorly.set_backend("pytorch")
    source = matrix(1024, 256)
    print("| train | ranks | ours s | tensorly | torchTT | errors |")
    print("|---|---|--:|--:|--:|---|")
    for layout, rank in PEERS:
        tensor = tensorize(source, layout).contiguous()
        ranks = layout.attainable([rank] * (layout.cores - 1))
        ways: dict[str, Callable[[], list[Tensor]]] = {
            "ours": lambda layout=layout, ranks=ranks: list(tt_svd(source, layout, ranks)[0]),
            "tensorly": lambda tensor=tensor, ranks=ranks: list(
                tensor_train(tensor, rank=[1, *ranks, 1])
            ),
        }
        if find_spec("torchtt") is not None:
            import torchtt

            ways["torchTT"] = lambda tensor=tensor, ranks=ranks: list(
                torchtt.TT(tensor, eps=0.0, rmax=[1, *ranks, 1]).cores
            )
        times: dict[str, list[float]] = {name: [] for name in ways}
        errors = {}
        for _ in range(TURNS):
            for name, way in ways.items():
                began = time.process_time()
                cores = way()
                times[name].append(time.process_time() - began)
                errors[name] = float((contracted(cores) - tensor).norm() / tensor.norm())
        ours = median(times["ours"])
        beside = [
            f"{median(times[name]) / ours:.2f}x" if name in times else "not installed"
            for name in ("tensorly", "torchTT")
        ]
        found = ", ".join(f"{error:.6f}" for error in errors.values())
        print(f"| {layout} | {ranks} | {ours:.4f} | {' | '.join(beside)} | {found} |", flush=True)


def contracted(cores: list[Tensor]) -> Tensor:
    """The whole tensor, an axis for each core."""
    sizes = [core[0, ..., 0].numel() for core in cores]
    whole = torch.ones(1, 1, dtype=torch.float64)
    for core in cores:
        whole = (whole @ core.double().reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])
    return whole.reshape(sizes)


if __name__ == "__main__":
    torch.manual_seed(0)
    {
        "decade": decade,
        "large": large,
        "vocabulary": vocabulary,
        "two": two,
        "tiny": tiny,
        "peers": peers,
    }[sys.argv[1]]()
