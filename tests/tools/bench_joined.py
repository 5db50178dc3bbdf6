"""Whether weight_ih and weight_hh should share their row factor, side by side as one matrix.

    python tests/tools/bench_joined.py sample_models/charlm.pt --task charlm
    python tests/tools/bench_joined.py text512.pt --task language-model --text input.txt

Prints the squared error of the best ranks under one budget over all recurrent weights, as an MPS of
two cores each: apart, joined in every layer, and joined where that is better. Once in the Frobenius
norm, once weighed by the inputs that a calibration shows, which is what `--calibrate` minimises.

Apart, every matrix has a row factor for what it alone does; joined, it is stored once. On trained
models the second costs more than it saves as soon as the inputs count (the hidden state uses other
outputs' directions than the input does), so that no joined weights were built.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from ttcompress.calibration.moments import calibrate
from ttcompress.calibration.sources import task_source
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.layers.structure import structure_of
from ttcompress.tasks.registry import make_task
from ttcompress.trains.weighting import Weighting

FEWER = (1.3, 2.0, 4.0, 8.0)
BATCHES = 16

Pair = tuple[str, str]
Candidate = tuple[Tensor, int]
"""Squared singular values, and the values that one rank takes."""


def pairs_of(checkpoint: Checkpoint) -> list[Pair]:
    names = [w.name for w in checkpoint.weights if "weight_ih" in w.name]
    return [(name, name.replace("weight_ih", "weight_hh")) for name in names]


def whitened(matrix: Tensor, weighting: Weighting | None) -> Tensor:
    if weighting is None:
        return matrix
    root, _ = weighting.roots
    return weighting.rows.sqrt()[:, None] * matrix @ root


def candidate(*matrices: Tensor) -> Candidate:
    side_by_side = torch.cat(matrices, 1)
    return torch.linalg.svdvals(side_by_side).square(), sum(side_by_side.shape)


def least_error(candidates: list[Candidate], values: float) -> float:
    """Singular values taken by gain per value: the best ranks but for the last step."""
    gains = [(float(g) / cost, cost, float(g)) for squares, cost in candidates for g in squares]
    error = sum(gain for _, _, gain in gains)
    for _, cost, gain in sorted(gains, reverse=True):
        if cost <= values:
            values, error = values - cost, error - gain
    return error


def errors(
    matrices: Mapping[str, Tensor], pairs: list[Pair], values: float
) -> Iterator[tuple[tuple[bool, ...], float]]:
    """The error for every choice of pairs that are joined."""
    apart = [[candidate(matrices[name]) for name in pair] for pair in pairs]
    joined = [[candidate(*(matrices[name] for name in pair))] for pair in pairs]
    for choice in product((False, True), repeat=len(pairs)):
        picked = zip(choice, apart, joined, strict=True)
        yield choice, least_error([c for j, a, b in picked for c in (b if j else a)], values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--text")
    asked = parser.parse_args()
    checkpoint = open_checkpoint(asked.model)
    task = make_task(
        asked.task, structure_of(checkpoint), {"text": asked.text} if asked.text else {}
    )
    shown = calibrate(checkpoint, task_source(task, checkpoint.stacks, BATCHES, seed=0))
    pairs = pairs_of(checkpoint)
    dense = {name: checkpoint.tensor(name).double() for pair in pairs for name in pair}
    whole = sum(matrix.numel() for matrix in dense.values())
    print("| norm | fewer values | joined everywhere | where better | joined there |")
    print("|---|--:|--:|--:|---|")
    for norm in ("Frobenius", "weighed"):
        weightings = shown.weightings if norm == "weighed" else {}
        matrices = {name: whitened(m, weightings.get(name)) for name, m in dense.items()}
        for fewer in FEWER:
            found = dict(errors(matrices, pairs, whole / fewer))
            apart, every = found[(False,) * len(pairs)], found[(True,) * len(pairs)]
            best = min(found, key=found.__getitem__)
            where = ", ".join(a for (a, _), j in zip(pairs, best, strict=True) if j) or "nowhere"
            print(f"| {norm} | {fewer:g}x | {every / apart:.3f} ", end="")
            print(f"| {found[best] / apart:.3f} | {where} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
