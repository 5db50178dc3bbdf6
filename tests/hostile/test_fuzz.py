"""A bounded part of `fuzz.py`, and that it would see a reader that breaks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "fuzz.py"
CASES = 800


@pytest.mark.slow
def test_changed_files_are_read_or_refused() -> None:
    command = [sys.executable, str(SCRIPT), "--cases", str(CASES), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 defects" in done.stdout


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


def breaks(path: Path) -> None:
    raise KeyError(path.name)


def never_ends(path: Path) -> None:
    while True:
        pass


def takes_all(path: Path) -> None:
    bytearray(1 << 40)


def writes(path: Path) -> None:
    path.with_name("another").touch()


@pytest.mark.parametrize("use", [breaks, never_ends, takes_all, writes])
def test_a_reader_that_breaks_is_seen(fuzz, use, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    seed = tmp_path / "seed"
    seed.write_bytes(b"0123456789")
    tally = fuzz.fuzz(fuzz.Reader(seed, use, (fuzz.plain,)), use.__name__, 1, 0, None)
    (defect,) = tally.defects
    assert f"{use.__name__}, seed 0, case 0" in defect
