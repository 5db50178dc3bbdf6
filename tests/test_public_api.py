"""The public door: what it names, where it leads, and that submodules do not stand in its way."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import ttcompress
from ttcompress import errors


def test_every_public_name_is_there_and_every_lazy_name_is_public() -> None:
    assert all(getattr(ttcompress, name) is not None for name in ttcompress.__all__)
    assert set(ttcompress._LAZY) < set(ttcompress.__all__)
    assert dir(ttcompress) == sorted(ttcompress.__all__)


def test_every_error_class_is_public() -> None:
    tree = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert {error.__name__ for error in tree} <= set(ttcompress.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ttcompress' has no attribute 'comprss'"):
        ttcompress.comprss  # noqa: B018


COLLIDING = tuple(n for n in ttcompress._LAZY if importlib.util.find_spec(f"ttcompress.{n}"))


def test_public_names_win_over_submodules_imported_before_them() -> None:
    """In a new process: in this one the door has long been opened."""
    assert {"compress", "plan", "verify", "restore"} <= set(COLLIDING)
    script = f"""
import importlib, types
import ttcompress
for name in {COLLIDING}:
    importlib.import_module(f"ttcompress.{{name}}")
    assert not isinstance(getattr(ttcompress, name), types.ModuleType), name
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_submodules_of_a_public_name_import_as_ever() -> None:
    from ttcompress.compress import measure_spectra
    from ttcompress.plan.model import Plan

    assert callable(ttcompress.compress)
    assert callable(measure_spectra)
    assert Plan.__module__ == "ttcompress.plan.model"


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
