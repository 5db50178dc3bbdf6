"""The way of an export: a compressed model enters; ONNX files that were held against torch leave.

    parts -> convert -> [int8] -> describe -> check -> write

Needs the extra, and is imported only where that is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path

from onnx import ModelProto, TensorProto

from ttcompress.artifact import CompressedModel
from ttcompress.errors import RecipeError, TTCompressError
from ttcompress.layers.stacks import Nonlinearity
from ttcompress.system.files import check_output, written_whole
from ttcompress.system.progress import Progress
from ttcompress.targets.onnx.checking import Difference, check
from ttcompress.targets.onnx.convert import convert, describe
from ttcompress.targets.onnx.models import OwnModule, own_part, task_part
from ttcompress.targets.onnx.quantize import quantized
from ttcompress.targets.onnx.stacks import Part, recurrent_parts
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.registry import task_for


@dataclass(frozen=True, eq=False)
class Made:
    """One ONNX model in memory: its part, its bytes, what was checked, its values by type."""

    part: Part
    content: bytes
    difference: Difference
    holds: Mapping[str, int]


@dataclass(frozen=True)
class Wanted:
    """What is exported, and how.

    Attributes:
        task: the whole model by a task, or its name.
        module: the whole model by a user's module. Without either: each recurrent stack.
        int8: whether products are in int8.
        nonlinearity: of RNNs exported by themselves, which a checkpoint does not tell.
    """

    task: str | Task | None = None
    module: OwnModule | None = None
    int8: bool = False
    nonlinearity: Nonlinearity = "tanh"


def make(compressed: CompressedModel, wanted: Wanted, progress: Progress) -> tuple[Made, ...]:
    """The checked models, in memory."""
    parts = _parts(compressed, wanted)
    made = []
    for done, part in enumerate(parts):
        progress("export", done, len(parts), part.name)
        try:
            made.append(_made(compressed, part, wanted))
        except TTCompressError as error:
            raise error.at(part.name or "export") from error
    progress("export", len(parts), len(parts))
    return tuple(made)


def _parts(compressed: CompressedModel, wanted: Wanted) -> Sequence[Part]:
    few_bits = not wanted.int8
    if wanted.task is not None and wanted.module is not None:
        raise RecipeError("export: a task and a module were given. Give one of them.")
    if wanted.module is not None:
        return [own_part(compressed, wanted.module, few_bits=few_bits)]
    if wanted.task is not None:
        return [task_part(compressed, task_for(compressed, wanted.task), few_bits=few_bits)]
    kind = wanted.nonlinearity
    parts = list(recurrent_parts(compressed, few_bits=few_bits, nonlinearity=kind))
    if not parts:
        raise RecipeError(
            "export: the model has no recurrent layer to export by itself. "
            "Export the whole of it: --task, or from Python a module."
        )
    return parts


def _made(compressed: CompressedModel, part: Part, wanted: Wanted) -> Made:
    model = convert(part.module, part.call, fold=wanted.int8)
    if wanted.int8:
        model = quantized(model)
    holds = _holding(model)
    totals = compressed.report.totals["weights"]
    describe(
        model,
        {
            "ttcompress": version("ttcompress"),
            "source_sha256": compressed.report.source["sha256"],
            "compression_factor": f"{totals.compression_factor:.2f}",
            "part": part.name or "model",
            "holds": ", ".join(f"{count} in {type}" for type, count in holds.items()),
        },
    )
    content = model.SerializeToString(deterministic=True)
    return Made(part, content, check(content, part.module, part.call, int8=wanted.int8), holds)


def _holding(model: ModelProto) -> dict[str, int]:
    """How many constant values the file holds in each type, most first."""
    counts = Counter[str]()
    for tensor in model.graph.initializer:
        counts[TensorProto.DataType.Name(tensor.data_type).lower()] += prod(tensor.dims)
    return dict(counts.most_common())


def write(made: Sequence[Made], output: Path, overwrite: bool) -> tuple[Path, ...]:
    """One file for each model; several are told apart by their parts' names.

    Raises:
        OutputPathError: one of them exists (without `overwrite`); then none is written.
        OutputError: the disk is full or not writable.
    """
    paths = [output_path(output, one.part.name, len(made)) for one in made]
    for path in paths:
        check_output(path, overwrite)
    for path, one in zip(paths, made, strict=True):
        with written_whole(path, overwrite) as file:
            file.write(one.content)
    return tuple(paths)


def output_path(output: Path, name: str, count: int) -> Path:
    """Where a part goes.

    Raises:
        RecipeError: its name, which is the file's word, would lead to another folder.

    >>> output_path(Path("model.onnx"), "encoder.lstm", 2).name
    'model.encoder.lstm.onnx'
    """
    if count == 1:
        return output
    if Path(name).name != name:
        raise RecipeError(
            f"export: the layer {name[:80]!r} gives its name to a file, and has a folder in it. "
            "Export the whole model: --task."
        )
    return output.with_name(f"{output.stem}.{name}{output.suffix}")
