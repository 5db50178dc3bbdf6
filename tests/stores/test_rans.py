"""Coded integers: they come back, in few bytes, and whatever else is in a stream is refused."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ttcompress.stores.rans import decode, encode
from ttcompress.stores.rates import (
    CLASSES,
    MOST_SHAPE,
    MOST_SYMBOL,
    estimate_bits,
    frequencies,
    most_bytes,
)

INT32 = np.iinfo(np.int32)
few_sides = arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)


def scales_of(rows: int, length: int, scale: float) -> np.ndarray:
    """Scales that differ by four octaves from the first row to the last, and by three in a row."""
    return scale * np.geomspace(4, 0.25, rows)[:, None] * np.geomspace(0.35, 2.8, length)


def laplace(rows: int, length: int, scale: float = 2.0) -> np.ndarray:
    """Codes with these scales."""
    drawn = np.random.default_rng(0).laplace(0, scales_of(rows, length, scale))
    return drawn.round().astype(np.int32)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.int32, few_sides, elements=st.integers(INT32.min, INT32.max))
    | arrays.arrays(np.int32, few_sides, elements=st.integers(-3, 3))
)
def test_any_integers_come_back(codes: np.ndarray) -> None:
    stream = encode(codes)
    found = decode(stream, *codes.shape)
    assert stream.dtype == np.uint8 and stream.ndim == 1
    assert found.dtype == np.int32
    assert np.array_equal(found, codes)
    assert np.array_equal(encode(codes), stream)
    assert len(stream) <= most_bytes(codes.size)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 30), st.integers(1, 200), st.floats(0.1, 1e8), st.integers(1, 6))
def test_heavy_tails_come_back(rows: int, length: int, scale: float, power: int) -> None:
    normal = np.random.default_rng(length).standard_normal((rows, length)) ** power
    codes = np.clip(scale * normal, INT32.min, INT32.max).round().astype(np.int32)
    assert np.array_equal(decode(encode(codes), rows, length), codes)


@pytest.mark.parametrize("shape", [(3, 20_000), (300, 300), (1, 16_384), (5, 0), (0, 5)], ids=str)
def test_lanes_that_do_not_divide_the_values(shape: tuple[int, int]) -> None:
    codes = laplace(*shape)
    assert np.array_equal(decode(encode(codes), *shape), codes)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64])
def test_the_type_of_the_integers_does_not_matter(dtype: type) -> None:
    codes = np.arange(-128, 127).reshape(5, 51)
    assert np.array_equal(encode(codes.astype(dtype)), encode(codes.astype(np.int32)))


def test_a_transposed_matrix_comes_back() -> None:
    codes = laplace(40, 90).T
    assert np.array_equal(decode(encode(codes), 90, 40), codes)


@pytest.mark.parametrize("scale", [0.4, 2, 15, 1000])
def test_the_bytes_are_those_of_the_entropy(scale: float) -> None:
    # The entropy of Laplace values rounded to integers, value by value from their known scales.
    codes = laplace(120, 900, scale)
    scales = scales_of(120, 900, scale)
    inner, outer = np.exp(-0.5 / scales), np.exp(-1 / scales)
    here = np.where(codes == 0, 1 - inner, inner * (1 - outer) / 2 * outer ** (abs(codes) - 1.0))
    ideal = -np.log2(here).sum() / 8
    sides = 2.5 * (120 + 900) / 8
    assert 0.99 * ideal < len(encode(codes)) < 1.012 * ideal + sides


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 80), st.integers(1, 400), st.sampled_from([0.2, 1, 5, 300, 1e5]))
def test_bytes_are_estimated_without_coding(rows: int, length: int, scale: float) -> None:
    codes = laplace(rows, length, scale)
    bits = 8 * len(encode(codes))
    assert (
        abs(estimate_bits(codes) - bits) < 0.002 * bits + 40
    )  # up to 16 in each state, 7 beside them


@pytest.mark.parametrize("largest", [4, 5, 90])
def test_bytes_of_values_that_no_density_fits_are_estimated_too(largest: int) -> None:
    # Uniform: the flatter the better, so that classes and offsets go as far up as they can.
    codes = np.random.default_rng(0).integers(-largest, largest + 1, (384, 96))
    size = len(encode(codes))
    assert estimate_bits(codes) / 8 == pytest.approx(size, rel=0.003)
    assert size < 1.02 * codes.size * log2(2 * largest + 1) / 8


def test_rows_and_columns_may_differ_in_scale() -> None:
    codes = laplace(100, 400)
    mixed = np.random.default_rng(1).permutation(codes.ravel()).reshape(codes.shape)
    assert len(encode(codes)) < 0.9 * len(encode(mixed))


def test_rows_of_zeros_and_small_arrays_cost_little() -> None:
    codes = laplace(50, 1000)
    padded = np.insert(codes, [10, 10, 30], 0, axis=0)
    assert len(encode(padded)) < len(encode(codes)) + 16
    assert len(encode(np.zeros((1000, 1000), int))) < 300
    few = np.array([[1, -1, 0, 2, 0, 0, -1, 1, 0, 1, -2, 0, 0, 1, -1, 0]])
    assert len(encode(few)) <= 12 + 16 * log2(5) / 8


def test_one_outlier_does_not_make_the_others_dear() -> None:
    codes = laplace(50, 1000)
    plain = len(encode(codes))
    codes[20, 30] = INT32.min
    assert len(encode(codes)) < 1.01 * plain


@settings(max_examples=100, deadline=None)
@given(st.integers(0, MOST_SHAPE), st.integers(0, MOST_SYMBOL))
def test_frequencies_leave_none_out_and_add_up(shape: int, top: int) -> None:
    found = frequencies(shape, top, np.arange(CLASSES))
    assert found.min() >= 1
    assert (found[:, 0] + 2 * found[:, 1:].sum(1) == 1 << 14).all()


def test_frequencies_are_the_same_on_every_machine() -> None:
    # Pinned: another value is another format.
    digest = hashlib.sha256()
    for shape in range(MOST_SHAPE + 1):
        for top in (2, 20, MOST_SYMBOL):
            digest.update(frequencies(shape, top, np.arange(CLASSES)).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "3b067afe1b7a9901"


def test_a_stored_stream_stays_readable() -> None:
    stored = bytes.fromhex("1127181d008c64292752111b802000cca26ce9426d02c5")
    wanted = [[0, 1, -1, 2, 0, 0, 17, -300], [40, -1000, 70, 3, 22, -16, 15, 100]]
    assert decode(np.frombuffer(stored, np.uint8), 2, 8).tolist() == wanted


STREAMS = {
    "small": laplace(3, 9, 0.4),
    "raw bits": laplace(6, 20, 200),
    "lanes": laplace(40, 450, 0.1),
}


@pytest.mark.parametrize("codes", STREAMS.values(), ids=STREAMS)
def test_damage_is_refused_or_gives_the_shape(codes: np.ndarray) -> None:
    stream = encode(codes)
    rng, refused = np.random.default_rng(0), []
    for place in sorted({*range(13), *range(0, len(stream), max(1, len(stream) // 20))}):
        damaged = stream.copy()
        damaged[place] ^= rng.integers(1, 256, dtype=np.uint8)
        try:
            assert decode(damaged, *codes.shape).shape == codes.shape
            refused.append(False)
        except ValueError:
            refused.append(True)
    if abs(codes).max() < 16:  # else there are raw bits, which nothing checks
        assert np.mean(refused) > 0.9


@pytest.mark.parametrize("codes", STREAMS.values(), ids=STREAMS)
def test_a_stream_of_another_length_or_shape_is_refused(codes: np.ndarray) -> None:
    stream = encode(codes)
    for length in range(0, len(stream), max(1, len(stream) // 12)):
        with pytest.raises(ValueError, match=r"coded integers|too few"):
            decode(stream[:length], *codes.shape)
    for tail in ([0], [0, 0], [255, 255, 255]):
        with pytest.raises(ValueError, match="coded integers"):
            decode(np.append(stream, np.array(tail, np.uint8)), *codes.shape)
    rows, length = codes.shape
    with pytest.raises(ValueError, match="coded integers"):
        decode(stream, rows, length + 1)


@pytest.mark.parametrize(("rows", "length"), [(10**6, 10**6), (10**12, 0), (0, 10**12)])
def test_a_shape_that_no_such_stream_can_have_is_refused_at_once(rows: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"too few for {rows} x {length} codes"):
        decode(encode(laplace(3, 9)), rows, length)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, MOST_SHAPE + 1), (1, MOST_SYMBOL + 1), (2, CLASSES), (3, CLASSES), (4, CLASSES)],
)
def test_a_header_that_means_nothing_is_refused(place: int, value: int) -> None:
    stream = encode(laplace(3, 9))
    stream[place] = value
    with pytest.raises(ValueError, match="cannot begin with"):
        decode(stream, 3, 9)


def test_a_class_out_of_range_is_refused() -> None:
    stream = encode(laplace(5, 50)[::-1])  # from row to row the class rises
    stream[2] = CLASSES - 1  # of the first row
    with pytest.raises(ValueError, match="class is out of range"):
        decode(stream, 5, 50)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 30), st.integers(0, 30))
def test_any_bytes_are_refused_or_give_the_shape(data: bytes, rows: int, length: int) -> None:
    stream = np.frombuffer(data, np.uint8)
    with suppress(ValueError):
        assert decode(stream, rows, length).shape == (rows, length)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62])
def test_an_integer_beyond_int32_is_not_coded(value: int) -> None:
    with pytest.raises(ValueError, match="beyond int32"):
        encode(np.array([[0, value]]))


def test_raw_bits_that_are_not_used_are_zero() -> None:
    stream = encode(np.array([[20, 0]]))  # of the last byte, two bits are
    stream[-1] |= 4
    with pytest.raises(ValueError, match="damaged"):
        decode(stream, 1, 2)


def test_raw_bits_that_are_missing_are_refused() -> None:
    stream = encode(np.full((1, 40), 1 << 30))  # 28 raw bits each, and nearly nothing else
    with pytest.raises(ValueError, match="end before the last"):
        decode(stream[:60], 1, 40)


def test_a_code_beyond_int32_is_refused() -> None:
    stream = encode(np.array([[INT32.min]]))
    stream[-1] ^= 128  # the highest raw bit
    with pytest.raises(ValueError, match="beyond int32"):
        decode(stream, 1, 1)
