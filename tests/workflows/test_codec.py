"""The yardstick of `compare` and `sweep`, at the bytes of the budget: by a stand-in, and real."""

from __future__ import annotations

import sys
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import ttcompress
from ttcompress.errors import PlanError, RecipeError
from ttcompress.recipe import recipe_from
from ttcompress.tasks.evaluation import measure_metrics
from ttcompress.workflows import codec
from ttcompress.workflows.codec import Codec, Matrix, code, load_codec
from ttcompress.workflows.compare import compare
from ttcompress.workflows.job import prepare

installed = pytest.mark.skipif(
    find_spec("nncodec") is None,
    reason="NNCodec is not installed: pip install --no-deps nncodec",
)
RECIPE = {
    "version": 1,
    "budget": {"factor": 2},
    "calibration": {"synthetic": 8},
    "rules": [
        {"weights": "embedding", "format": "keep"},
        {"weights": "linear", "format": "dense", "store": "int8"},
    ],
    "default": "decompose",
}


def stand_in() -> Codec:
    """Not NNCodec: rounds to a step of the same parameter, and packs integers by zlib."""

    def encode(matrix: Matrix, parameter: int) -> bytes:
        step = 2.0 ** (parameter / 128)
        levels = np.rint(matrix / step).astype(np.int32)
        return np.array([*matrix.shape, parameter], np.int32).tobytes() + zlib.compress(levels)

    def decode(stream: bytes) -> Matrix:
        rows, columns, parameter = np.frombuffer(stream[:12], np.int32).tolist()
        levels = np.frombuffer(zlib.decompress(stream[12:]), np.int32)
        return (levels.reshape(rows, columns) * 2.0 ** (parameter / 128)).astype(np.float32)

    return Codec(encode, decode)


@pytest.fixture
def standing_in(monkeypatch) -> None:
    monkeypatch.setattr(codec, "load_codec", stand_in)


def test_the_streams_meet_the_bytes_and_the_report_says_what_they_lost(case, standing_in) -> None:
    job = prepare(case.checkpoint, recipe_from(RECIPE), task=case.task)
    found = code(job, 4)
    totals = found.report.totals["weights"]
    assert 4 <= totals.compression_factor < 4.1
    coded = [entry for entry in found.report.weights if entry.in_budget]
    assert {entry.role for entry in coded} == {"recurrent"}
    assert totals.bytes_after == sum(entry.bytes_after for entry in coded)
    for entry in coded:
        source = case.checkpoint.tensor(entry.name).double()
        lost = (found.tensor(entry.name).double() - source).norm() / source.norm()
        assert 0 < entry.relative_error == pytest.approx(float(lost))
    grown = found.report.totals["model"].bytes_after - totals.bytes_after
    assert grown == sum(e.bytes_after for e in found.report.weights if not e.in_budget) + sum(
        kept.bytes for kept in found.report.kept
    )


def test_its_cell_stands_beside_the_others(case, standing_in) -> None:
    found = compare(case.path, [3], RECIPE, task=case.task)
    cell = next(cell for cell in found.rows[0].cells if cell.method == "codec")
    job = prepare(case.checkpoint, recipe_from(RECIPE), task=case.task)
    assert cell.metric == measure_metrics(case.task, code(job, 3))[found.metric]
    assert cell.metric != found.dense.metric and 3 <= cell.factor < 3.1
    assert cell.multiply_adds == found.dense.multiply_adds and cell.params == found.dense.params


def test_what_nothing_is_left_of_is_out_of_reach(case, standing_in) -> None:
    with pytest.raises(PlanError, match="factor 100000 is out of reach: NNCodec takes"):
        code(prepare(case.checkpoint, recipe_from(RECIPE)), 100_000)


def test_where_it_is_not_installed_the_cell_says_so(tiny_checkpoint, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "nncodec.nnc_core", None)
    monkeypatch.setitem(sys.modules, "nncodec", None)
    found = compare(tiny_checkpoint, [2])
    cell = next(cell for cell in found.rows[0].cells if cell.method == "codec")
    assert cell.factor is None and "NNCodec is not installed" in cell.why


def test_a_sweep_has_its_points_but_none_to_pick(case, tmp_path, standing_in) -> None:
    given = {"factors": [3, 100_000], "formats": ["codec"], "folder": tmp_path / "points"}
    found = ttcompress.sweep(case.path, RECIPE, **given)
    reached, missed = found.points
    assert (reached.name, found.exit_code) == ("codec@3", 0)
    assert 3 <= reached.outcome.factor < 3.1 and "out of reach" in missed.outcome.error
    assert 0 < reached.figures.largest_error < 1
    assert reached.figures.bytes < found.dense.bytes
    assert not reached.path.exists()
    with pytest.raises(RecipeError, match="codec@3: is for comparison only"):
        ttcompress.pick(found, "codec@3", tmp_path / "picked.safetensors")


@installed
@pytest.mark.filterwarnings("default")
def test_what_nncodec_codes_is_decoded_within_its_step() -> None:
    found, step = load_codec(), 2.0**-4
    matrix = torch.randn(16, 24, generator=torch.Generator().manual_seed(0)).numpy()
    streams = {octave: found.encode(matrix, octave * 128) for octave in (-4, -3)}
    assert len(streams[-3]) < len(streams[-4]) < matrix.nbytes / 4
    for octave, stream in streams.items():
        decoded = found.decode(stream)
        assert decoded.shape == matrix.shape
        assert 0 < abs(decoded - matrix).max() <= 2 * step * 2.0 ** (octave + 4)
