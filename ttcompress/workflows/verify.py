"""Checks an artifact's report against the checkpoint it was made from: `verify`.

Every error is recomputed from the two files alone: cores by tensorly, differences in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint import Checkpoint
from ttcompress.model.report import BLIND, WeightReport
from ttcompress.model.weights import OtherTensor, Weight
from ttcompress.results.verification import CheckedWeight, Verification
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.stored import StoredWeight, worst_row_error
from ttcompress.workflows.original import open_original


def verify(
    artifact: str | Path,
    against: str | Path,
    *,
    key: str | None = None,
    progress: Progress = silent,
) -> Verification:
    """Recompute every error from the artifact and the source it was made from.

    Args:
        artifact: the compressed file.
        against: the checkpoint it was made from.
        key: which state dict of the checkpoint; by default the one in the recipe.
        progress: receives the weight that is being checked.

    Raises:
        InputError: one of the files does not exist.
        ArtifactError: the artifact cannot be read.
        CheckpointError: the checkpoint cannot be read, or is not the artifact's source.
    """
    model = load(artifact)
    source = open_original(against, model, artifact, key)
    checked = tuple(_checked_weights(model, source, progress))
    trained = bool((model.report.finetune or {}).get("settings", {}).get("kept"))
    fitted = set((model.report.calibration or {}).get("biases", ()))
    differences = (
        *(["the model was " + BLIND] if BLIND in model.report.notes else ()),
        *_strange_weights(model),
        *(weight.difference for weight in checked if not weight.agrees),
        *(() if trained else _kept_differences(model, source, fitted)),
    )
    return Verification(checked, 0 if trained else len(model.kept.keys() - fitted), differences)


def _checked_weights(
    model: CompressedModel, source: Checkpoint, progress: Progress
) -> Iterator[CheckedWeight]:
    reported = {weight.name: weight for weight in model.report.weights}
    for done, stored in enumerate(model.weights):
        name = stored.weight.name
        progress("verify", done, len(model.weights), name)
        if name in reported:
            yield _checked(stored, source.tensor(name), reported[name])
    progress("verify", len(model.weights), len(model.weights))


def _checked(stored: StoredWeight, matrix: Tensor, report: WeightReport) -> CheckedWeight:
    kept, wide = stored.train().reference(), matrix.double()
    gates = len(report.gate_errors) or 1
    by_gate = [_error(*blocks) for blocks in zip(wide.chunk(gates), kept.chunk(gates), strict=True)]
    return CheckedWeight(
        name=stored.weight.name,
        reported=report.relative_error,
        recomputed=_error(wide, kept),
        gates_reported=report.gate_errors,
        gates_recomputed=tuple(by_gate) if report.gate_errors else (),
        worst_row_reported=report.worst_row_error,
        worst_row_recomputed=worst_row_error(
            (wide - kept).square().sum(1), wide.square().sum(1), stored.weight
        ),
    )


def _error(matrix: Tensor, kept: Tensor) -> float:
    """Relative Frobenius error; 0 for an all-zero block that is kept as zeros."""
    lost, norm = (torch.linalg.vector_norm(part).item() for part in (matrix - kept, matrix))
    return lost / norm if norm else (0.0 if lost == 0.0 else float("inf"))


def _strange_weights(model: CompressedModel) -> Iterator[str]:
    """Name the weights that are only in the report or only in the file."""
    reported = {weight.name for weight in model.report.weights}
    stored = {stored.weight.name for stored in model.weights}
    yield from (f"{name}: in the report but not in the file" for name in sorted(reported - stored))
    yield from (f"{name}: in the file but not in the report" for name in sorted(stored - reported))


def _kept_differences(
    model: CompressedModel, source: Checkpoint, fitted: set[str]
) -> Iterator[str]:
    """Name kept tensors that differ from the source's in any bit, except biases fitted to data."""
    changed = {stored.weight.name for stored in model.weights}
    tensors: list[Weight | OtherTensor] = [*source.weights, *source.others]
    wanted = {tensor.name for tensor in tensors} - changed
    yield from (f"{name}: is missing from the file" for name in sorted(wanted - model.kept.keys()))
    yield from (f"{name}: is not in the model" for name in sorted(model.kept.keys() - wanted))
    for name in sorted((wanted & model.kept.keys()) - fitted):
        if not _identical(model.kept[name], source.tensor(name)):
            yield f"{name}: should be unchanged, but differs from the model's"


def _identical(one: Tensor, other: Tensor) -> bool:
    """Same type, shape and bits: NaN equals NaN, and 0 is not -0."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*bits)
