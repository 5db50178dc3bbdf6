"""Codes weights by NNCodec, to compare with: `code`, at the bytes that a factor leaves.

NNCodec is the reference software of ISO/IEC 15938-17, Neural Network Coding. It decomposes nothing
and sees no data: it quantises whole matrices by a trellis, under one step for all of them, and
codes the integers arithmetically in adaptive contexts. It is a yardstick and never a dependency:
nothing that it codes becomes an artifact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from io import StringIO
from math import frexp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttcompress.artifact import CompressedModel
from ttcompress.errors import PlanError
from ttcompress.model.report import Totals
from ttcompress.recipe import match
from ttcompress.trains.stored import StoredWeight, measure_errors
from ttcompress.trains.train import ROWS
from ttcompress.workflows.compress import build
from ttcompress.workflows.job import Job
from ttcompress.workflows.methods import CODEC, method_recipe

Matrix = NDArray[np.float32]  # (rows, columns)

DENSITY = 7
"""The finest that the standard allows: 2 ** 7 steps in an octave, so that any bytes are met."""

OCTAVES = range(-20, 4)
"""Where the step is sought, in octaves relative to the largest weight: at the last, all are 0."""

_NAME = "weight"

_HEADER = {
    "cabac_unary_length_minus1": 10,
    "param_opt_flag": True,
    "partial_data_counter": 0,
    "general_profile_idc": 1,
    "node_id_present_flag": 1,
    "device_id": 0,
    "mps_parent_signalling_enabled_flag": 0,
    "parent_node_id_present_flag": 0,
    "temporal_context_modeling_flag": 0,
    "row_skip_enabled_flag": 1,
}
"""What `nncodec.nn.encode` sets by default for a model that is not an update of another."""


@dataclass(frozen=True)
class Codec:
    """Codes one matrix under a quantisation parameter, `DENSITY` to the octave, and decodes it."""

    encode: Callable[[Matrix, int], bytes]
    decode: Callable[[bytes], Matrix]


def load_codec() -> Codec:
    """Import NNCodec.

    Its inner modules are used, since the outer ones also import torchvision, OpenCV and pandas,
    and because these alone take a quantisation parameter finer than four to the octave.

    Raises:
        PlanError: it is not installed.
    """
    try:  # deferred: it is installed only where it is to be compared with
        from nncodec.nnc_core import approximator, coder, nnr_model
    except ImportError as error:
        raise PlanError(
            f"NNCodec is not installed ({error}): pip install --no-deps nncodec"
        ) from error

    def encode(matrix: Matrix, parameter: int) -> bytes:
        info = nnr_model.NNRModel({_NAME: matrix}).model_info
        data = approximator.init_approx_data({_NAME: matrix}, info, DENSITY, scan_order=0)
        chosen = approximator.ApproxInfo(
            data,
            info,
            approx_method="uniform",
            codebook_mode=0,
            qp=parameter,
            opt_qp=False,
            disable_dq=False,
            cabac_unary_length_minus1=_HEADER["cabac_unary_length_minus1"],
            lambda_scale=0,
        ).approx_info
        with redirect_stdout(StringIO()):  # it prints what it clips
            quantised = approximator.approx(chosen, info, data, _HEADER)
            return bytes(coder.encode(dict(_HEADER), info, quantised)[0])

    def decode(stream: bytes) -> Matrix:
        keys = ("parameter_type", "parameter_dimensions", "parameter_index", "block_identifier")
        info: dict[str, Any] = {key: {} for key in keys} | {
            key: defaultdict(dict) for key in ("performance_maps", "performance_map_flags")
        }
        found = coder.decode(bytearray(stream), info, hls_stats={})
        approximator.rec(found)
        matrix: Matrix = found["parameters"][_NAME]
        return matrix

    return Codec(encode, decode)


def code(job: Job, factor: float) -> CompressedModel:
    """Code every weight that shares the budget, under the finest step that it has bytes for.

    The report says what the streams take, one for each weight; the tensors are the decoded ones.

    Args:
        job: what to compress. Of its recipe, the budget, calibration and fine-tuning do not apply.
        factor: compression factor of the weights that share the budget.

    Raises:
        PlanError: NNCodec is not installed, or the factor is out of reach.
    """
    codec, weights = load_codec(), job.checkpoint.weights
    shared = {one.weight.name for one in match(job.recipe, weights) if one.shares_budget}
    recipe = method_recipe(CODEC, job.recipe, factor, lambda: weights)
    model = build(replace(job, recipe=recipe, calibration=None))
    stored = [one for one in model.weights if one.weight.name in shared]
    matrices = [one.dense(torch.float32).numpy() for one in stored]
    allowed = sum(one.weight.bytes for one in stored) / factor
    octave = frexp(max((float(abs(matrix).max()) for matrix in matrices), default=0.0))[1]
    parameters = range((octave + OCTAVES.start) << DENSITY, (octave + OCTAVES.stop) << DENSITY)

    def saved(parameter: int) -> int:
        return -sum(len(codec.encode(matrix, parameter)) for matrix in matrices)

    index = bisect_left(parameters, -allowed, key=saved)
    if index == len(parameters):
        raise PlanError(
            f"factor {factor:g} is out of reach: NNCodec takes {-saved(parameters[-1]):,} bytes "
            "where every weight is 0"
        )
    return _with_decoded(
        job, model, stored, [codec.encode(m, parameters[index]) for m in matrices], codec
    )


def _with_decoded(
    job: Job,
    model: CompressedModel,
    coded: Sequence[StoredWeight],
    streams: Sequence[bytes],
    codec: Codec,
) -> CompressedModel:
    """The model with the numbers that streams decode to, and a report of their bytes and errors."""
    changed, errors, sizes = [], {}, {}
    for one, stream in zip(coded, streams, strict=True):
        name, matrix = one.weight.name, torch.from_numpy(codec.decode(stream))
        source = job.checkpoint.tensor(name)
        changed.append(replace(one, parts=(one.parts[0].store.encode(matrix),)))
        errors[name] = measure_errors(source, torch.split(matrix.double(), ROWS), one.weight)
        sizes[name] = len(stream)
    model, report = model.with_weights(changed), model.report
    entries = tuple(
        replace(one, in_budget=True, **vars(errors[one.name])) if one.name in errors else one
        for one in report.weights
    )
    sums = {
        key.name: sum(getattr(one, key.name) for one in entries if one.name in errors)
        for key in fields(Totals)
        if key.init
    }
    totals = dict(report.totals) | {"weights": Totals(**sums)}
    counted = replace(report, weights=entries, totals=totals).with_sizes(sizes)
    return replace(model, report=counted)
