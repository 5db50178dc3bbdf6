"""Lists the content of a checkpoint and the singular values of its weights: `inspect`."""

from __future__ import annotations

from ttcompress.checkpoint import ModelSource, open_checkpoint
from ttcompress.model.weights import INFINITE, NO_EVIDENCE, UNKNOWN, OtherTensor, Weight
from ttcompress.results.inspection import InspectedWeight, Inspection, inspect_weight
from ttcompress.system.memory import release_memory
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.analysis import check_finite
from ttcompress.trains.tt_svd import spectrum_at


def inspect(
    source: ModelSource, *, key: str | None = None, progress: Progress = silent
) -> Inspection:
    """List a model's layers, shapes and sizes, and how fast each spectrum falls.

    Args:
        source: a checkpoint's file, a module or a state dict.
        key: which state dict to use if the file holds several; see `open_checkpoint`.
        progress: receives what is being done.

    Raises:
        InputError: there is no such file.
        CheckpointError: it is damaged, unsafe, not understood, has no weights, or holds NaN.
    """
    checkpoint = open_checkpoint(source, key)
    weights: list[InspectedWeight] = []
    kept: list[OtherTensor] = []
    for done, one in enumerate(checkpoint.weights):
        progress("spectra", done, len(checkpoint.weights), one.name)
        why = NO_EVIDENCE if one.role == UNKNOWN else ""
        if not why:
            matrix = checkpoint.tensor(one.name)
            if bool(matrix.isinf().any()) and not bool(matrix.isnan().any()):
                why = INFINITE
            else:
                check_finite(matrix, one)
                weights.append(inspect_weight(one, spectrum_at(matrix, (one.shape[0], 1))))
        if why:
            kept.append(OtherTensor(one.name, one.names, one.shape, one.dtype, one.bytes, why))
        release_memory()
    progress("spectra", len(checkpoint.weights), len(checkpoint.weights))
    tensors: list[Weight | OtherTensor] = [*checkpoint.weights, *checkpoint.others]
    return Inspection(
        container=checkpoint.container,
        sha256=checkpoint.sha256,
        file_bytes=checkpoint.bytes,
        tensor_bytes=sum(tensor.bytes for tensor in tensors),
        params=sum(tensor.params for tensor in tensors),
        layers=checkpoint.stacks,
        weights=tuple(weights),
        others=(*kept, *checkpoint.others),
        left_out=checkpoint.left_out,
        notes=checkpoint.notes,
    )
