from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def text(tmp_path: Path, case) -> Path:
    return case.path.parent / "text.txt"


def recipe(tmp_path: Path, text: Path, extra: str = "") -> Path:
    path = tmp_path / "aware.yaml"
    path.write_text(
        "version: 1\nbudget: {factor: 12}\nstore: int3\n"
        f"task: {{name: language-model, text: {text}, batch: 8, steps: 20}}\n{extra}",
        encoding="utf-8",
    )
    return path


def drop(result) -> float:
    return float(result.json["metrics"]["bits_per_character"]["drop"])


def test_calibrated_models_lose_less_and_the_report_says_on_what(run, case, text, tmp_path):
    given = ["decompose", str(case.path), "-r", str(recipe(tmp_path, text)), "--json"]
    plain = run(*given, "-o", str(tmp_path / "plain.safetensors"))
    aware = run(*given, "--calibrate", "6", "-o", str(tmp_path / "aware.safetensors"))
    assert (plain.code, aware.code) == (0, 0)
    assert drop(aware) < drop(plain)
    document = aware.json
    assert document["calibration"]["positions"] == 6 * 8 * 20
    assert document["recipe"]["effective"]["calibration"] == {"batches": 6}
    assert plain.json["calibration"] is None


def test_plan_says_the_sizes_of_the_calibrated_model(run, case, text, tmp_path):
    given = ["-r", str(recipe(tmp_path, text, "calibration: {batches: 6}")), "--json"]
    planned = run("plan", str(case.path), *given).json
    made = run("decompose", str(case.path), *given, "-o", str(tmp_path / "a.safetensors")).json
    assert planned["totals"] == made["totals"]


def test_a_tolerance_beside_it_is_refused_with_the_cure(run, case, tmp_path):
    found = run(
        "plan", str(case.path), "--tolerance", "0.1", "--calibrate", "4", "--task", "charlm"
    )
    assert found.code == 2
    assert "another budget" in found.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--calibrate", "4"], "Add --task"),
        (["--calibrate", "0", "--task", "charlm"], "--calibrate"),
        (["--data", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_what_is_missing_is_named(run, case, options, said):
    found = run("plan", str(case.path), *options)
    assert found.code == 2
    assert said in found.err


def test_the_plan_lists_what_was_tried(run, case):
    document = run("plan", str(case.path), "--factor", "4", "--json").json
    tried = {w["name"]: w["tried"] for w in document["weights"]}["lstm.weight_hh_l0"]
    assert {"format": "mps", "row_modes": [4, 24], "column_modes": [24]} in tried
    assert len(tried) > 2
