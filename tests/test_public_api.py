"""The public door: what it names, where it leads, and that submodules do not stand in its way."""

from __future__ import annotations

import pkgutil

import pytest

import ttcompress
from ttcompress import errors


def test_every_public_name_is_there() -> None:
    assert all(getattr(ttcompress, name) is not None for name in ttcompress.__all__)
    assert dir(ttcompress) == sorted(ttcompress.__all__)


def test_every_error_class_is_public() -> None:
    tree = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert {error.__name__ for error in tree} <= set(ttcompress.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ttcompress' has no attribute 'comprss'"):
        ttcompress.comprss  # noqa: B018


def test_no_room_has_the_name_of_a_public_function() -> None:
    """Importing such a room would put a module where the function is called."""
    rooms = [info.name for info in pkgutil.iter_modules(ttcompress.__path__)]
    assert not set(rooms) & set(ttcompress.__all__)


def test_the_example_of_the_package_runs(tiny_checkpoint, tmp_path) -> None:
    model = ttcompress.compress(tiny_checkpoint, {"version": 1, "budget": {"factor": 2}})
    model.save(tmp_path / "out.safetensors")
    loaded = ttcompress.load(tmp_path / "out.safetensors")
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert ttcompress.verify(tmp_path / "out.safetensors", tiny_checkpoint).agrees
    try:
        ttcompress.compress("absent.pt")
    except ttcompress.TTCompressError as error:
        assert error.exit_code == 2
