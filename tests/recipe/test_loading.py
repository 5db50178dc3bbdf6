"""Recipe text: what is read, and every way in which it can be wrong."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from ttcompress.errors import InputError, RecipeError, TTCompressError
from ttcompress.recipe import (
    Budget,
    Drop,
    Finetune,
    Rule,
    TaskChoice,
    load_recipe,
    parse_recipe,
    recipe_from,
)

HEAD = "version: 1\nbudget: {factor: 8}\n"


def problems_of(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "mine.yaml")
    return str(caught.value)


def test_every_key_is_read() -> None:
    recipe = parse_recipe(
        """\
version: 1
format: mpo
budget: {factor: 8, size: 2MB, params: 200_000, multiply_adds: 4, tolerance: 0.1, rank: 32}
store: int4
rules:
  - weights: "re:.*weight_hh_l0"
    format: mps
    row_modes: [4, 8, 16]
    column_modes: [8, 16]
    ranks: [8, 24, 24, 12]
    store: float16
  - weights: recurrent
    ranks: 24
  - {weights: embedding, format: dense, store: int8}
default: keep
task: {name: tagger, data: valid.tsv, labels: [O, PER], batch: 16}
finetune: {epochs: 3, max_steps: 900, learning_rate: 1.0e-3, warmup: 0, clip: 5, weight_decay: 0.01,
           distill: 1, temperature: 4, kept: false}
limits: {max_drop: 1%, min_factor: 6, max_size: 1 MiB, min_multiply_adds: 2}
seed: 7
key: generator
"""
    )
    assert (recipe.version, recipe.format, recipe.store, recipe.default) == (
        1, "mpo", "int4", "keep",
    )  # fmt: skip
    assert recipe.budget == Budget(
        factor=8.0, size=2_000_000, params=200_000, multiply_adds=4.0, tolerance=0.1, rank=32
    )
    assert recipe.rules[0] == Rule(
        weights="re:.*weight_hh_l0",
        format="mps",
        store="float16",
        row_modes=(4, 8, 16),
        column_modes=(8, 16),
        ranks=(8, 24, 24, 12),
    )
    assert recipe.rules[1].ranks == 24
    assert recipe.task == TaskChoice(
        name="tagger", options=(("batch", 16), ("data", "valid.tsv"), ("labels", ("O", "PER")))
    )
    assert recipe.finetune == Finetune(
        epochs=3,
        max_steps=900,
        learning_rate=1e-3,
        warmup=0.0,
        clip=5.0,
        weight_decay=0.01,
        distill=1.0,
        temperature=4.0,
        kept=False,
    )
    assert recipe.limits is not None
    assert recipe.limits.max_drop == Drop(0.01, relative=True)
    assert (recipe.limits.min_factor, recipe.limits.max_size) == (6.0, 1024**2)
    assert (recipe.seed, recipe.key) == (7, "generator")


def test_the_smallest_recipe_has_the_documented_defaults() -> None:
    recipe = parse_recipe(HEAD)
    assert (recipe.format, recipe.store, recipe.rules, recipe.default) == (
        "mps",
        "auto",
        (),
        "keep",
    )
    assert (recipe.limits, recipe.seed, recipe.key, recipe.text) == (None, 0, None, HEAD)
    assert (recipe.task, recipe.finetune) == (None, None)


@pytest.mark.parametrize("name", ["charlm", "file.py:Name", "package.module:Name"])
def test_a_task_without_options_is_its_name(name: str) -> None:
    choice = TaskChoice(name=name)
    assert parse_recipe(f"{HEAD}task: {name}").task == choice
    assert parse_recipe(f"{HEAD}task: {{name: {name}}}").task == choice


def test_options_of_a_task_are_plain_values_in_no_order() -> None:
    text = HEAD + "task: {name: t, b: 1, a: text, options: [1, 2.5, true, x], '': ''}"
    choice = parse_recipe(text).task
    assert choice is not None
    assert choice.options == (
        ("", ""), ("a", "text"), ("b", 1), ("options", (1, 2.5, True, "x")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "finetune"),
    [
        ("true", Finetune()),
        ("{}", Finetune()),
        ("{epochs: 0}", Finetune(epochs=0)),
        ("false", None),
    ],
)
def test_fine_tuning_is_switched_on_with_the_documented_defaults(
    written: str, finetune: Finetune | None
) -> None:
    assert parse_recipe(f"{HEAD}finetune: {written}").finetune == finetune


def test_the_defaults_of_fine_tuning() -> None:
    assert asdict(Finetune()) == {
        "epochs": 2,
        "max_steps": None,
        "learning_rate": 2e-3,
        "warmup": 0.05,
        "clip": 1.0,
        "weight_decay": 0.0,
        "distill": 0.5,
        "temperature": 2.0,
        "kept": True,
        "data": None,
        "log": None,
    }


def test_all_problems_are_shown_at_once_each_with_its_line_and_cure() -> None:
    text = """\
