"""Exports a compressed model to a target, such as ONNX: `export` is the entry.

    parts -> target.write -> check: target.run against torch -> files

The parts are the whole model, given a task or a module, or else each recurrent stack. Nothing is
written unless the outputs of all parts agree with torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint.recurrent import foreign_layers
from ttcompress.errors import RecipeError, TTCompressError
from ttcompress.layers.stacks import NONLINEARITIES, Nonlinearity
from ttcompress.planning.flash import ARITHMETIC, bits_of
from ttcompress.results.exported import Exported
from ttcompress.stores import AUTO
from ttcompress.system.files import check_folder, check_output, model_stem, written_whole
from ttcompress.system.progress import Progress, silent
from ttcompress.targets.calls import BATCH, TIME, FlatModule, Sizes
from ttcompress.targets.limits import FLOAT_LIMIT, ROUNDED_LIMITS, SENSITIVITY
from ttcompress.targets.parts import (
    OwnModule,
    common_part,
    own_part,
    recurrent_parts,
    task_part,
)
from ttcompress.targets.registry import DEFAULT, find_target
from ttcompress.targets.target import Arrays, Part, Target, Written
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.registry import task_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Exported", "OwnModule", "export"]

STEPS, BATCHES = (1, 7, 20), (1, 4)
"""Sequence lengths and batch sizes of the comparison, all different from the exported example's."""


@dataclass(frozen=True)
class Difference:
    """How far the outputs of one size are from the module's in float64.

    Attributes:
        sizes: of the free axes.
        value: the largest difference of any value, relative to max(1, the largest value).
        norm: the norm of the difference, relative to that of the outputs.
        own: `value` for torch itself, in the module's own precision; the largest of all batches.
    """

    sizes: Sizes
    value: float
    norm: float
    own: float

    @property
    def limit(self) -> float:
        """What is allowed for `value`."""
        return max(FLOAT_LIMIT, SENSITIVITY * self.own)


@dataclass(frozen=True, eq=False)
class CheckedPart:
    """A part, its files in memory, and how far their outputs are from torch's.

    There are no differences if the files cannot be run on this machine.
    """

    part: Part
    written: Written
    differences: tuple[Difference, ...]

    def worst(self, figure: Callable[[Difference], float]) -> float | None:
        """The largest of a figure of the differences."""
        return max(map(figure, self.differences), default=None)


