"""What differs on Windows, as far as Linux can show it: paths and names of devices."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from ttcompress.errors import OutputPathError, RecipeError
from ttcompress.system.files import check_output, model_stem
from ttcompress.tasks.registry import find_task


@pytest.mark.parametrize("name", ["con", "NUL.safetensors", "aux.mps.safetensors", "com1.pt"])
def test_an_output_that_is_a_device_of_windows_is_refused_there(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    check_output(tmp_path / name, overwrite=False)
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(OutputPathError, match="Windows keeps this name for a device"):
        check_output(tmp_path / name, overwrite=False)
    check_output(tmp_path / f"my {name}", overwrite=False)
    check_output(tmp_path / f"{name.partition('.')[0]}x.pt", overwrite=False)


def test_a_models_name_is_taken_from_a_path_of_windows() -> None:
    for path in (r"C:\models\charlm.pt", r"\\server\share\charlm.pt", "C:/models/charlm.pt"):
        assert model_stem(PureWindowsPath(path)) == "charlm"


def test_a_task_in_a_path_of_windows_is_split_at_its_last_colon(
    tmp_path: Path, monkeypatch
) -> None:
    """On Linux such a path is a file's name."""
    monkeypatch.chdir(tmp_path)
    path = r"C:\tasks\mine.py"
    Path(path).write_text("class Digits:\n    name = 'digits'\n", encoding="utf-8")
    assert find_task(f"{path}:Digits").__name__ == "Digits"
    with pytest.raises(RecipeError, match="Its classes are Digits"):
        find_task(path)
