"""From a manifest to its jobs: what is named is found, what is wrong is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttcompress.errors import InputError, RecipeError
from ttcompress.recipe import Drop, Limits, TaskChoice
from ttcompress.workflows.manifest import read_manifest

BOTH = "{models: [models/*.pt], recipes: [half.yaml, balanced]}"


def test_the_matrix_is_every_model_under_every_recipe(jobs, folder) -> None:
    found = jobs()
    assert [job.name for job in found] == [
        "a under half",
        "a under balanced",
        "b under half",
        "b under balanced",
    ]
    assert [job.output for job in found] == [
        folder / "out" / f"{model}.{recipe}.safetensors"
        for model in "ab"
        for recipe in ("half", "balanced")
    ]
    assert {job.folder for job in found} == {folder}
    assert found[0].recipe.budget.factor == 2
    assert found[0].recipe.text.startswith("{version: 1")


def test_paths_are_relative_to_the_manifest(jobs, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert all(job.model.is_file() for job in jobs())


def test_a_model_of_the_hub_is_named_by_its_repository(hub, jobs, folder) -> None:
    hub.add("user/tiny", {"model.pt": (folder / "models" / "a.pt").read_bytes()})
    [job] = jobs("version: 1\nmatrix: {models: [hf://user/tiny], recipes: [small]}")
    assert (job.name, job.output.stem) == ("tiny under small", "tiny.small")
    assert job.model.is_file()
    with pytest.raises(
        RecipeError, match=r"models\[0\]\.path \(line 2\): hf://user/no: no such rep"
    ):
        jobs("version: 1\nmatrix: {models: [hf://user/no], recipes: [small]}")


def test_exclusions_and_single_jobs(jobs) -> None:
    found = jobs(
        f"version: 1\nmatrix: {{exclude: [{{model: a, recipe: bal*}}], {BOTH[1:]}\n"
        "jobs:\n  - {path: models/a.pt, recipe: tiny}"
    )
    names = ["a under half", "b under half", "b under balanced", "a under tiny"]
    assert [job.name for job in found] == names


def test_names_follow_the_template(jobs) -> None:
    found = jobs(
        "version: 1\noutput: {folder: deep/out, name: 'x-{folder}-{model}.{format}'}\n"
        "matrix: {models: [models/a.pt], recipes: [mpo]}"
    )
    assert found[0].output.parts[-3:] == ("deep", "out", "x-models-a.mpo")


def test_tasks_keys_and_limits_go_from_the_recipe_over_the_manifest_to_the_model(
    jobs, folder
) -> None:
    (folder / "own.yaml").write_text(
        "{version: 1, budget: {factor: 2}, limits: {min_factor: 5, max_size: 9kB}, task: charlm}"
    )
    own, plain = jobs(
        "version: 1\ntask: highlighter\nlimits: {max_drop: 2%, min_factor: 3}\nmatrix:\n"
        "  models:\n"
        "    - {path: models/a.pt, task: {name: t, text: x}, key: k, limits: {max_drop: 0.5}}\n"
        "    - models/b.pt\n"
        "  recipes: [own.yaml]"
    )
    assert own.recipe.task == TaskChoice(name="t", options=(("text", "x"),))
    assert own.recipe.limits == Limits(max_drop=0.5, min_factor=3, max_size=9000)
    assert own.recipe.key == "k"
    assert plain.recipe.task == TaskChoice(name="highlighter")
    assert plain.recipe.limits == Limits(
        max_drop=Drop(0.02, relative=True), min_factor=3, max_size=9000
    )


def test_without_more_a_recipe_stays_as_it_is(jobs, folder) -> None:
    (folder / "own.yaml").write_text("{version: 1, budget: {factor: 2}, task: charlm}")
    (job,) = jobs("version: 1\njobs: [{path: models/a.pt, recipe: own.yaml}]")
    assert job.recipe.task == TaskChoice(name="charlm")
    assert job.recipe.limits is None


PROBLEMS = {
    "matrix:\n  modles: [x]": "matrix.modles (line 3): unknown key. Did you mean `models`?",
    "matrix: {recipes: [tiny]}": "matrix.models (line 2): missing. Write paths or globs",
    "matrix: {models: m, recipes: [tiny]}": "expected a list, got the text 'm'.",
    "matrix: {models: [no/*.pt], recipes: [tiny]}": (
        "matrix.models[0].path (line 2): no/*.pt: there is no such file."
    ),
    "matrix: {models: [models], recipes: [tiny]}": "is a folder, but a model is a file.",
    "matrix: {models: [models/*.pt], recipes: [tniy]}": (
        "matrix.recipes[0] (line 2): tniy: neither a recipe file nor a shipped recipe."
        " Did you mean `tiny`?"
    ),
    "matrix: {models: [models/*.pt], recipes: [manifest.yaml]}": ("matrix (line 2): unknown key."),
    "matrix: {models: [models/*.pt], recipes: [null]}": "matrix.recipes[0] (line 2): expected text",
    "matrix: {models: [null], recipes: [tiny]}": "matrix.models[0]",
    f'matrix: {BOTH}\noutput: "o\\0ut"': (
        "output.folder (line 3): 'o\\x00ut' contains the character"
    ),
    f"matrix: {{exclude: [{{model: c}}], {BOTH[1:]}": (
        "matrix.exclude[0] (line 2): excludes nothing"
    ),
    f"matrix: {BOTH}\nlimits: {{max_drop: 1%}}": (
        "limits.max_drop: a drop of 1% can only be judged with a task."
    ),
    f"matrix: {BOTH}\nlimits: {{max_drpo: 1%}}": (
        "limits.max_drpo (line 3): unknown key. Did you mean `max_drop`?"
    ),
    f"matrix: {BOTH}\nbaseline: {{metric: -1}}": (
        "baseline.metric (line 3): a drop must be 0 or more"
    ),
    f"matrix: {BOTH}\noutput: {{name: '{{modle}}.x'}}": (
        "output.name (line 3): '{modle}.x' has the unknown field {modle}. Use {model}, {recipe}"
    ),
    f"matrix: {BOTH}\noutput: {{name: 'a/{{model}}'}}": "is not a file name",
    f"matrix: {BOTH}\noutput: {{name: '{{model'}}": "is not a valid name: ",
    f"matrix: {BOTH}\noutput: {{name: '{{model}}'}}": (
        "a.pt under half and {folder}/models/a.pt under balanced would both be written to a."
    ),
    f"matrix: {BOTH}\noutput: {{folder: models, name: 'b.pt'}}": (
        "is one of the models, but a result would be written there."
    ),
    "jobs: [{path: models/a.pt}]": "jobs[0].recipe (line 2): missing.",
    "jobs: [{path: models/a.pt, recipe: tiny, task: {text: x}}]": (
        "jobs[0].task.name (line 2): missing."
    ),
    "jobs: [{path: models/a.pt, recipe: tiny, task: {name: t, rate: 1e-3}}]": (
        "jobs[0].task.rate (line 2): got the text '1e-3'."
    ),
    "output: x": "it has no jobs.",
    "on: push": "YAML 1.1 reads this key as a bool, but every key of a manifest is text.",
}


@pytest.mark.parametrize("text", PROBLEMS)
def test_each_problem_has_its_line_and_cure(text: str, jobs, folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        jobs(f"version: 1\n{text}")
    message = str(caught.value)
    assert message.startswith(f"{folder}/manifest.yaml: ")
    assert PROBLEMS[text].replace("{folder}", str(folder)) in message


def test_all_problems_are_shown_at_once(jobs) -> None:
    with pytest.raises(RecipeError, match=r"manifest\.yaml: 2 problems"):
        jobs("version: 1\nmatrix: {models: [no.pt], recipes: [nothing]}")


def test_another_version_is_refused(jobs) -> None:
    said = r"the manifest has version 2, but this program reads version 1\.\n\s*Update ttcompress"
    with pytest.raises(RecipeError, match=said):
        jobs("version: 2")


def test_paths_that_are_no_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such manifest file"):
        read_manifest(tmp_path / "absent.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(
        RecipeError, match=r"document is empty\.\n .*A small manifest is `version: 1`"
    ):
        read_manifest(tmp_path / "empty.yaml")
