"""The kernel: rounded products as numpy has them, the same bits on every instruction set, tanh."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ttcompress.targets.c.compiler import compile_files
from ttcompress.targets.c.description import Description, Map
from ttcompress.targets.c.library import States
from ttcompress.targets.c.packing import MapEntry, MatrixEntry, Packed, pack

Floats = NDArray[Any]
CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def unpacked(packed: Packed, entry: MatrixEntry, gates: int) -> Floats:
    """The rounded matrix, from the bytes of its strips by the layout that the kernel documents."""
    codes, start, strips = packed.arrays[entry.weights], 0, []
    columns = -(-entry.columns // 8) * 8
    for top in range(0, entry.rows, entry.strip):
        height = min(entry.strip, entry.rows - top)
        size = height * columns * entry.bits // 8
        strip = codes[start : start + size]
        if entry.bits == 8:
            levels = strip.reshape(-1, height, 4).transpose(1, 0, 2).reshape(height, -1) - 64.0
        else:
            eights = strip.reshape(-1, height, 4).transpose(1, 0, 2)
            halves = np.stack([eights & 15, eights >> 4], axis=2)
            levels = 2.0 * halves.reshape(height, -1) - 15
        strips.append(levels[:, : entry.columns])
        start += size
    found = np.concatenate(strips)
    if entry.scale:
        found = found * packed.arrays[entry.scale][: entry.rows, None]
    units = np.arange(entry.rows).reshape(gates, -1)
    pieces = np.split(units, range(16, units.shape[1], 16), axis=1) if gates > 1 else [units]
    order = np.concatenate([piece.reshape(-1) for piece in pieces])
    result = np.empty_like(found)
    result[order] = found
    return result


def rounded(packed: Packed, entry: MatrixEntry, x: Floats) -> Floats:
    """A vector as this matrix multiplies it."""
    if entry.column:
        x = x * packed.arrays[entry.column][: entry.columns]
    largest = np.abs(x).max()
    return np.rint(x * 127 / largest) * largest / 127 if largest else x


def product(packed: Packed, entry: MapEntry, gates: int, x: Floats) -> Floats:
    """A map of a vector, with the vector rounded before each matrix."""
    if entry.down is not None:
        x = unpacked(packed, entry.down, 1) @ rounded(packed, entry.down, x)
    return unpacked(packed, entry.up, gates) @ rounded(packed, entry.up, x)


def reference(packed: Packed, x: Floats) -> Floats:
    """What a stack gives, in float64 but for its rounding."""
    for layer in packed.layers:
        one = layer.direction
        h, c, outputs = np.zeros(one.hidden), np.zeros(one.hidden), []
        for step in x:
            ours = product(packed, layer.input, one.gates, step) + one.input_bias
            theirs = product(packed, layer.recurrent, one.gates, h)
            if one.hidden_bias is not None:
                theirs = theirs + one.hidden_bias
            if one.cell == "lstm":
                i, f, g, o = np.split(ours + theirs, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            elif one.cell == "gru":
                (r, z, n), (s, y, m) = np.split(ours, 3), np.split(theirs, 3)
                update = sigmoid(z + y)
                h = (1 - update) * np.tanh(n + sigmoid(r + s) * m) + update * h
            else:
                h = np.tanh(ours + theirs) if one.cell == "rnn_tanh" else (ours + theirs).clip(0)
            outputs.append(h)
        x = np.stack(outputs)
    return x


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rank", [0, 11])
@pytest.mark.parametrize("cell", CELLS)
def test_rounded_products_are_those_of_numpy(make, build, cell, rank, bits) -> None:
    description = make(cell, 13, 21, rank)
    x = np.random.default_rng(1).standard_normal((3, 1, 13)).astype(np.float32)
    y = States(build(description, bits), 1).run(x)[:, 0]
    wanted = reference(pack(description, bits), x[:, 0].astype(np.float64))
    # A value halfway between two codes may fall to either side, by a step of 1/127.
    assert np.abs(y - wanted).max() < 0.01
    assert np.median(np.abs(y - wanted)) < 1e-4


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rank", [0, 11])
def test_what_rounding_lost_is_told_by_weight(make, rank, bits) -> None:
    packed = pack(make("gru", 37, 21, rank), bits)
    (layer,) = packed.layers
    for entry, exact in (
        (layer.input, layer.direction.input),
        (layer.recurrent, layer.direction.recurrent),
    ):
        held = unpacked(packed, entry.up, 3)
        if entry.up.column:
            held = held * packed.arrays[entry.up.column][: entry.up.columns]
        whole = exact.up
        if entry.down is not None and exact.down is not None:
            held, whole = held @ unpacked(packed, entry.down, 1), exact.up @ exact.down
        lost = np.linalg.norm(whole - held) / np.linalg.norm(whole)
        assert packed.errors[exact.name] == pytest.approx(lost, rel=1e-5)
        assert 0.001 < lost < {8: 0.03, 4: 0.3}[bits]
    assert packed.errors.keys() == {"input 0", "recurrent 0"}
    assert not pack(make("gru", 37, 21, rank), 32).errors


@pytest.fixture
def of_all_cells(make) -> Description:
    """A model with a stack of each kind, one after another."""
    stacks = tuple(make(cell, 37, 37, 11).directions for cell in CELLS)
    return replace(make("lstm", 37, 37), stacks=stacks)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
def test_every_instruction_set_gives_the_same_bits(
    of_all_cells, build, instruction_sets, bits
) -> None:
    x = np.random.default_rng(1).standard_normal((9, 5, 37)).astype(np.float32)
    exact = ("-ffp-contract=off",)
    first = States(build(of_all_cells, bits, (*instruction_sets["plain"], *exact)), 5).run(x)
    assert np.abs(first).max() > 0.1
    for name, flags in instruction_sets.items():
        library = build(of_all_cells, bits, (*flags, *exact, "-DMODEL_TOGETHER=4"))
        assert np.array_equal(States(library, 5).run(x), first), name


@pytest.mark.slow
def test_floats_agree_on_every_instruction_set(of_all_cells, build, instruction_sets) -> None:
    x = np.random.default_rng(1).standard_normal((9, 5, 37)).astype(np.float32)
    first = States(build(of_all_cells, 32, instruction_sets["plain"]), 5).run(x)
    for flags in instruction_sets.values():
        y = States(build(of_all_cells, 32, (*flags, "-DMODEL_TOGETHER=4")), 5).run(x)
        np.testing.assert_allclose(y, first, atol=2e-5)


def test_what_is_zero_stays_zero_in_few_bits(make, build) -> None:
    whole = make("rnn_relu", 24, 24)
    (layer,) = whole.directions
    up = layer.input.up.copy()
    up[5], up[:, 7] = 0, 0
    zeroed = replace(
        layer, input=Map("input", up), recurrent=Map("recurrent", 0 * up), input_bias=None
    )
    x = np.zeros((1, 2, 24), np.float32)
    x[0, 0] = 1
    x[0, 1, 7] = 1
    for bits in (8, 4):
        y = States(build(replace(whole, stacks=((zeroed,),)), bits), 2).run(x)
        assert y[0, 0, 5] == 0 and np.abs(y[0, 0]).max() > 0.1
        assert not y[0, 1].any()


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_never_hidden(make, build, bits, bad) -> None:
    states = States(build(make("lstm", 13, 21, 7), bits), 2)
    x = np.ones((3, 2, 13), np.float32)
    x[1, 0, 4] = bad
    y = states.run(x)
    assert np.isfinite(y[:, 1]).all() and np.isfinite(y[0, 0]).all()
    if np.isnan(bad) or bits != 32:  # in float, gates of infinity are 0 and 1
        assert np.isnan(y[1:, 0]).all()
    states.reset([0])
    assert np.isfinite(states.run(np.ones((1, 2, 13), np.float32))).all()


CURVES = """
#include "model.c"
#include <math.h>
#include <stdio.h>

