"""The commands about tasks."""

from __future__ import annotations

from pathlib import Path


def test_the_list_names_every_built_in_task_with_its_options(run):
    found = {one["name"]: one for one in run("tasks", "list", "--json").json["tasks"]}
    assert found["language-model"]["options"][0] == "text"
    assert {"tagger", "classifier", "charlm", "highlighter"} <= found.keys()
    assert "options" in run("tasks", "list").out


def test_the_file_to_start_from_fits_a_model_of_its_kind(run, tmp_path, monkeypatch):
    """It is for an embedding, two layers and a linear layer, as the sample charlm has."""
    monkeypatch.chdir(tmp_path)
    assert run("tasks", "init", "mytask.py").code == 0
    code = [
        line
        for line in Path("mytask.py").read_text("utf-8").splitlines()
        if line.strip() and not line.strip().startswith(("#", '"""'))
    ]
    assert len(code) <= 40
    Path("text.txt").write_text("abc def ghi jkl " * 200, encoding="utf-8")
    model = Path(__file__).parents[2] / "sample_models" / "charlm.pt"
    found = run("tasks", "check", str(model), "--task", "mytask.py:task", "--json")
    assert found.code == 0, found.err
    members = found.json["members"]
    assert members["distillation"] == "of classes" and "98" in members["outputs"]
    assert float(members["loss"]) > 0 and "evaluate: accuracy" in members
    assert run("tasks", "init", "mytask.py").code == 2  # it exists


def test_a_slip_is_named_with_its_member(run, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("tasks", "check", str(case.path)).code == 2
    text = "def task(structure):\n    return 3\n"
    Path("wrong.py").write_text(text, encoding="utf-8")
    found = run("tasks", "check", str(case.path), "--task", "wrong.py:task")
    assert found.code == 2 and "lacks" in found.err