version: 1
format: mpo
rules:
  - weights: "*hh*"
    row_modes: [4, 8, 8]
    column_modes: [4, 4, 4]
    ranks: [16, 16, 16]
  - weights: recurrent
    row_mode: [16]
budget:
  tolerance: 1e-3
"""
    assert problems_of(text) == (
        "mine.yaml: 4 problems\n"
        "  default: missing. Rules need it, for the weights that none of them matches:"
        " write `default: keep` or `default: decompose`.\n"
        "  rules[0].ranks (line 7): an mpo with 3 row modes and 3 column modes has 3 cores and"
        " needs 2 ranks, got 3: [16, 16, 16].\n"
        "      A train of n cores has n - 1 ranks; the outer ones are always 1.\n"
        "  rules[1].row_mode (line 9): unknown key. Did you mean `row_modes`?\n"
        "  budget.tolerance (line 11): expected a number, got the text '1e-3'.\n"
        "      YAML 1.1 reads 1e-3 as text; write 1.0e-3."
    )


RULE = HEAD + "default: keep\nrules:\n  - weights: recurrent\n    "

WRONG = {
    # the text: what the message must say
    "": ["1 problem", "document is empty", "version: 1"],
    "# only a comment": ["document is empty"],
    "- 1": ["expected keys, got the list [1]"],
    "plain words": ["expected keys, got the text"],
    "version: 1": ["budget: missing", "budget: {factor: 8}"],
    "budget: {factor: 8}": ["version: missing. Write `version: 1`"],
    "version: 2\nbudget: {factor: 8}": ["version (line 1)", "has version 2", "reads version 1"],
    "version: 0\nbudget: {factor: 8}": ["at least 1, got 0"],
    "version: '1'\nbudget: {factor: 8}": ["whole number, got the text '1'", "without quotes: 1"],
    "version: true\nbudget: {factor: 8}": ["whole number, got true"],
    "version: 1\nbudget: {}": ["budget (line 2): missing"],
    "version: 1\nbudget: 8": ["budget (line 2): expected keys with values, got 8"],
    "version: 1\nbudget:": ["budget (line 2): has no value"],
    "version: 1\nbudget: {factor: 0.125}": ["budget.factor (line 2)", "got 0.125", "write 8."],
    "version: 1\nbudget: {factor: 0}": ["1 or more; got 0"],
    "version: 1\nbudget: {factor: -8}": ["1 or more; got -8"],
    "version: 1\nbudget: {factor: .inf}": ["finite number, got inf"],
    "version: 1\nbudget: {factor: .nan}": ["finite number, got nan"],
    "version: 1\nbudget: {factor: true}": ["a number, got true"],
    "version: 1\nbudget: {factor: [8]}": ["a number, got the list [8]"],
    "version: 1\nbudget: {factor: 1e3}": ["YAML 1.1 reads 1e3 as text; write 1.0e+3"],
    "version: 1\nbudget: {tolerance: 1}": ["from 0 to below 1; got 1", "write 0.1"],
    "version: 1\nbudget: {tolerance: -0.1}": ["from 0 to below 1; got -0.1"],
    "version: 1\nbudget: {rank: 0}": ["budget.rank (line 2)", "at least 1, got 0"],
    "version: 1\nbudget: {rank: 8.0}": ["whole number, got 8.0"],
    "version: 1\nbudget: {rank: 010}": ["YAML 1.1 reads 010 as 8"],
    "version: 1\nbudget: {rank: 1:30}": ["YAML 1.1 reads 1:30 as 90"],
    f"version: 1\nbudget: {{rank: {'9' * 5000}}}": ["budget.rank (line 2): not a value"],
    f"version: 1\nbudget: {{rank: {'9' * 50}}}": ["budget.rank (line 2)", "whole number"],
    "version: 1\nbudget: {size: 2 mega}": ["expected a size", "2MB is 2,000,000"],
    "version: 1\nbudget: {size: 0MB}": ["at least 1, got 0"],
    "version: 1\nbudget: {drop: some}": ["budget.drop (line 2)", "expected a drop", "Write 1%"],
    "version: 1\nbudget: {fctor: 8}": ["budget.fctor (line 2)", "Did you mean `factor`?"],
    HEAD + "limits: {max_drop: one}": ["limits.max_drop (line 3)", "expected a drop", "Write 1%"],
    HEAD + "limits: {max_drop: -1}": ["limits.max_drop (line 3)", "0 or more, got -1"],
    HEAD + "task: 5": ["task (line 3)", "a task's name, or `name:` with options; got 5"],
    HEAD + "task: [charlm]": ["task (line 3)", "got the list ['charlm']", "task: language-model"],
    HEAD + "task: ''": ["task.name (line 3): expected text, got the text ''"],
    HEAD + "task: {text: a.txt}": ["task.name (line 3): missing", "`name: language-model`"],
    HEAD + "task: {name: 5}": ["task.name (line 3): expected text, got 5"],
    HEAD + "task:\n  name: t\n  a: {b: 1}\n  c: 2020-01-01\n  d: 2.0": [
        "2 problems\n  task.a (line 5): expected text, a number, true or false; got the keys",
        "task.c (line 6): expected text, a number, true or false; got datetime.date",
    ],
    HEAD + "task: {name: t, a: [[1]]}": ["task.a (line 3)", "got the list [1]"],
    HEAD + "task: {name: t, a: .nan}": ["task.a (line 3): expected a finite number, got nan"],
    HEAD + "task: {name: t, a: [1e-3]}": ["task.a", "YAML 1.1 reads 1e-3 as text; write 1.0e-3."],
    HEAD + "calibration: {batches: 0}": ["calibration.batches (line 3)"],
    HEAD + "calibration: {samples: 3}": ["samples", "batches"],
    HEAD + "calibration: {data: x.st, synthetic: 8}": ["calibration", "two sources of inputs"],
    "version: 1\nbudget: {tolerance: 0.1}\ncalibration: true": [
        "calibration (line 3)",
        "tolerance",
    ],
    HEAD + "finetune: 2": ["finetune (line 3): expected keys with values, got 2"],
    HEAD + "finetune: {epoch: 2}": ["finetune.epoch (line 3): unknown key", "`epochs`"],
    HEAD + "finetune: {epochs: -1}": ["finetune.epochs (line 3)", "at least 0, got -1"],
    HEAD + "finetune: {epochs: 1.5}": ["whole number, got 1.5"],
    HEAD + "finetune: {max_steps: 0}": ["finetune.max_steps (line 3)", "at least 1, got 0"],
    HEAD + "finetune: {learning_rate: 0}": ["learning rate is above 0; got 0", "Write 2.0e-3"],
    HEAD + "finetune: {learning_rate: -1.0}": ["finetune.learning_rate (line 3)", "got -1.0"],
    HEAD + "finetune: {learning_rate: 2e-3}": ["reads 2e-3 as text; write 2.0e-3."],
    HEAD + "finetune: {learning_rate: .inf}": ["finite number, got inf"],
    HEAD + "finetune: {distill: 1.1}": ["from 0 to 1; got 1.1", "write 0.5"],
    HEAD + "finetune: {distill: -0.1}": ["from 0 to 1; got -0.1"],
    HEAD + "finetune: {temperature: 0}": ["temperature is above 0; got 0"],
    HEAD + "finetune: {warmup: 1}": ["from 0 to below 1; got 1", "write 0.05"],
    HEAD + "finetune: {warmup: -0.1}": ["from 0 to below 1; got -0.1"],
    HEAD + "finetune: {clip: 0}": ["norm above 0; got 0"],
    HEAD + "finetune: {weight_decay: -0.1}": ["0 or more; got -0.1"],
    HEAD + "finetune: {kept: 1}": ["finetune.kept (line 3): expected true or false, got 1"],
    HEAD + "formt: mps": ["formt (line 3): unknown key. Did you mean `format`?"],
    HEAD + "text: mps": ["text (line 3): unknown key"],
    HEAD + "qqq: 1": ["qqq (line 3): unknown key. Known keys: version, format"],
    HEAD + "'a\\e[31mb': 1": ["unknown key"],
    HEAD + "seed: 1\nseed: 2": ["seed (line 4): written twice; the first is on line 3"],
    HEAD + "seed: -1": ["at least 0, got -1"],
    HEAD + "on: 1": ["on (line 3): YAML 1.1 reads this key as a bool"],
    HEAD + "3: 1": ["YAML 1.1 reads this key as a int"],
    HEAD + "[1, 2]: 1": ["a key must be one word"],
    HEAD + "format: dense": ["expected one of mps, mpo, auto; got the text 'dense'"],
    HEAD + "format: tt": ["expected one of mps, mpo, auto; got the text 'tt'"],
    HEAD + "store: int9": ["got the text 'int9'", "Did you mean `int"],
    HEAD + "key: 5": ["expected text, got 5"],
    HEAD + "key: 2020-01-01": ["expected text, got datetime.date"],
    HEAD + "key: 2020-13-45": ["key (line 3): not a value"],
    HEAD + "default: drop": ["one of keep, decompose"],
    HEAD + "rules: {weights: all}": ["rules (line 3): expected a list of rules"],
    HEAD + "default: keep\nrules: [recurrent]": ["rules[0] (line 4): expected keys with values"],
    HEAD + "default: keep\nrules: [{format: mps}]": ["rules[0].weights (line 4): missing"],
    HEAD + "default: keep\nrules: [{weights: 're:['}]": ["not a regular expression", "a glob"],
    HEAD + "default: keep\nrules: [{weights: ''}]": ["expected text, got the text ''"],
    HEAD + "default: keep\nrules: [{weights: all}, {weights: linear}]": [
        "rules[1] (`linear`) never applies: rules[0] (`all`)"
    ],
    HEAD + "default: keep\nrules: [{weights: 'a*'}, {weights: 'a*'}]": [
        "rules[1] (`a*`) never applies"
    ],
    RULE + "format: keep\n    store: int8": ["rules[0].store (line 7)", "kept weight"],
    RULE + "format: dense\n    ranks: 8": ["rules[0].ranks (line 7)", "of format dense"],
    RULE + "format: keep\n    row_modes: [4]\n    column_modes: [4]": ["the format here is keep"],
    RULE + "format: auto\n    row_modes: [4]\n    column_modes: [4]": ["the format here is auto"],
    RULE + "row_modes: [4, 8]": ["go together, but column_modes is missing"],
    RULE + "column_modes: [4, 8]": ["go together, but row_modes is missing"],
    RULE + "row_modes: []\n    column_modes: [4]": ["a list such as [4, 8, 16], got the list []"],
    RULE + "row_modes: [4, 0]\n    column_modes: [4]": ["at least 1, got 0"],
    RULE + "row_modes: [1, 4]\n    column_modes: [4]": ["a mode of 1 makes an mps longer"],
    RULE + "format: mpo\n    row_modes: [4, 8]\n    column_modes: [4]": ["an mpo pairs its modes"],
    RULE + "ranks: [8, 8]": ["[8, 8] are given without row_modes and column_modes"],
    RULE + "ranks: 0": ["at least 1, got 0"],
    RULE + "ranks: [8, true]": ["whole number, got true"],
    RULE + "ranks: 8;8": ["expected ranks", "8,24,12"],
    RULE + "row_modes: [4, 8]\n    column_modes: [4]\n    ranks: [2, 8, 4, 1]": [
        "must be 1; got 2 and 1"
    ],
    RULE + "row_modes: [4, 8]\n    column_modes: [4]\n    ranks: [8]": ["needs 2 ranks, got 1"],
    "version: 1\nbudget: {factor: 8}\nformat: tt\ndefault: keep\nrules:\n  - weights: linear"
    "\n    row_modes: [4]\n    column_modes: [4]\n    ranks: [8, 8, 8]": ["1 problem\n  format"],
    "version: 1\n\tbudget: {factor: 8}": ["line 2", "not YAML", "spaces, never with tabs"],
    "version: 1\nbudget: {factor: 8": ["not YAML", "line 2"],
    "version: 1\n---\nversion: 1": ["not YAML", "line 2"],
    "version: 1\x00": ["not YAML"],
    HEAD + "key: !!python/object/apply:os.getcwd []": ["tag", "no meaning in a recipe"],
    HEAD + "key: !!python/name:os.getcwd": ["not YAML", "line 3"],
    HEAD + "key: &a [*a]": ["nested too deeply"],
    "[" * 5000: ["nested too deeply"],
    "#" * 256_001: ["256,001 characters", "at most 256,000"],
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[:70]))
def test_wrong_text_says_where_what_and_how_to_mend_it(text: str) -> None:
    message = problems_of(text)
    assert message.startswith("mine.yaml: ")
    for part in WRONG[text]:
        assert part in message


def test_aliases_are_bounded_so_that_they_cannot_multiply() -> None:
    # Flat on purpose: nested aliases would fill the memory of whoever breaks the bound.
    few, many = (f"key: [&a x{', *a' * count}]" for count in (16, 17))
    assert "key (line 3): expected text" in problems_of(HEAD + few)
    assert "more than 16 aliases" in problems_of(HEAD + many)


def test_a_few_aliases_are_fine() -> None:
    rules = "[{weights: a, store: &s int4}, {weights: b, store: *s}]"
    text = f"{HEAD}default: keep\nrules: {rules}"
    assert [rule.store for rule in parse_recipe(text).rules] == ["int4", "int4"]


def test_problems_beyond_twenty_are_counted() -> None:
    message = problems_of(HEAD + "\n".join(f"x{k}: 1" for k in range(30)))
    assert message.startswith("mine.yaml: 30 problems\n")
    assert message.endswith("\n  and 10 more.")
    assert len(message.splitlines()) == 22


@pytest.mark.parametrize(
    ("format", "ranks", "interior"),
    [
        ("mps", "[8, 16]", (8, 16)),
        ("mps", "[1, 8, 16, 1]", (8, 16)),
        ("mps", "'8,16'", (8, 16)),
        ("mpo", "[1, 8, 1]", (8,)),
        ("mpo", "[8]", (8,)),
    ],
)
def test_ranks_are_interior_in_both_spellings(
    format: str, ranks: str, interior: tuple[int, ...]
) -> None:
    columns = "[16]" if format == "mps" else "[2, 8]"
    text = f"""\
