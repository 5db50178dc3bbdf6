"""Options laid over a recipe, and the recipe in force as plain values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.errors import RecipeError
from ttcompress.recipe import (
    Budget,
    Drop,
    Finetune,
    Limits,
    TaskChoice,
    effective,
    parse_recipe,
    recipe_from,
    with_options,
)
from ttcompress.recipe.reference import json_schema

TEXT = """\
version: 1
budget: {factor: 8, rank: 64}
rules:
  - {weights: recurrent, format: mpo, ranks: 24}
  - {weights: embedding, format: dense, store: int8}
  - {weights: linear, format: keep}
default: keep
task: {name: tagger, data: valid.tsv, labels: [O, PER]}
finetune: {epochs: 5}
limits: {min_factor: 6}
seed: 3
"""
RECIPE = parse_recipe(TEXT)
SCHEMA = json_schema()
LABELLED = TaskChoice(name="tagger", options=(("labels", ("X", "Y")),))


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        ({"store": "int4"}, "store", "int4"),
        ({"seed": 0}, "seed", 0),
        ({"key": "generator"}, "key", "generator"),
        ({"format": "mpo"}, "format", "mpo"),
        ({"format": "tt"}, "format", "mps"),
        ({"format": "tensor-train"}, "format", "mps"),
        ({"format": "TTM"}, "format", "mpo"),
        ({"format": "tt-matrix"}, "format", "mpo"),
        ({"format": "blocktt"}, "format", "mpo"),
        ({"factor": 16}, "budget", Budget(factor=16.0)),
        ({"tolerance": 0}, "budget", Budget(tolerance=0.0)),
        ({"size": "2MB", "params": 9}, "budget", Budget(size=2_000_000, params=9)),
        ({"multiply_adds": 4.0, "rank": 8}, "budget", Budget(multiply_adds=4.0, rank=8)),
        ({"task": "tagger"}, "task", RECIPE.task),
        ({"task": "charlm"}, "task", TaskChoice(name="charlm")),
        ({"task": TaskChoice(name="tagger")}, "task", TaskChoice(name="tagger")),
        ({"task": LABELLED}, "task", LABELLED),
        ({"finetune": True}, "finetune", Finetune(epochs=5)),
        ({"finetune": False}, "finetune", None),
    ],
)
def test_an_option_replaces_the_key_of_its_name(
    options: Any, attribute: str, value: object
) -> None:
    changed = with_options(RECIPE, **options)
    assert getattr(changed, attribute) == value
    others = {"store", "seed", "key", "budget", "default", "task", "finetune", "limits", "text"}
    for other in others - {attribute}:
        assert getattr(changed, other) == getattr(RECIPE, other)


def test_no_option_changes_nothing() -> None:
    assert with_options(RECIPE, factor=None, format=None) is RECIPE


def test_a_limit_replaces_that_limit_alone() -> None:
    limits = with_options(RECIPE, max_size="1MB", max_drop="1%").limits
    assert limits == Limits(max_drop=Drop(0.01, relative=True), min_factor=6.0, max_size=1_000_000)


def test_fine_tuning_without_a_block_has_the_defaults() -> None:
    recipe = parse_recipe("{version: 1, budget: {factor: 8}}")
    assert with_options(recipe, finetune=True).finetune == Finetune()
    assert with_options(recipe, finetune=False) == recipe


def test_format_is_of_every_train_and_of_nothing_else() -> None:
    rules = with_options(RECIPE, format="mps").rules
    assert [rule.format for rule in rules] == [None, "dense", "keep"]
    assert rules[0].ranks == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 0.5}, "recipe with --factor: 1 problem\n  --factor: a factor says"),
        ({"multiply_adds": 0}, "--multiply-adds: a factor says"),
        ({"size": "2 mega"}, "--size: expected a size, got the text '2 mega'"),
        ({"rank": (8, 24)}, "--rank: expected a whole number, got the list"),
        ({"format": "dense"}, "--format: expected one of mps, mpo, auto"),
        ({"store": "int9", "seed": -1}, "recipe with --store --seed: 2 problems\n  --s"),
        ({"min_factor": 0}, "--min-factor: a factor says"),
        ({"max_drop": "one"}, "--max-drop: expected a drop, got the text 'one'"),
        ({"task": " "}, "recipe with --task: 1 problem\n  --task: expected text, got"),
        ({"finetune": 1}, "--finetune: expected keys with values, got 1"),
        ({"factr": 1}, "--factr: unknown key."),
    ],
)
def test_a_wrong_option_is_named_as_it_is_typed(options: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        with_options(RECIPE, **options)
    assert message in str(caught.value)


def test_an_option_that_does_not_fit_a_rule_says_which() -> None:
    rule = {"weights": "w", "row_modes": [4, 8], "column_modes": [16], "ranks": [2, 4]}
    recipe = recipe_from(
        {"version": 1, "budget": {"factor": 2}, "rules": [rule], "default": "keep"}
    )
    with pytest.raises(RecipeError, match=r"recipe with --format: 1 problem\n  rules\[0\]\.column"):
        with_options(recipe, format="mpo")


def test_effective_holds_every_key_in_force_and_no_text() -> None:
    assert effective(parse_recipe("{version: 1, budget: {size: 2MB}}")) == {
        "version": 1,
        "format": "mps",
        "store": "auto",
        "target": "file",
        "default": "keep",
        "budget": {"size": 2_000_000},
        "seed": 0,
    }


def test_a_task_and_its_training_are_effective_in_full() -> None:
    plain = effective(RECIPE)
    assert plain["task"] == {"name": "tagger", "data": "valid.tsv", "labels": ["O", "PER"]}
    assert plain["finetune"] == {
        "epochs": 5,
        "learning_rate": 2e-3,
        "warmup": 0.05,
        "clip": 1.0,
        "weight_decay": 0.0,
        "distill": 0.5,
        "temperature": 2.0,
        "kept": True,
    }


def test_a_drop_is_effective_as_it_is_written() -> None:
    recipe = replace(RECIPE, limits=Limits(max_drop=Drop(0.01, relative=True)))
    assert effective(recipe)["limits"] == {"max_drop": "1%"}


factors = st.floats(1, 1e6)
budgets = st.fixed_dictionaries(
    {"factor": factors},
    optional={
        "rank": st.integers(1, 2**40),
        "tolerance": st.floats(0, 1, exclude_max=True),
        "size": st.integers(1, 2**60),
        "model_factor": factors,
        "params": st.integers(1, 2**60),
        "multiply_adds": factors,
    },
)
trains = st.fixed_dictionaries(
    {
        "row_modes": st.lists(st.integers(2, 99), min_size=2, max_size=2),
        "column_modes": st.lists(st.integers(2, 99), min_size=2, max_size=2),
        "ranks": st.lists(st.integers(1, 99), min_size=3, max_size=3) | st.integers(1, 99),
    },
    optional={"store": st.sampled_from(["auto", "int2", "float16"])},
)
plain_rules = st.sampled_from(
    [{"format": "dense", "store": "int8"}, {"format": "keep"}, {"ranks": 8}, {"format": "auto"}]
)
# Words only: a text such as `1e-3` is refused.
words = st.from_regex(r"[a-z]+[-\w é.:/]*", fullmatch=True)
scalars = words | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(-1e18, 1e18) | st.booleans()
tasks = words | st.builds(
    lambda options, name: options | {"name": name},
    st.dictionaries(words, scalars | st.lists(scalars, max_size=3), max_size=4),
    words,
)
finetunes = st.booleans() | st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(0, 2**40),
        "max_steps": st.integers(1, 2**40),
        "learning_rate": st.floats(0, 1e18, exclude_min=True),
        "warmup": st.floats(0, 1, exclude_max=True),
        "clip": st.floats(0, 1e18, exclude_min=True),
        "weight_decay": st.floats(0, 1e18),
        "distill": st.floats(0, 1),
        "temperature": st.floats(0, 1e18, exclude_min=True),
        "kept": st.booleans(),
    },
)
drops = st.floats(0, 1e9) | st.integers(0, 999).map(lambda tenths: f"{tenths / 10}%")
recipes = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "budget": budgets,
        "default": st.sampled_from(["keep", "decompose"]),
        "rules": st.lists(trains.map(lambda rule: rule | {"format": "mps"}) | plain_rules).map(
            lambda rules: [rule | {"weights": f"w{k}.*"} for k, rule in enumerate(rules)]
        ),
    },
    optional={
        "format": st.sampled_from(["mps", "mpo", "auto"]),
        "store": st.sampled_from(["auto", "int4", "bfloat16"]),
        "task": tasks,
        "finetune": finetunes,
        "limits": st.fixed_dictionaries({}, optional={"min_factor": factors, "max_drop": drops}),
        "seed": st.integers(0, 2**63 - 1),
        "key": st.from_regex(r"[a-z]+[-\w é]*", fullmatch=True),
    },
)


@given(recipes)
def test_the_schema_accepts_every_recipe_that_is_read(accepts, mapping: dict[str, Any]) -> None:
    assert accepts(SCHEMA, mapping)
    assert accepts(SCHEMA, effective(recipe_from(mapping)))


@given(recipes)
def test_reading_the_effective_recipe_gives_the_same_recipe(mapping: dict[str, Any]) -> None:
    recipe = recipe_from(mapping)
    plain = effective(recipe)
    assert json.loads(json.dumps(plain)) == plain
    again = parse_recipe(yaml.safe_dump(plain))
    assert effective(again) == plain
    if mapping.get("limits") != {}:  # no limits are written as no key
        assert again == recipe
