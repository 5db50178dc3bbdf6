"""The shipped recipes: each can be found, read, and used on the models it speaks of."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ttcompress.errors import InputError
from ttcompress.model.weights import Weight
from ttcompress.recipe import (
    Budget,
    CalibrationChoice,
    Finetune,
    ShippedRecipe,
    default_recipe,
    effective,
    find_recipe,
    load_recipe,
    match,
    recipe_from,
    shipped,
    with_options,
)

CHARLM = tuple(
    Weight(name, (name,), role, shape, "float32", gates)
    for name, role, shape, gates in (
        ("embedding.weight", "embedding", (98, 64), 1),
        ("lstm.weight_ih_l0", "recurrent", (1024, 64), 4),
        ("lstm.weight_hh_l0", "recurrent", (1024, 256), 4),
        ("lstm.weight_ih_l1", "recurrent", (1024, 256), 4),
        ("lstm.weight_hh_l1", "recurrent", (1024, 256), 4),
        ("head.weight", "linear", (98, 256), 1),
    )
)
BUDGETS = {
    "balanced": Budget(factor=8),
    "small": Budget(factor=16),
    "tiny": Budget(factor=32),
    "small-finetuned": Budget(factor=16),
    "tiny-finetuned": Budget(factor=32),
    "fast": Budget(multiply_adds=8),
    "device": Budget(multiply_adds=3),
    "mpo": Budget(factor=8),
    "near-lossless": Budget(tolerance=0.03),
    "explicit-ranks": Budget(),
}
TUNED = {"small-finetuned": "small", "tiny-finetuned": "tiny"}
TEMPERATURES = {"small-finetuned": 2.0, "tiny-finetuned": 1.0}


def test_the_shipped_recipes_are_these() -> None:
    assert {recipe.name: load_recipe(recipe.path).budget for recipe in shipped()} == BUDGETS


@pytest.mark.parametrize("recipe", shipped(), ids=lambda recipe: recipe.name)
def test_each_opens_with_what_for_and_the_command(recipe: ShippedRecipe) -> None:
    lines = recipe.path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=schema.json"
    assert lines[1] == f"# {recipe.title}"
    assert recipe.title.endswith(".")
    task = " --task charlm" if load_recipe(recipe.path).finetune else ""
    command = f"ttcompress decompose sample_models/charlm.pt -r {recipe.name}{task}"
    assert lines[2] == f"#   {command}"


@pytest.mark.parametrize("name", TUNED)
def test_fine_tuning_leaves_everything_else_and_the_task_open(name: str) -> None:
    tuned, plain = (load_recipe(find_recipe(n)) for n in (name, TUNED[name]))
    assert tuned.finetune == Finetune(epochs=3, temperature=TEMPERATURES[name])
    assert tuned.calibration == CalibrationChoice(batches=24)
    assert with_options(tuned, finetune=False) == replace(plain, calibration=tuned.calibration)


@pytest.mark.parametrize("shipped_recipe", shipped(), ids=lambda recipe: recipe.name)
def test_each_decides_about_every_weight_of_the_sample(shipped_recipe: ShippedRecipe) -> None:
    recipe = load_recipe(shipped_recipe.path)
    formats = {a.weight.role: a.format for a in match(recipe, CHARLM)}
    assert formats["recurrent"] == recipe.format
    assert formats["embedding"] == "dense"
    assert recipe_from(effective(recipe)) == recipe


@pytest.mark.parametrize("name", sorted(BUDGETS.keys() - {"explicit-ranks"}))
def test_all_but_the_worked_example_fit_any_model(name: str) -> None:
    for weight in CHARLM:
        assert len(match(load_recipe(find_recipe(name)), [weight])) == 1


def test_the_default_is_balanced() -> None:
    assert default_recipe() == load_recipe(find_recipe("balanced"))
    decided = {a.weight.role: (a.format, a.store) for a in match(default_recipe(), CHARLM)}
    dense = ("dense", "int8")
    assert decided == {"recurrent": ("auto", "auto"), "embedding": dense, "linear": dense}


def test_a_path_is_found_as_well_as_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text("mine")
    assert find_recipe("small.yaml") == Path("small.yaml")
    assert find_recipe(tmp_path / "small.yaml") == tmp_path / "small.yaml"
    assert find_recipe("small").read_text() != "mine"
    (tmp_path / "small").write_text("mine")
    assert find_recipe("small").read_text() != "mine"
    (tmp_path / "mine").write_text("mine")
    assert find_recipe("mine") == Path("mine")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("balancd", "Did you mean `balanced`"),
        ("qqq", "The shipped recipes are: balanced, device, explicit-ranks, fast,"),
        ("small.yml", "there is no such recipe file"),
        ("folder/small", "there is no such recipe file"),
    ],
)
def test_a_recipe_that_is_nowhere(wanted: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_recipe(wanted)


def test_recipes_are_read_without_torch() -> None:
    code = "import sys, ttcompress.recipe as r; r.default_recipe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_formats_are_chosen_by_the_program_unless_the_recipe_is_about_one() -> None:
    formats = {recipe.name: load_recipe(recipe.path).format for recipe in shipped()}
    about_one = {"mpo": "mpo", "explicit-ranks": "mps"}
    assert formats == dict.fromkeys(BUDGETS, "auto") | about_one


@pytest.mark.parametrize("format", ["mps", "mpo"])
def test_the_option_sets_the_format_of_every_train(format: str) -> None:
    chosen = with_options(default_recipe(), format=format)
    formats = {a.weight.name: a.format for a in match(chosen, CHARLM)}
    recurrent = {weight.name for weight in CHARLM if weight.role == "recurrent"}
    assert {name for name, found in formats.items() if found == format} == recurrent