int main(void)
{
    double tangent = 0, curve = 0;
    for (int k = -1000000; k <= 1000000; k++) {
        const float x = (float)k * 2e-5f;
        const ratio t = tanh_of(spread(x)), s = sigmoid_of(spread(x));
        float each[2][WIDE];
        store(each[0], t.over / t.under);
        store(each[1], 0.5f * s.over / s.under);
        const double off = fabs(each[0][0] - tanh(x)), next = fabs(each[1][0] - 1 / (1 + exp(-x)));
        if (!(off <= tangent)) tangent = off;
        if (!(next <= curve)) curve = next;
    }
    printf("%.9g %.9g %.9g", tangent, curve, TANH_ERROR);
    return 0;
}
"""


@pytest.mark.parametrize("bits", [32, 8])
def test_tanh_and_sigmoid_are_within_their_stated_error(
    make, files_of, compiler, tmp_path: Path, bits
) -> None:
    files = files_of(make("lstm", 3, 3), bits) | {"curves.c": CURVES.encode()}
    sources = ("curves.c", "model_weights.c")
    compile_files(files, sources, tmp_path / "curves", ("-O2",), link=("-lm",))
    said = subprocess.run([str(tmp_path / "curves")], capture_output=True, text=True, check=True)
    tangent, curve, stated = map(float, said.stdout.split())
    assert stated / 3 < tangent <= stated
    assert curve <= stated / 2 * 1.5  # half of it, and rounding
    assert stated == {32: 5e-7, 8: 5e-5}[bits]
