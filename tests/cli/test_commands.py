"""Each command by what it prints, writes and exits with; JSON is the whole of stdout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ttcompress
from ttcompress.cli import app
from ttcompress.cli.arguments import BUDGET, LIMITS, SHARED
from ttcompress.recipe.overrides import OVERRIDES

COMMANDS = (
    *("inspect", "plan", "decompose", "finetune", "report", "evaluate", "verify", "bench"),
    *("restore", "export", "card", "push", "compare", "sweep", "batch"),
)
SHIPPED = Path(__file__).parents[2] / "recipes"
RECIPES = ("list", "show", "check", "schema")


@pytest.fixture
def model(tiny_checkpoint: Path) -> Path:
    return tiny_checkpoint


def test_decompose_prints_the_report_and_writes_the_file(run, folder, model) -> None:
    result = run("decompose", model, "--factor", "2")
    assert result.code == 0
    assert result.err.endswith("wrote tiny.auto.safetensors\n")
    assert [path.name for path in folder.iterdir()] == ["tiny.auto.safetensors"]
    lines = result.out.splitlines()
    assert lines[0] == f"{model}: recipe balanced (the default) with --factor 2"
    assert lines[1].endswith("x larger; accuracy not measured: add --task")
    headings = (
        "weight format modes ranks store params before params after bytes after error worst row"
    )
    assert sorted([*lines[3].split(), *lines[4].split()]) == sorted(headings.split())
    assert [line.split()[0] for line in lines[5:11]] == [
        "embedding.weight",
        *(f"lstm.weight_{part}_l{layer}" for layer in (0, 1) for part in ("ih", "hh")),
        "head.weight",
    ]
    assert any(line.startswith("factor: 2.") and line.endswith("(budget: 2)") for line in lines)
    step = "ttcompress evaluate tiny.auto.safetensors --task TASK"
    assert lines[-1] == f"next: measure the accuracy: {step}"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "tiny.auto.safetensors"),
        (["--format", "tt-matrix"], "tiny.mpo.safetensors"),
        (["--format", "mps"], "tiny.mps.safetensors"),
        (["-o", "mine.safetensors"], "mine.safetensors"),
    ],
)
def test_the_output_is_named_after_model_and_format(options, name, run, folder, model) -> None:
    assert run("decompose", model, "--factor", "2", *options).code == 0
    assert [path.name for path in folder.iterdir()] == [name]


def test_decompose_and_report_give_one_json_document(run, model) -> None:
    decomposed = run("decompose", model, "--factor", "2", "--json")
    assert decomposed.err.endswith("wrote tiny.auto.safetensors\n")
    reported = run("report", "tiny.auto.safetensors", "--json")
    assert decomposed.json == reported.json
    assert reported.json == ttcompress.load("tiny.auto.safetensors").report.as_json()
    assert run("report", "tiny.auto.safetensors", "--as", "json").out == reported.out


def test_quiet_says_nothing_on_stderr(run, model) -> None:
    result = run("decompose", model, "--factor", "2", "-q")
    assert (result.code, result.err) == (0, "")
    assert "accuracy not measured" in result.out


def test_the_same_command_writes_the_same_bytes(run, model, folder) -> None:
    for name in ("one", "two"):
        run("decompose", model, "--factor", "2", "-o", name)
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()


def test_overwrite_replaces_an_output(run, model, folder) -> None:
    (folder / "out").write_text("old")
    assert run("decompose", model, "--factor", "2", "-o", "out", "--overwrite").code == 0
    assert any(name.startswith("lstm.weight_hh_l0.") for name in load_file("out"))


@pytest.mark.parametrize("limit", [("--min-factor", "3"), ("--max-size", "2kB")])
def test_a_broken_limit_exits_4_and_the_file_is_marked_failed(limit, run, model, folder) -> None:
    result = run("decompose", model, "--factor", "2", *limit, "--json", "-o", "out")
    name = limit[0].removeprefix("--").replace("-", "_")
    assert result.code == 4
    assert [(entry["name"], entry["ok"]) for entry in result.json["limits"]] == [(name, False)]
    allowed = f"{float(limit[1].replace('kB', '000')):,.12g}"
    assert f"limit broken: {name} is {allowed}, but got " in result.err
    assert "out was written, and its report names the broken limits" in result.err
    reported = run("report", "out")
    assert reported.code == 0
    assert "BROKEN" in reported.out


def test_a_limit_that_holds_exits_0(run, model) -> None:
    result = run("decompose", model, "--factor", "2", "--min-factor", "2", "--json")
    assert result.code == 0
    assert result.json["limits"][0]["ok"] is True


def test_plan_knows_the_sizes_and_writes_nothing(run, model, folder) -> None:
    how = ("--factor", "2", "--store", "int8", "--json")  # what is coded is only estimated
    planned = run("plan", model, *how)
    assert (planned.code, planned.err, list(folder.iterdir())) == (0, "", [])
    done = run("decompose", model, *how).json
    assert planned.json["totals"] == done["totals"]
    same = ("name", "format", "row_modes", "column_modes", "ranks", "store", "bytes_after")
    for before, after in zip(planned.json["weights"], done["weights"], strict=True):
        assert {key: before[key] for key in same} == {key: after[key] for key in same}
    assert planned.json["recipe"] == done["recipe"]
    assert planned.json["source"] == done["source"]


def test_plan_says_whether_weights_were_read(run, model, folder) -> None:
    assert "planned from the weights' spectra" in run("plan", model, "--factor", "2").out
    (folder / "fixed.yaml").write_text(
        "{version: 1, rules: [{weights: lstm.weight_hh_l0, row_modes: [32], column_modes: [8],"
        " ranks: [3], store: int8}], default: keep}"
    )
    fixed = run("plan", model, "-r", "fixed.yaml")
    assert "planned from shapes alone" in fixed.out


def test_report_sets_the_artifacts_of_a_folder_side_by_side(run, model, folder) -> None:
    for format in ("mps", "mpo"):
        run("decompose", model, "--factor", "2", "--format", format)
    save_file({"weight": torch.ones(2, 2)}, "dense.safetensors")
    table = run("report")
    names = [line.split()[0] for line in table.out.splitlines() if "safetensors" in line]
    assert names == [
        "tiny.mpo.safetensors",
        "tiny.mps.safetensors",
    ]
    assert table.err.startswith("skipped: dense.safetensors")
    document = run("report", "--json").json
    assert [entry["file"] for entry in document["reports"]] == [
        "tiny.mpo.safetensors",
        "tiny.mps.safetensors",
    ]
    given = run("report", "tiny.mps.safetensors", "tiny.mpo.safetensors", "--json").json
    assert given["reports"] == document["reports"][::-1]


def test_report_as_markdown(run, tiny_artifact) -> None:
    page = run("report", tiny_artifact, "--as", "markdown").out
    assert page.startswith("# ")
    assert "| lstm.weight\\_hh\\_l1 | mps | 32 x 8 |" in page
    assert re.search(r"\n- factor: \d+\.\d+ \(budget: 2\)\n", page)


def test_verify_agrees_with_a_file_as_written(run, model, tiny_artifact) -> None:
    result = run("verify", tiny_artifact, "--against", model)
    assert (result.code, result.out.splitlines()[-1]) == (0, "verified")
    assert run("verify", tiny_artifact, "--against", model, "--json").json["agrees"] is True


def test_verify_finds_a_changed_value(run, model, tiny_artifact) -> None:
    with safe_open(tiny_artifact, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tiny_artifact)
    tensors["head.bias"][0] += 1
    save_file(tensors, "changed.safetensors", metadata)
    result = run("verify", "changed.safetensors", "--against", model)
    assert result.code == 1
    assert "head.bias: should be unchanged, but differs" in result.out
    assert result.out.splitlines()[-1] == "NOT VERIFIED: 1 difference"


def test_verify_refuses_another_model(run, tiny_artifact, tiny_state_dict) -> None:
    torch.save(dict(tiny_state_dict), "other.pt")
    result = run("verify", tiny_artifact, "--against", "other.pt")
    assert result.code == 3
    assert "other.pt: is not the model that" in result.err


def test_restore_writes_what_the_original_code_loads(run, tiny_artifact, tiny_state_dict) -> None:
    result = run("restore", tiny_artifact, "-o", "dense.pt")
    assert (result.code, result.out, result.err) == (0, "", "wrote dense.pt\n")
    restored = torch.load("dense.pt")
    assert {k: v.shape for k, v in restored.items()} == {
        k: v.shape for k, v in tiny_state_dict.items()
    }
    again = run("restore", tiny_artifact, "-o", "dense.pt")
    assert (again.code, "--overwrite" in again.err) == (2, True)
    assert run("restore", tiny_artifact, "-o", "dense.pt", "--overwrite", "--json").json == {
        "file": "dense.pt",
        "bytes": Path("dense.pt").stat().st_size,
        "left_out": [],
    }


def test_inspect_shows_layers_and_ranks(run, model) -> None:
    result = run("inspect", model)
    assert result.code == 0
    assert "lstm   lstm      6       8       2  -" in result.out
    document = run("inspect", model, "--json").json
    assert document["layers"][0]["hidden_size"] == 8
    assert [weight["full_rank"] for weight in document["weights"]] == [6, 6, 8, 8, 8, 8]


def test_recipes_list_show_and_check(run, model) -> None:
    names = [recipe["name"] for recipe in run("recipes", "list", "--json").json["recipes"]]
    assert "balanced" in names
    assert all(name in run("recipes", "list").out for name in names)
    shown = run("recipes", "show", "balanced")
    assert shown.out.splitlines()[1].startswith("# The default: recurrent weights in an")
    assert run("recipes", "show", "balanced", "--json").json["text"] == shown.out
    assert run("recipes", "check", "balanced").out == "balanced is a valid recipe\n"
    checked = run("recipes", "check", "balanced", model)
    assert checked.out.splitlines()[0] == f"balanced fits {model}"
    weights = run("recipes", "check", "balanced", model, "--json").json["weights"]
    assert [weight["rule"] for weight in weights] == [1, 0, 0, 0, 0, 2]


def test_recipes_schema_is_the_file_beside_the_recipes(run) -> None:
    for options, name in (((), "schema.json"), (("--manifest",), "batch/schema.json")):
        written = (SHIPPED / name).read_text(encoding="utf-8")
        assert run("recipes", "schema", *options).out == written


def test_the_command_line_has_every_option_of_a_recipe_but_one() -> None:
    assert {*BUDGET, *SHARED, *LIMITS} == OVERRIDES.keys() - {"min_multiply_adds"}


def test_a_recipe_that_does_not_fit_exits_2(run, model) -> None:
    result = run("recipes", "check", "explicit-ranks", model)
    assert (result.code, result.out) == (2, "")


def test_version_is_the_packages(run) -> None:
    assert run("--version").out == f"ttcompress {ttcompress.__version__}\n"


@pytest.mark.parametrize(
    "command", [*((name,) for name in COMMANDS), *(("recipes", name) for name in RECIPES)]
)
def test_every_command_has_help_with_a_worked_example(command, run) -> None:
    result = run(*command, "--help")
    assert result.code == 0
    example = result.out.split("Example:\n")[1].splitlines()[0].split()
    assert example[: 1 + len(command)] == ["ttcompress", *command]


def test_help_has_headings(run) -> None:
    sections = {
        section.partition(":\n")[0]: section for section in run("decompose", "-h").out.split("\n\n")
    }
    assert [*sections][-4:] == [
        "Recipe",
        "Task and training",
        "Limits (the file is written all the same)",
        "Output",
    ]
    assert "--factor" in sections["Size and format (budgets may be combined)"]
    assert "--resume" in sections["Task and training"]
    commands = run("--help").out.partition("\nLook:\n")[2]
    found = [line for line in f"Look:\n{commands}".splitlines() if line and line[0] != " "]
    assert found == ["Look:", "Compress:", "Judge:", "Ship:", "Many:"]
    assert "\nMany:\n  compare " in commands
    assert "..." not in commands  # none is cut short


def test_every_command_is_in_the_table_above() -> None:
    names = [info.callback.__name__ for info in app.registered_commands]
    groups = [group.name for group in app.registered_groups]
    assert (names, groups) == (list(COMMANDS), ["recipes", "tasks"])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_the_width_and_hold_no_colour_codes(width, run, model, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (["plan", model, "--factor", "2"], ["inspect", model]):
        table = [line for line in run(*command).out.splitlines() if "  " in line]
        assert table
        assert max(map(len, table)) <= width
        assert "\x1b" not in "".join(table)


def test_json_is_the_only_thing_on_stdout(run, model, tiny_artifact) -> None:
    for command in (
        ["inspect", model],
        ["plan", model, "--factor", "2"],
        ["decompose", model, "--factor", "2"],
        ["report", tiny_artifact],
        ["verify", tiny_artifact, "--against", model],
        ["recipes", "list"],
        ["recipes", "show", "tiny"],
        ["recipes", "check", "tiny", model],
        ["recipes", "schema"],
        ["recipes", "schema", "--manifest"],
    ):
        json.loads(run(*command, "--json").out)


def test_a_file_of_several_models(run, tmp_path, tiny_checkpoint) -> None:
    """The message offers one, some or all; what is not taken is listed wherever sizes are."""
    model = torch.load(tiny_checkpoint)
    state = {"state": {0: {"exp_avg": torch.zeros(9, 9)}}, "param_groups": []}
    path = tmp_path / "two.pt"
    torch.save({"netG": model, "netD": model | {"x": torch.ones(2)}, "optimizer_G": state}, path)
    refused = run("decompose", path)
    assert refused.code == 3
    assert "--key netG, some with --key netG,netD, or all with --key all" in refused.err
    optimizer = "left out: `optimizer_G`, optimizer state (1 tensor, 324 bytes)"
    for key, another in (("netG", True), ("netG,netD", False), ("all", False)):
        found = run("inspect", path, "--key", key), run("plan", path, "--key", key)
        made = run("decompose", path, "--key", key, "-o", f"{key}.st")
        restored = run("restore", f"{key}.st", "-o", f"{key}.pt")
        assert restored.out == ""
        for text in (*(one.out for one in (*found, made)), restored.err):
            assert optimizer in text
            assert ("left out: `netD`, another state dict" in text) == another
        both = ["netG"] if another else ["netG", "netD"]
        assert list(torch.load(f"{key}.pt")) == both
    document = run("restore", "netG.st", "-o", "again.pt", "--json").json
    assert [one["key"] for one in document["left_out"]] == ["netD", "optimizer_G"]
    assert run("report", "netG.st", "--json").json["left_out"] == document["left_out"]


def test_help_says_how_to_take_several_models(run) -> None:
    for command in ("decompose", "inspect", "plan", "compare", "sweep"):
        assert "en,de reads two, all reads all" in " ".join(run(command, "--help").out.split())
