"""A checkpoint's file enters; an `Inspection` of it leaves."""

from __future__ import annotations

from pathlib import Path

from ttcompress.checkpoint import open_checkpoint
from ttcompress.model.weights import OtherTensor, Weight
from ttcompress.results.inspection import Inspection, inspect_weight
from ttcompress.system.progress import Progress, silent
from ttcompress.workflows.execution import measure_spectra


def inspect(
    source: str | Path, *, key: str | None = None, progress: Progress = silent
) -> Inspection:
    """Look into a checkpoint: layers, shapes, sizes, and how fast each spectrum falls.

    Args:
        source: the checkpoint's file.
        key: which state dict to take where the file holds several.
        progress: told what is being done.

    Raises:
        InputError: no file there.
        CheckpointError: not understood, damaged, unsafe, without weights, or holding NaN.
    """
    checkpoint = open_checkpoint(source, key)
    weights = {weight.name: weight for weight in checkpoint.weights}
    cuts = {name: ((weight.shape[0], 1),) for name, weight in weights.items()}
    spectra = measure_spectra(checkpoint, weights, cuts, progress=progress)
    tensors: list[Weight | OtherTensor] = [*checkpoint.weights, *checkpoint.others]
    return Inspection(
        container=checkpoint.container,
        sha256=checkpoint.sha256,
        file_bytes=checkpoint.bytes,
        tensor_bytes=sum(tensor.bytes for tensor in tensors),
        params=sum(tensor.params for tensor in tensors),
        layers=checkpoint.stacks,
        weights=tuple(
            inspect_weight(weights[name], spectra[name][cuts[name][0]]) for name in weights
        ),
        others=checkpoint.others,
        notes=checkpoint.notes,
    )
