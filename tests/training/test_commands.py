"""The commands that need a task, on a model trained in a second."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import ttcompress
from ttcompress.cli import app
from ttcompress.errors import OutputError
from ttcompress.tasks.evaluation import measure_metrics

RECIPE = """\
version: 1
budget: {{factor: 16}}
store: int4
task: {{name: language-model, text: {text}, batch: 8, steps: 20}}
finetune: {{epochs: 1, learning_rate: 1.0e-2}}
"""


@pytest.fixture
def here(case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe in it, the current one."""
    text = case.path.parent / "text.txt"
    (tmp_path / "tuned.yaml").write_text(RECIPE.format(text=text), encoding="utf-8")
    plain = RECIPE.format(text=text).rpartition("finetune:")[0]
    (tmp_path / "plain.yaml").write_text(plain, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def report_of(result: Result) -> dict:
    return json.loads(result.stdout)


def test_decompose_measures_before_and_after(case, here):
    result = run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors", "--json")
    assert result.exit_code == 0, result.output
    metrics = report_of(result)["metrics"]
    assert list(metrics) == ["bits_per_character", "perplexity"]
    for found in metrics.values():
        assert found["drop"] == pytest.approx(found["after"] - found["before"])
        assert found["drop"] > 0
    shown = run("decompose", case.path, "-r", "plain.yaml", "-o", "y.safetensors").stdout
    assert "bits_per_character: " in shown
    assert "accuracy not measured" not in shown


def test_drift_is_always_measured(case, here):
    result = run("decompose", case.path, "--factor", "16", "-o", "x.safetensors", "--json")
    assert report_of(result)["metrics"] is None
    assert set(report_of(result)["drift"]["lstm."]) == {"1", "10", "100"}


def test_a_broken_drop_is_exit_4_and_the_file_is_written(case, here):
    arguments = ("decompose", case.path, "-r", "plain.yaml", "--max-drop", "1%", "--json")
    result = run(*arguments, "-o", "x.safetensors")
    assert result.exit_code == 4
    (limit,) = report_of(result)["limits"]
    found = next(iter(report_of(result)["metrics"].values()))
    assert limit["name"] == "max_drop" and limit["ok"] is False
    assert limit["value"] == pytest.approx(found["drop"] / found["before"])
    assert (here / "x.safetensors").exists()
    assert run("report", "x.safetensors").exit_code == 0
    kept = run(*arguments[:5], "1000%", "-o", "y.safetensors")
    assert kept.exit_code == 0, kept.output


def test_a_drop_that_nothing_measured_is_refused(case, here):
    result = run("decompose", case.path, "--max-drop", "1%", "-o", "x.safetensors")
    assert result.exit_code == 2
    assert "--task" in result.stderr
    assert not (here / "x.safetensors").exists()


def test_evaluate_gives_the_same_for_artifact_and_restored_model(case, here):
    run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors")
    run("restore", "x.safetensors", "-o", "dense.pt")
    found = [
        json.loads(run("evaluate", path, "-r", "plain.yaml", "--json").stdout)["metrics"]
        for path in ("x.safetensors", "dense.pt")
    ]
    assert found[0] == pytest.approx(found[1])


def test_evaluate_needs_a_task(case, here):
    result = run("evaluate", case.path)
    assert result.exit_code == 2
    assert "--task" in result.stderr


def test_finetuning_at_once_and_afterwards(case, here):
    at_once = run(
        "decompose", case.path, "-r", "tuned.yaml", "-o", "once.safetensors", "--json", "--control"
    )
    assert at_once.exit_code == 0, at_once.output
    report = report_of(at_once)
    assert report["finetune"]["steps"] > 0
    assert set(report["control"]) == {"bits_per_character", "perplexity"}

    run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors")
    arguments = ("finetune", "x.safetensors", "-r", "tuned.yaml", "--original", case.path)
    after = run(*arguments, "-o", "after.safetensors", "--json")
    assert after.exit_code == 0, after.output
    assert report_of(after)["metrics"] == report["metrics"]
    assert not list(here.glob("*.resume"))

    verified = run("verify", "after.safetensors", "--against", case.path)
    assert verified.exit_code == 0, verified.output


def test_finetuning_without_the_original_says_what_it_could_not_do(case, here):
    run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors")
    result = run("finetune", "x.safetensors", "-r", "tuned.yaml", "-o", "y.safetensors", "--json")
    assert result.exit_code == 0, result.output
    assert "fine-tuned without the original" in report_of(result)["notes"][-1]
    assert report_of(result)["metrics"]["perplexity"]["before"] < 2
    verified = run("verify", "y.safetensors", "--against", case.path)
    assert verified.exit_code == 1
    assert "the model was fine-tuned without the original" in verified.stdout
    again = ("finetune", "y.safetensors", "-r", "tuned.yaml", "--original", case.path)
    assert run(*again, "-o", "z.safetensors").exit_code == 0
    assert run("verify", "z.safetensors", "--against", case.path).exit_code == 0


def test_limits_are_judged_anew_after_a_training(case, here):
    given = ("decompose", case.path, "-r", "plain.yaml", "--max-drop", "0.001%")
    assert run(*given, "-o", "x.safetensors").exit_code == 4
    tuning = ("finetune", "x.safetensors", "--original", case.path)
    result = run(*tuning, "-r", "tuned.yaml", "-o", "y.safetensors", "--json")
    assert result.exit_code == 4
    report = report_of(result)
    (limit,) = report["limits"]
    metric = report["metrics"]["bits_per_character"]
    assert limit["value"] == pytest.approx(metric["drop"] / metric["before"])
    recipe = (here / "tuned.yaml").read_text() + "limits: {max_drop: 900%}\n"
    (here / "kind.yaml").write_text(recipe)
    assert run(*tuning, "-r", "kind.yaml", "-o", "z.safetensors").exit_code == 0


def test_one_of_several_state_dicts_is_found_again(case, here):
    content = torch.load(case.path)
    other = {name: -tensor for name, tensor in content["model"].items()}
    torch.save({"raw": content["model"], "ema": other, "vocab": content["vocab"]}, "two.pt")
    made = run("decompose", "two.pt", "-r", "plain.yaml", "--key", "raw", "-o", "x.safetensors")
    assert made.exit_code == 0, made.output
    tuning = ("finetune", "x.safetensors", "-r", "tuned.yaml", "--original", "two.pt")
    tuned = run(*tuning, "-o", "y.safetensors")
    assert tuned.exit_code == 0, tuned.output
    model = ttcompress.compress("two.pt", "plain.yaml", key="raw")
    model.save("z.safetensors")
    assert ttcompress.verify("z.safetensors", "two.pt").agrees


def test_finetuning_needs_something_to_train_on_and_the_right_original(case, here, tmp_path):
    torch.save(torch.nn.LSTM(6, 8).state_dict(), "bare.pt")
    refused = run("decompose", "bare.pt", "--finetune", "-o", "x.safetensors")
    assert refused.exit_code == 2
    assert "Add --task, or --data" in refused.stderr
    run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors")
    run("restore", "x.safetensors", "-o", "other.pt")
    arguments = ("finetune", "x.safetensors", "-r", "tuned.yaml", "--original", "other.pt")
    wrong = run(*arguments, "-o", "y.safetensors")
    assert wrong.exit_code == 3
    assert "other.pt: is not the model that x.safetensors was made from" in wrong.stderr
    assert not (here / "y.safetensors").exists()


def test_the_original_is_found_by_its_hash(case, here):
    shutil.copy(case.path, here / "renamed.pt")
    (here / "decoy.pt").write_bytes(bytes(case.path.stat().st_size))
    run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors")
    result = run("finetune", "x.safetensors", "-r", "tuned.yaml", "-o", "y.safetensors", "--json")
    assert result.exit_code == 0, result.output
    assert "found the original by its hash: " in result.stderr and "renamed.pt" in result.stderr
    assert not any("without the original" in note for note in report_of(result)["notes"])


def test_an_interrupted_training_is_not_thrown_away(case, here):
    left = here / "x.safetensors.resume"
    left.write_bytes(b"of hours")
    arguments = ("decompose", case.path, "-r", "tuned.yaml", "-o", "x.safetensors")
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr and "--overwrite" in refused.stderr
    assert left.read_bytes() == b"of hours"
    plain = run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors")
    assert plain.exit_code == 0, plain.output
    assert left.exists()  # decomposing alone has nothing to do with it
    anew = run(*arguments, "--overwrite")
    assert anew.exit_code == 0, anew.output
    assert not left.exists()


def interrupt_at(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when a model is measured for the last time that the count allows."""
    left = iter(range(count))

    def measure(task, model):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return measure_metrics(task, model)

    for place in ("training.loop", "workflows.evaluate", "workflows.drop_search"):
        monkeypatch.setattr(f"ttcompress.{place}.measure_metrics", measure)


TUNED = ("decompose", "-r", "tuned.yaml", "-o", "x.safetensors")


def test_an_interrupted_control_loses_nothing_of_the_training(case, here, monkeypatch):
    with monkeypatch.context() as patch:
        # Start and epoch of the training, before and after; the control has one measurement.
        interrupt_at(5, patch)
        stopped = run(*TUNED, case.path, "--control")
    assert stopped.exit_code == 130
    assert "x.safetensors was written; only the control is missing" in stopped.stderr
    assert "add --resume --overwrite" in stopped.stderr
    made = ttcompress.load("x.safetensors")
    assert made.report.control is None and made.report.finetune["steps"] > 0

    first, steps = made.stored_tensors(), []
    monkeypatch.setattr(
        "ttcompress.cli.console.watching", lambda *_: lambda report: steps.append(report.step)
    )
    again = run(*TUNED, case.path, "--control", "--resume", "--overwrite")
    assert again.exit_code == 0, again.output
    assert not steps  # the model was trained, and the control too but for its measurement
    made = ttcompress.load("x.safetensors")
    assert set(made.report.control) == {"bits_per_character", "perplexity"}
    assert all(torch.equal(first[name], one) for name, one in made.stored_tensors().items())
    assert sorted(path.name for path in here.glob("x.*")) == ["x.safetensors"]
    (heading,) = (line for line in again.stdout.splitlines() if "original, trained as" in line)
    assert heading.split()[:4] == ["metric", "before", "after", "drop"]
    row = next(line for line in again.stdout.splitlines() if line.startswith("perplexity "))
    assert f"{made.report.control['perplexity']['control']:.4g}" in row.split()


def test_a_training_outlives_an_interrupt_and_a_full_disk_after_it(case, here, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)  # after the training, when the original is measured or the result
        stopped = run(*TUNED, case.path)
    assert stopped.exit_code == 130
    assert "x.safetensors.resume keeps the training: add --resume" in stopped.stderr
    assert not (here / "x.safetensors").exists()

    def full(*_: object) -> None:
        raise OutputError("x.safetensors: the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("ttcompress.artifact.CompressedModel.save", full)
        failed = run(*TUNED, case.path, "--resume")
    assert failed.exit_code == 1
    assert "is full. The training is kept: run again with --resume." in failed.stderr
    steps = []
    monkeypatch.setattr(
        "ttcompress.cli.console.watching", lambda *_: lambda report: steps.append(report.step)
    )
    assert run(*TUNED, case.path, "--resume").exit_code == 0
    assert not steps  # all of them had been taken
    assert sorted(path.name for path in here.glob("x.*")) == ["x.safetensors"]


def test_a_search_keeps_the_training_that_it_chose(case, here, monkeypatch):
    search = (*TUNED, case.path, "--drop", "30%")
    with monkeypatch.context() as patch:
        patch.setattr("ttcompress.workflows.compress.drift_over_time", _interrupt)
        stopped = run(*search)
    assert stopped.exit_code == 130
    left = sorted(path.name for path in here.glob("x.*"))
    assert len(left) == 2 and left[1] == "x.safetensors.trials.json"
    assert left[0].startswith("x.safetensors.resume.trial-")
    steps = []
    monkeypatch.setattr(
        "ttcompress.cli.console.watching", lambda *_: lambda report: steps.append(report.step)
    )
    done = run(*search, "--resume")
    assert done.exit_code == 0, done.output
    assert not steps
    assert sorted(path.name for path in here.glob("x.*")) == ["x.safetensors"]


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_compresses_nothing_needs_no_budget(case, here):
    recipe = (here / "tuned.yaml").read_text().replace("budget: {factor: 16}\n", "")
    (here / "bare.yaml").write_text(recipe)
    measured = run("evaluate", case.path, "-r", "bare.yaml")
    assert measured.exit_code == 0, measured.output
    run("decompose", case.path, "-r", "plain.yaml", "-o", "x.safetensors")
    tuning = ("finetune", "x.safetensors", "--original", case.path, "-r", "bare.yaml")
    assert run(*tuning, "-o", "y.safetensors").exit_code == 0
    refused = run("decompose", case.path, "-r", "bare.yaml", "-o", "z.safetensors")
    assert refused.exit_code == 2 and "budget: missing" in refused.stderr
    (here / "wrong.yaml").write_text(recipe + "budgt: {factor: 2}\n")
    misspelt = run("evaluate", case.path, "-r", "wrong.yaml")
    assert misspelt.exit_code == 2 and "budgt (line 5): unknown key" in misspelt.stderr