def export(
    source: str | Path | CompressedModel,
    output: str | Path,
    *,
    target: str = DEFAULT,
    task: str | Task | None = None,
    module: OwnModule | None = None,
    quantize: str | None = None,
    nonlinearity: Nonlinearity = "tanh",
    opset: int | None = None,
    layers: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Exported, ...]:
    """Write a compressed model for a target, after comparing its outputs with torch's.

    Args:
        source: an artifact's path, or a `CompressedModel`.
        output: the file, or for C the folder; several recurrent layers go to several, by their
            names.
        target: a name in `ttcompress.targets.registry`.
        task: exports the whole model, as the task builds it.
        module: exports the whole model, in your module. Without either, C gets the whole model if
            its structure is known, with an output at each step. Otherwise each recurrent layer is
            exported as a function of (time, batch, input) and its state.
        quantize: "int8" multiplies in int8 (in ONNX by onnxruntime's dynamic quantisation), "int4"
            has layers of 4 bits in C; "none" is float32. None: what the model was planned for if
            its recipe has this target, else float32.
        nonlinearity: for RNNs exported by themselves; a checkpoint does not tell it.
        opset: of ONNX, 15 or more; by default 18, or 21 where its 4-bit types save bytes.
        layers: in ONNX, "scan" runs recurrent layers step by step through their factors, "lstm" by
            ONNX's operators LSTM, GRU and RNN, where a runtime multiplies the factors out; "auto",
            the default, chooses the faster for each.
        name: what C code calls the model; by default the file's name without its suffix.
        overwrite: replace existing files.
        progress: receives the part that is being exported.

    Raises:
        MissingExtraError: the extra that the target needs, such as `onnx`, is not installed.
        RecipeError: the arguments do not fit each other, the target or the model.
        TTCompressError: the export failed or its outputs differ; nothing was written.
    """
    chosen = find_target(target)
    options = {"opset": opset, "layers": layers}
    if given := {name: value for name, value in options.items() if value is not None}:
        chosen = chosen.with_options(given)
    chosen.require()
    check_quantize(chosen, quantize)
    if nonlinearity not in NONLINEARITIES:
        known = " or ".join(NONLINEARITIES)
        raise RecipeError(f"nonlinearity: expected {known}, got {nonlinearity!r}.")
    check = check_folder if chosen.folder else check_output
    check(Path(output), overwrite)  # before the work, which can be long
    compressed = source if isinstance(source, CompressedModel) else load(source)
    quantize = choose_rounding(chosen, quantize, compressed)
    parts = choose_parts(compressed, chosen, task, module, nonlinearity)
    made = write_parts(
        compressed,
        chosen,
        parts,
        quantize,
        progress,
        name or model_stem(Path(output if isinstance(source, CompressedModel) else source)),
    )
    paths = [output_path(Path(output), one.part.name, len(made)) for one in made]
    for path in paths:
        check(path, overwrite)
    for path, one in zip(paths, made, strict=True):
        if chosen.folder:
            path.mkdir(exist_ok=True)
        for name, content in one.written.files.items():
            file_path = path / name if chosen.folder else path.with_suffix(name) if name else path
            with written_whole(file_path, overwrite or chosen.folder) as file:
                file.write(content)
    return tuple(
        Exported(
            file=path,
            part=one.part.name or "model",
            bytes=sum(map(len, one.written.files.values())),
            inputs=one.part.call.inputs,
            outputs=one.part.call.outputs,
            largest_difference=one.worst(lambda difference: difference.value),
            relative_difference=one.worst(lambda difference: difference.norm),
            own_difference=one.worst(lambda difference: difference.own),
            holds=one.written.holds,
            target=chosen.title,
            memory=one.written.memory,
            errors=one.written.errors,
            unchecked="" if one.differences else chosen.cannot_run(),
            notes=one.written.notes,
        )
        for path, one in zip(paths, made, strict=True)
    )


def check_quantize(target: Target, quantize: str | None) -> str | None:
    """The type to round to; None for "none".

    Raises:
        RecipeError: the target does not round to this type.
    """
    if quantize is None or quantize == "none":
        return None
    if quantize not in target.roundings:
        known = " or ".join(map(repr, target.roundings))
        fact = f"expected {known}" if known else f"{target.name} cannot quantise"
        raise RecipeError(
            f"quantize: {fact}, got {quantize!r}. Omit the option to export in float32."
        )
    return quantize


def choose_rounding(
    target: Target, quantize: str | None, compressed: CompressedModel
) -> str | None:
    """The type to round to: as the user says, or as the model was planned for this target.

    Raises:
        RecipeError: the target does not round to this type.
    """
    recipe = compressed.report.recipe["effective"]
    if quantize is None and recipe.get("target") == target.name == "c":
        quantize = ARITHMETIC[bits_of(recipe.get("store", AUTO))]
    return check_quantize(target, quantize)


def choose_parts(
    compressed: CompressedModel,
    target: Target,
    task: str | Task | None = None,
    module: OwnModule | None = None,
    nonlinearity: Nonlinearity = "tanh",
    layer: str | None = None,
) -> Sequence[Part]:
    """The whole model if a task or a module is given, otherwise each recurrent stack.

    A target that finds models takes the whole one if its structure is known, unless `layer` names
    a stack.

    Raises:
        RecipeError: both are given, there is no such stack, or the target takes no whole models.
    """
    if layer is not None:
        stacks = {part.name: part for part in recurrent_parts(compressed, nonlinearity)}
        if layer not in stacks:
            raise RecipeError(
                f"layer: there is no recurrent layer {layer!r}. Layers are: "
                f"{', '.join(stacks) or 'none'}."
            )
        return (stacks[layer],)
    if task is not None and module is not None:
        raise RecipeError("export: use either a task or a module, not both.")
    if task is None and module is None:
        if target.finds_models and (whole := common_part(compressed, nonlinearity)):
            return (whole,)
        parts = tuple(recurrent_parts(compressed, nonlinearity))
        if not parts:
            if foreign := foreign_layers(compressed):
                raise RecipeError(
                    f"export: torch.nn has no such layer as {'; '.join(foreign)}, so it cannot be "
                    "run by itself. Run it in your own code: `ttcompress restore` writes its "
                    "weights."
                )
            raise RecipeError(
                "export: the model has no recurrent layer to export by itself. "
                "Export the whole model: with --task, or in Python with a module."
            )
        return parts
    if not target.whole_models:
        raise RecipeError(
            f"export: {target.name} takes only recurrent layers by themselves. "
            "Omit the task or the module."
        )
    if module is not None:
        return (own_part(compressed, module),)
    assert task is not None
    return (task_part(compressed, task_for(compressed, task)),)