version: 1
format: {format}
budget: {{factor: 8}}
rules: [{{weights: w, row_modes: [4, 8], column_modes: {columns}, ranks: {ranks}}}]
default: keep
"""
    assert parse_recipe(text).rules[0].ranks == interior


FIXED = "{weights: w, row_modes: [4], column_modes: [4], ranks: [2]}"


def test_fixed_ranks_and_stores_need_no_budget() -> None:
    table = "{weights: embedding, format: dense}"
    text = f"version: 1\nstore: int8\ndefault: keep\nrules: [{FIXED}, {table}]"
    assert parse_recipe(text).budget == Budget()


@pytest.mark.parametrize(
    "text",
    [
        f"version: 1\nstore: auto\ndefault: keep\nrules: [{FIXED}]",
        f"version: 1\nstore: int8\ndefault: decompose\nrules: [{FIXED}]",
        f"version: 1\nstore: int8\ndefault: keep\nrules: [{FIXED}, {{weights: x}}]",
        "version: 1\nstore: int8\ndefault: keep\nrules: [{weights: x, ranks: 8}]",
    ],
)
def test_anything_left_to_choose_needs_a_budget(text: str) -> None:
    assert "budget: missing" in problems_of(text)


def test_python_mappings_read_like_files() -> None:
    mapping = {
        "version": 1,
        "budget": {"size": "2MB", "factor": None},
        "rules": ({"weights": "linear", "ranks": (8,), "row_modes": (2,), "column_modes": (2,)},),
        "default": "keep",
        "seed": None,
    }
    recipe = recipe_from(mapping)
    assert recipe.budget == Budget(size=2_000_000)
    assert (recipe.rules[0].ranks, recipe.seed, recipe.text) == ((8,), 0, "")


def test_python_mappings_hold_a_task_as_a_value_or_as_keys() -> None:
    keys = {"name": "t", "labels": ("A", "B"), "unknown": None}
    for task in (keys, TaskChoice(name="t", options=(("labels", ("A", "B")),))):
        recipe = recipe_from({"version": 1, "budget": {"rank": 3}, "task": task})
        assert recipe.task == TaskChoice(name="t", options=(("labels", ("A", "B")),))


def test_a_task_has_its_name_once() -> None:
    with pytest.raises(ValueError, match="`name` names the task"):
        TaskChoice(name="t", options=(("name", "u"),))


def test_a_mapping_with_strange_keys_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"recipe: 1 problem\n  '3': unknown key"):
        recipe_from({"version": 1, "budget": {"rank": 3}, 3: 4})  # type: ignore[dict-item]


def test_a_file_is_read_with_its_path_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load_recipe(path).text == HEAD
    path.write_text("version: 1")
    with pytest.raises(RecipeError, match=r"mine\.yaml: 1 problem"):
        load_recipe(str(path))


def test_paths_that_are_no_recipe_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such recipe file"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="is a folder"):
        load_recipe(tmp_path)
    (tmp_path / "large.pt").write_bytes(b"x" * 256_001)
    with pytest.raises(RecipeError, match="is larger than 256,000 bytes"):
        load_recipe(tmp_path / "large.pt")
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(RecipeError, match="is not text"):
        load_recipe(tmp_path / "model.pt")
    with pytest.raises(TTCompressError, match="cannot be read"):
        load_recipe(tmp_path / "model.pt" / "below")


def test_a_drop_is_written_as_it_is_read() -> None:
    assert Drop(0.005, relative=True).written == "0.5%"
