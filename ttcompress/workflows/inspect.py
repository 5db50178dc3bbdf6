"""Lists the content of a checkpoint and the singular values of its weights: `inspect`."""

from __future__ import annotations

from pathlib import Path

from ttcompress.checkpoint import open_checkpoint
from ttcompress.model.weights import NO_EVIDENCE, UNKNOWN, OtherTensor, Weight
from ttcompress.results.inspection import Inspection, inspect_weight
from ttcompress.system.memory import release_memory
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.analysis import read_matrix
from ttcompress.trains.tt_svd import spectrum_at


def inspect(
    source: str | Path, *, key: str | None = None, progress: Progress = silent
) -> Inspection:
    """List a checkpoint's layers, shapes and sizes, and how fast each spectrum falls.

    Args:
        source: the checkpoint's file.
        key: which state dict to use if the file holds several.
        progress: receives what is being done.

    Raises:
        InputError: there is no such file.
        CheckpointError: it is damaged, unsafe, not understood, has no weights, or holds NaN.
    """
    checkpoint = open_checkpoint(source, key)
    weights = [weight for weight in checkpoint.weights if weight.role != UNKNOWN]
    kept = [
        OtherTensor(one.name, one.names, one.shape, one.dtype, one.bytes, NO_EVIDENCE)
        for one in checkpoint.weights
        if one.role == UNKNOWN
    ]
    spectra = []
    for done, weight in enumerate(weights):
        progress("spectra", done, len(weights), weight.name)
        matrix = read_matrix(checkpoint.tensor, weight)
        spectra.append(spectrum_at(matrix, (weight.shape[0], 1)))
        release_memory()
    progress("spectra", len(spectra), len(spectra))
    tensors: list[Weight | OtherTensor] = [*checkpoint.weights, *checkpoint.others]
    return Inspection(
        container=checkpoint.container,
        sha256=checkpoint.sha256,
        file_bytes=checkpoint.bytes,
        tensor_bytes=sum(tensor.bytes for tensor in tensors),
        params=sum(tensor.params for tensor in tensors),
        layers=checkpoint.stacks,
        weights=tuple(map(inspect_weight, weights, spectra)),
        others=(*kept, *checkpoint.others),
        notes=checkpoint.notes,
    )