def write_parts(
    compressed: CompressedModel,
    target: Target,
    parts: Sequence[Part],
    quantize: str | None,
    progress: Progress,
    stem: str = "model",
) -> tuple[CheckedPart, ...]:
    """Write each part of a model in memory, and compare its outputs with torch's.

    `stem` is what the user calls the model; a part of several adds its own name.

    Raises:
        RecipeError: the target does not take a part.
        TTCompressError: a part cannot be written, does not run, or its outputs are not torch's.
    """
    made = []
    for done, part in enumerate(parts):
        progress("export", done, len(parts), part.name)
        facts = {
            "ttcompress": version("ttcompress"),
            "source_sha256": compressed.report.source["sha256"],
            "compression_factor": f"{compressed.report.totals['weights'].compression_factor:.2f}",
            "part": part.name or "model",
        }
        try:
            _refuse(part, target)
            name = f"{stem} {part.name}" if len(parts) > 1 else stem
            written = target.write(part, facts, quantize, name)
            differences = () if target.cannot_run() else check(target, written, part)
            if differences:
                _judge(differences, quantize)
        except TTCompressError as error:
            raise error.at(part.name or "export") from error
        made.append(CheckedPart(part, written, differences))
    progress("export", len(parts), len(parts))
    return tuple(made)


def _refuse(part: Part, target: Target) -> None:
    """Refuse a part that the target does not take."""
    if part.stack is not None and part.stack.kind not in target.kinds:
        raise RecipeError(
            f"{target.name} does not take layers of kind {part.stack.kind}, "
            f"only {', '.join(sorted(target.kinds))}. Choose another target with --as."
        )
    for _, stored in part.weights:
        if (store := stored.parts[0].store.name) not in target.stores:
            raise RecipeError(
                f"{target.name} does not take the store {store} of {stored.weight.name}, only "
                f"{', '.join(sorted(target.stores))}. Compress with --store, or choose another "
                "target with --as."
            )


def check(target: Target, written: Written, part: Part, seed: int = 0) -> tuple[Difference, ...]:
    """Run the files on random inputs of several sizes, and compare the outputs with torch's.

    The truth is what the module gives in float64, or in its own precision if it cannot run so.

    Raises:
        RecipeError: the module does not run at other sizes than the example's, or gives other
            outputs at every call.
        TTCompressError: the files do not run, or their outputs have other shapes than torch's.
    """
    call = part.call
    others = [name for name in call.free if name not in (TIME, BATCH)]
    sizes = [
        {TIME: steps, BATCH: batch, **{name: steps + k for k, name in enumerate(others, 1)}}
        for steps, batch in product(STEPS, BATCHES)
    ]
    sizes = [{name: size[name] for name in call.free} for size in sizes]
    cases = [call.random_inputs(size, seed) for size in sizes]
    flat = FlatModule(part.module, call).eval()
    in_torch = _run_torch(flat, cases, sizes)
    again = _run_torch(flat, cases[-1:], sizes[-1:])
    if max(value for value, _ in _differences(again[0], in_torch[-1])) > FLOAT_LIMIT:
        raise RecipeError(
            "the module gives other outputs when it is called again with the same inputs, so its "
            "export cannot be checked. Remove dropout, noise and kept states from its forward."
        )
    truth = _run_in_float64(part, cases, sizes) or in_torch
    try:
        found = list(target.run(written, call, [[x.numpy() for x in inputs] for inputs in cases]))
    except Exception as error:  # exceptions of runtimes have no common base
        raise TTCompressError(f"the exported model does not run: {error}.") from error
    own = dict[int, float]()  # by steps: one batch alone may happen to agree
    for size, ours, exact in zip(sizes, in_torch, truth, strict=True):
        steps = size.get(TIME, 0)
        own[steps] = max(own.get(steps, 0.0), *(value for value, _ in _differences(ours, exact)))
    made = []
    for size, theirs, exact in zip(sizes, found, truth, strict=True):
        # A module may return states that the call does not name, and that a target leaves out.
        named = exact[: len(theirs)] if len(theirs) == len(call.outputs) else exact
        values, norms = zip(*_differences(theirs, named), strict=True)
        made.append(Difference(size, max(values), max(norms), own[size.get(TIME, 0)]))
    return tuple(made)


