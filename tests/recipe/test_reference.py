"""The JSON Schema and the reference, which are made from what the recipe's keys declare."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ttcompress.errors import RecipeError
from ttcompress.recipe import parse_recipe, recipe_from, shipped
from ttcompress.recipe.manifest import Manifest
from ttcompress.recipe.overrides import OVERRIDES
from ttcompress.recipe.reference import json_schema, markdown
from ttcompress.recipe.schema import Recipe
from ttcompress.recipe.sections import Section

RECIPES = Path(__file__).parents[2] / "recipes"
SCHEMA = json_schema()
HEAD = "version: 1\nbudget: {factor: 8}\n"
RULE = HEAD + "default: keep\nrules:\n  - "

FILES = {"schema.json": Recipe, "batch/schema.json": Manifest}

GOOD = [
    "version: 1\nbudget: {size: 2MB}",
    "version: 1\nbudget: {size: ' 1.5 KiB '}",
    "version: 1\nbudget: {size: 4096, rank: 8, tolerance: 0, params: 9, multiply_adds: 1.5}",
    "version: 1\nbudget: {drop: 1%}",
    "version: 1\nbudget: {drop: 0.05}",
    HEAD + "finetune: true\ncalibration: false",
    HEAD + "finetune: {epochs: 0, learning_rate: 1, distill: 1, kept: false}",
    HEAD + "calibration: {batches: 3, data: inputs.safetensors}",
    HEAD + "task: file.py:Name",
    HEAD + "task: {name: t, options: [1, 2.5, true, x], text: a.txt, '': 1}",
    HEAD + "limits: {max_drop: 0.5 %, max_size: 9kB}\nseed: 0\nkey: model\nformat: auto",
    RULE + "{weights: 're:.*hh', ranks: 8, store: int3}",
    RULE + "{weights: 'lstm.*', row_modes: [4, 8], column_modes: [16], ranks: [8, 24]}",
    RULE + "{weights: a, row_modes: [4, 8], column_modes: [16], ranks: '8, 24'}",
    RULE + "{weights: embedding, format: dense}\n  - {weights: all, format: keep}",
]

BAD = [
    "budget: {factor: 8}",
    "version: 2\nbudget: {factor: 8}",
    "version: true\nbudget: {factor: 8}",
    "version: 1\nbudget: 8",
    "version: 1\nbudget: {fctor: 8}",
    "version: 1\nbudget: {factor: 0.5}",
    "version: 1\nbudget: {factor: '8'}",
    "version: 1\nbudget: {tolerance: 1}",
    "version: 1\nbudget: {rank: 0}",
    "version: 1\nbudget: {size: 2 mega}",
    "version: 1\nbudget: {size: 2kibi}",
    "version: 1\nbudget: {drop: some}",
    "version: 1\nbudget: {drop: -1}",
    HEAD + "format: dense",
    HEAD + "store: int9",
    HEAD + "key: ' '",
    HEAD + "seed: -1",
    HEAD + "text: mps",
    HEAD + "task: 5",
    HEAD + "task: {text: a.txt}",
    HEAD + "task: {name: t, a: {b: 1}}",
    HEAD + "finetune: 2",
    HEAD + "finetune: {learning_rate: 0}",
    HEAD + "finetune: {warmup: 1}",
    HEAD + "finetune: {distill: 1.1}",
    HEAD + "finetune: {kept: 1}",
    HEAD + "calibration: {samples: 3}",
    HEAD + "limits: {max_drop: one}",
    HEAD + "default: keep\nrules: {weights: all}",
    HEAD + "default: keep\nrules: [recurrent]",
    HEAD + "default: keep\nrules: [{format: mps}]",
    RULE + "{weights: all, row_modes: [], column_modes: [4]}",
    RULE + "{weights: all, ranks: 8;8}",
    RULE + "{weights: all, ranks: [0]}",
]


@pytest.mark.parametrize("name", FILES)
def test_the_schema_in_the_repository_is_the_programs(name: str) -> None:
    schema = json.loads((RECIPES / name).read_text(encoding="utf-8"))
    assert schema == json_schema(FILES[name]), "write it anew with `ttcompress recipes schema`"


@pytest.mark.parametrize("name", FILES)
def test_every_file_beside_a_schema_names_it_and_is_accepted(name: str, accepts) -> None:
    schema = json_schema(FILES[name])
    found = sorted((RECIPES / name).parent.glob("*.yaml"))
    assert found
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=schema.json\n")
        assert accepts(schema, yaml.safe_load(text)), path


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_accepts_what_is_read(text: str, accepts) -> None:
    assert parse_recipe(text)
    assert accepts(SCHEMA, yaml.safe_load(text))


@pytest.mark.parametrize("text", BAD)
def test_the_schema_refuses_what_an_editor_can_see(text: str, accepts) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text)
    assert not accepts(SCHEMA, yaml.safe_load(text))


def test_the_schemas_are_schemas() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for document in FILES.values():
        jsonschema.Draft202012Validator.check_schema(json_schema(document))


def sections(section: type[Section]) -> set[type[Section]]:
    inner = {key.kind.section for key in section.KEYS.values() if key.kind.section}
    return {section}.union(*map(sections, inner))


@pytest.mark.parametrize("document", [Recipe, Manifest])
def test_the_reference_has_every_key_once_with_help_and_default(document: type[Section]) -> None:
    written = markdown(document)
    rows = [line for line in written.splitlines() if line.startswith("| `") or "any other" in line]
    assert len(rows) == sum(len(section.KEYS) for section in sections(document))
    for section in sections(document):
        for key in section.KEYS.values():
            assert key.help.endswith((".", "]", "..."))
            assert any(row.endswith(f" {key.help} |") for row in rows)


def test_a_row_of_the_reference() -> None:
    assert (
        "| `batches` | a whole number from 1 | `24` | `--calibrate` |"
        " Calibrate on the inputs in N batches of the task's training data. |\n"
    ) in markdown()


def test_every_option_replaces_a_key_of_the_recipe() -> None:
    assert OVERRIDES["max_size"][0] == ("limits", "max_size")
    assert OVERRIDES["data"][0] == ("calibration", "data")
    assert "default" not in OVERRIDES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, r"Recipe: 1 problem\n  seed: expected a whole number of at least 0"),
        ({"store": "int9", "format": "tt"}, "Recipe: 2 problems"),
        ({"version": None}, "version: missing"),
    ],
)
def test_a_recipe_made_in_python_is_checked_too(change: dict[str, Any], message: str) -> None:
    recipe = recipe_from({"version": 1, "budget": {"factor": 8}})
    with pytest.raises(ValueError, match=message):
        replace(recipe, **change)


def test_shipped_recipes_are_known_by_their_description() -> None:
    titles = [recipe.title for recipe in shipped()]
    assert titles
    assert not any("schema" in title for title in titles)
