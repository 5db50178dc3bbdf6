"""Single values as recipes and options spell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.errors import RecipeError
from ttcompress.recipe import Drop, parse_drop, parse_format, parse_ranks, parse_size


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("12B", 12),
        ("2MB", 2_000_000),
        ("2 mb", 2_000_000),
        (" 2MiB ", 2 * 1024**2),
        ("300kB", 300_000),
        ("1.1MB", 1_100_000),
        ("1.5 KiB", 1536),
        ("1GB", 10**9),
        ("1GiB", 1024**3),
        ("2TB", 2 * 10**12),
        ("0.0015kB", 1),
    ],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written",
    ["", "MB", "-2MB", "2 M B", "2Mbit", "1e6", "2,5MB", "٢MB", "0", 0, -1, 2.5, True, None, [1],
     "9" * 15 + "TB", "9" * 500 + "B", f"1{' ' * 200_000}x"],
)  # fmt: skip
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(RecipeError, match="expected a"):
        parse_size(written)


@pytest.mark.parametrize(
    ("written", "ranks"),
    [
        (8, 8),
        ("8", 8),
        ("8,24,24,12", (8, 24, 24, 12)),
        (" 8 , 24 ", (8, 24)),
        ([8], (8,)),
        ((), ()),
    ],
)
def test_ranks(written: object, ranks: object) -> None:
    assert parse_ranks(written) == ranks


@pytest.mark.parametrize(
    "written", ["", "8,", "8 24", "-8", "8,0", "²", [0], [8, "8"], 1.5, True, f"8{' ' * 200_000}x"]
)
def test_what_is_no_ranks(written: object) -> None:
    with pytest.raises(RecipeError, match="expected"):
        parse_ranks(written)


@pytest.mark.parametrize(
    ("written", "drop"),
    [
        ("1%", Drop(0.01, relative=True)),
        (" 0.5 % ", Drop(0.005, relative=True)),
        ("0%", Drop(0.0, relative=True)),
        (0.05, Drop(0.05, relative=False)),
        (0, Drop(0.0, relative=False)),
    ],
)
def test_drops(written: object, drop: Drop) -> None:
    assert parse_drop(written) == drop


@pytest.mark.parametrize("written", ["1", "-1%", "%", "one%", -0.1, True, None, float("nan")])
def test_what_is_no_drop(written: object) -> None:
    with pytest.raises(RecipeError, match=r"drop|number"):
        parse_drop(written)


def test_a_negative_drop_says_what_to_write() -> None:
    with pytest.raises(RecipeError, match=r"got -0\.1\.\n.*write 0\.1\."):
        parse_drop(-0.1)


@given(st.floats(0, 1e9) | st.decimals(0, 1000, places=6).map(lambda d: float(d) / 100))
def test_a_drop_reads_as_it_is_written(amount: float) -> None:
    for relative in (False, True):
        drop = Drop(float(f"{amount:.9f}"), relative)
        assert parse_drop(drop.written) == drop


def test_only_other_words_for_formats_are_translated() -> None:
    assert [parse_format(word) for word in ("TT", "ttm", "mps", "svd")] == [
        "mps", "mpo", "mps", "svd",
    ]  # fmt: skip