def _run_torch(
    flat: FlatModule, cases: Sequence[tuple[Tensor, ...]], sizes: Sequence[Sizes]
) -> list[list[NDArray[Any]]]:
    """The outputs of a module for each case."""
    outputs = []
    for size, inputs in zip(sizes, cases, strict=True):
        try:
            with torch.no_grad():
                outputs.append([output.numpy() for output in flat(*inputs)])
        except Exception as error:  # of a user's code
            shown = ", ".join(f"{name} {value}" for name, value in size.items())
            raise RecipeError(
                f"the module does not run with {shown}: {str(error) or type(error).__name__}. "
                "Its forward must take any size of at least 1 on free axes; see OwnModule for "
                "what stands for lengths and positions in the example."
            ) from error
    return outputs


def _run_in_float64(
    part: Part, cases: Sequence[tuple[Tensor, ...]], sizes: Sequence[Sizes]
) -> list[list[NDArray[Any]]] | None:
    """The outputs with everything in float64; None if the module insists on another precision."""
    wide = [tuple(x.double() if x.is_floating_point() else x for x in case) for case in cases]
    try:
        module = deepcopy(part.module).double()
        return _run_torch(FlatModule(module, part.call).eval(), wide, sizes)
    except RecipeError:
        return None


def _differences(found: Arrays, wanted: Arrays) -> Iterator[tuple[float, float]]:
    """For each output: the largest difference of a value, relative to max(1, largest value), and
    the relative norm of the difference. What is not finite must be the same in both.

    Raises:
        TTCompressError: the outputs have other shapes.
    """
    if (shapes := [x.shape for x in found]) != (expected := [x.shape for x in wanted]):
        raise TTCompressError(
            f"the exported model's outputs have the shapes {shapes}, but torch's have {expected}."
        )
    for one, other in zip(found, wanted, strict=True):
        ours, theirs = one.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(theirs)
        if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
            yield np.inf, np.inf
            continue
        gap = np.abs(ours[finite] - theirs[finite])
        size = max(float(np.linalg.norm(theirs[finite])), float(np.finfo(np.float32).tiny))
        largest = max(1.0, float(np.abs(theirs[finite]).max(initial=0)))
        if not np.isfinite(gap).all():
            yield np.inf, np.inf
            continue
        yield float(gap.max(initial=0)) / largest, float(np.linalg.norm(gap)) / size


def _judge(found: Sequence[Difference], quantize: str | None) -> None:
    """Refuse outputs that differ by more than rounding explains."""
    if quantize is None:
        worst = max(found, key=lambda one: one.value / one.limit)
        value, limit, cure = worst.value, worst.limit, "This is a defect: please report it."
    else:
        worst = max(found, key=lambda one: one.norm)
        value, limit = worst.norm, ROUNDED_LIMITS[quantize]
        cure = "Export it in float: --quantize none."
    if value > limit:
        shown = ", ".join(f"{name} {size}" for name, size in worst.sizes.items())
        raise TTCompressError(
            f"the exported model's outputs differ from torch's by {value:.2g} ({shown}), but at "
            f"most {limit:.2g} is allowed; torch's own differ by {worst.own:.2g} from those in "
            f"float64. Nothing was written. {cure}"
        )


def output_path(output: Path, name: str, count: int) -> Path:
    """The file or folder of a part, named after it if there are several.

    Raises:
        RecipeError: the part's name, which comes from the checkpoint, would lead to another folder.

    >>> output_path(Path("model.onnx"), "encoder.lstm", 2).name
    'model.encoder.lstm.onnx'
    """
    if count == 1:
        return output
    if Path(name).name != name:
        raise RecipeError(
            f"export: the layer's name {name[:80]!r} cannot be part of a file's name. "
            "Export the whole model with --task."
        )
    return output.with_name(f"{output.stem}.{name}{output.suffix}")
