"""Lists the content of a checkpoint and the singular values of its weights: `inspect`."""

from __future__ import annotations

from ttcompress.checkpoint import ModelSource, open_checkpoint
from ttcompress.model.weights import OtherTensor, Weight
from ttcompress.results.inspection import Inspection, inspect_weight
from ttcompress.system.memory import release_memory
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.analysis import read_matrix
from ttcompress.trains.tt_svd import spectrum_at


def inspect(
    source: ModelSource, *, key: str | None = None, progress: Progress = silent
) -> Inspection:
    """List a model's layers, shapes and sizes, and how fast each spectrum falls.

    Args:
        source: a checkpoint's file, a module or a state dict.
        key: which state dict to use if the file holds several.
        progress: receives what is being done.

    Raises:
        InputError: there is no such file.
        CheckpointError: it is damaged, unsafe, not understood, has no weights, or holds NaN.
    """
    checkpoint = open_checkpoint(source, key)
    spectra = []
    for done, weight in enumerate(checkpoint.weights):
        progress("spectra", done, len(checkpoint.weights), weight.name)
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
        weights=tuple(map(inspect_weight, checkpoint.weights, spectra)),
        others=checkpoint.others,
        notes=checkpoint.notes,
    )
