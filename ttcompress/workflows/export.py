"""ONNX models of a compressed model: an artifact enters, files for ONNX Runtime leave.

Whole models with a task or a module, or each recurrent stack by itself. Products run through
factors, one Scan for each recurrent layer and direction; lengths and batches stay free.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ttcompress.artifact import CompressedModel, load
from ttcompress.errors import RecipeError
from ttcompress.layers.stacks import NONLINEARITIES, Nonlinearity
from ttcompress.results.exported import Exported
from ttcompress.system.files import check_output
from ttcompress.system.progress import Progress, silent
from ttcompress.targets.onnx.extra import require_onnx
from ttcompress.targets.onnx.models import OwnModule
from ttcompress.tasks.protocol import Task

if TYPE_CHECKING:
    from ttcompress.targets.onnx.make import Made

__all__ = ["Exported", "OwnModule", "export", "require_onnx"]


def export(
    source: str | Path | CompressedModel,
    output: str | Path,
    *,
    task: str | Task | None = None,
    module: OwnModule | None = None,
    quantize: str | None = None,
    nonlinearity: Nonlinearity = "tanh",
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Exported, ...]:
    """Write a compressed model as ONNX, after holding its outputs against torch's.

    Args:
        source: an artifact's path, or a `CompressedModel`.
        output: the file; several recurrent layers become several files, with their names in it.
        task: exports the whole model, as a task builds it.
        module: exports the whole model, in a module of your own. Without either, each recurrent
            layer is one of (time, batch, input) and its state.
        quantize: "int8" multiplies in int8, by onnxruntime's dynamic quantisation.
        nonlinearity: of RNNs exported by themselves; a checkpoint does not tell it.
        overwrite: replace files that exist.
        progress: told which part is being exported.

    Raises:
        MissingExtraError: the extra `onnx` is not installed.
        RecipeError: the arguments do not fit each other, or the model.
        TTCompressError: the export failed or its outputs differ; nothing was written.
    """
    require_onnx()
    from ttcompress.targets.onnx.make import Wanted, make, write  # an extra

    _check_words(quantize, nonlinearity)
    check_output(Path(output), overwrite)  # before the work, which can be long
    compressed = source if isinstance(source, CompressedModel) else load(source)
    wanted = Wanted(task, module, quantize == "int8", nonlinearity)
    made = make(compressed, wanted, progress)
    paths = write(made, Path(output), overwrite)
    return tuple(_exported(path, one) for path, one in zip(paths, made, strict=True))


def _check_words(quantize: str | None, nonlinearity: str) -> None:
    if quantize not in (None, "int8"):
        raise RecipeError(f"quantize: {quantize!r} is not int8. Use that, or leave it away.")
    if nonlinearity not in NONLINEARITIES:
        raise RecipeError(f"nonlinearity: {nonlinearity!r} is none of {', '.join(NONLINEARITIES)}.")


def _exported(path: Path, made: Made) -> Exported:
    return Exported(
        file=path,
        part=made.part.name or "model",
        bytes=len(made.content),
        inputs=made.part.call.inputs,
        outputs=made.part.call.outputs,
        largest_difference=made.difference.value,
        relative_difference=made.difference.norm,
        holds=made.holds,
    )
