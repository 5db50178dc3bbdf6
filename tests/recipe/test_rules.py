"""Matching a recipe's rules to a model's weights."""

from __future__ import annotations

import re
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.errors import PlanError
from ttcompress.model.weights import Role, Weight
from ttcompress.recipe import Assignment, match, parse_recipe, recipe_from


def weight(name: str, role: Role, rows: int, columns: int, *also: str) -> Weight:
    return Weight(name, (name, *also), role, (rows, columns), "float32")


TIED = weight("encoder.weight", "embedding", 98, 64, "decoder.weight")
IH = weight("lstm.weight_ih_l0", "recurrent", 1024, 64)
HH = weight("lstm.weight_hh_l0", "recurrent", 1024, 256)
HEAD = weight("head.weight", "linear", 98, 256)
MODEL = (TIED, IH, HH, HEAD)


def assign(rules: str, default: str = "keep", head: str = "") -> tuple[Assignment, ...]:
    recipe = f"version: 1\nbudget: {{factor: 8}}\n{head}\ndefault: {default}\nrules: {rules}"
    return match(parse_recipe(recipe), MODEL)


def decided(assignments: tuple[Assignment, ...]) -> list[tuple[int | None, str, str]]:
    return [(a.index, a.format, a.store) for a in assignments]


def refusal(rules: str) -> str:
    with pytest.raises(PlanError) as caught:
        assign(rules)
    return str(caught.value)


def test_without_rules_recurrent_weights_are_decomposed_and_the_rest_kept() -> None:
    assigned = match(parse_recipe("{version: 1, budget: {factor: 8}, store: int4}"), MODEL)
    assert tuple(a.weight for a in assigned) == MODEL
    kept, train = (None, "keep", "float32"), (None, "mps", "int4")
    assert decided(assigned) == [kept, train, train, kept]


def test_without_rules_the_default_decides_about_the_rest() -> None:
    assert [a.format for a in assign("[]", default="decompose")] == ["mps"] * 4


def test_beside_rules_the_default_decides_about_recurrent_weights_too() -> None:
    assert [a.format for a in assign("[{weights: embedding}]")] == ["mps", "keep", "keep", "keep"]


def test_first_match_wins_and_a_rule_falls_back_on_the_recipe() -> None:
    rules = """
  - {weights: "*hh*", format: mpo, store: int4}
  - {weights: recurrent}
  - {weights: linear, format: keep}"""
    assert decided(assign(rules, "decompose", "format: auto")) == [
        (None, "auto", "auto"),
        (1, "auto", "auto"),
        (0, "mpo", "int4"),
        (2, "keep", "float32"),
    ]


def test_an_assignment_carries_modes_and_ranks_of_its_rule() -> None:
    rules = "[{weights: '*hh*', row_modes: [32, 32], column_modes: [256], ranks: [1, 8, 16, 1]}]"
    found = assign(rules)[2]
    assert found.rule is not None
    assert (found.row_modes, found.column_modes, found.ranks) == ((32, 32), (256,), (8, 16))


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("recurrent", [IH, HH]),
        ("embedding", [TIED]),
        ("linear", [HEAD]),
        ("all", list(MODEL)),
        ("*", list(MODEL)),
        ("lstm.weight_?h_l0", [IH, HH]),
        ("head.weight", [HEAD]),
        ("decoder.*", [TIED]),
        ("re:.*weight_hh_l0", [HH]),
        ("re:lstm.*", [IH, HH]),
        ("re:(en|de)coder.weight", [TIED]),
    ],
)
def test_what_a_selector_matches(selector: str, names: list[Weight]) -> None:
    found = assign(f"[{{weights: {selector!r}, format: dense}}]")
    assert [a.weight for a in found if a.format == "dense"] == names


@pytest.mark.parametrize("selector", ["re:lstm", "weight", "LSTM.*", "lstm", "re:.*hh"])
def test_a_selector_speaks_of_full_names(selector: str) -> None:
    assert f"rules[0] (`{selector}`) matches no weight." in refusal(f"[{{weights: {selector!r}}}]")


def test_a_dead_rule_names_the_weights_there_are() -> None:
    assert refusal("[{weights: recurrent}, {weights: 'rnn.*'}]") == (
        "rules[1] (`rnn.*`) matches no weight.\n    The model's weights are: encoder.weight,"
        " lstm.weight_ih_l0, lstm.weight_hh_l0, head.weight."
    )


def test_a_misspelt_role_is_recognised() -> None:
    assert "matches no weight. Did you mean `recurrent`?" in refusal("[{weights: recurent}]")


def test_a_shadowed_rule_names_the_rule_that_took_its_weights() -> None:
    message = refusal("[{weights: recurrent}, {weights: '*hh*'}]")
    assert message.startswith(
        "rules[1] (`*hh*`) never applies: earlier rules already match lstm.weight_hh_l0;"
        " the first is rules[0] (`recurrent`)."
    )


def test_a_long_list_of_weights_is_shortened() -> None:
    many = [weight(f"layer{k}.weight", "linear", 2, 2) for k in range(40)]
    recipe = parse_recipe(
        "version: 1\nbudget: {factor: 8}\ndefault: keep\nrules: [{weights: 'x*'}]"
    )
    with pytest.raises(PlanError, match=r"layer11\.weight and 28 more\.$"):
        match(recipe, many)


def test_a_role_may_match_nothing() -> None:
    recipe = parse_recipe(
        "version: 1\nbudget: {factor: 8}\ndefault: keep\n"
        "rules: [{weights: recurrent}, {weights: embedding, format: dense}, {weights: linear}]"
    )
    assert decided(match(recipe, [HEAD])) == [(2, "mps", "auto")]


def test_modes_must_make_the_weight() -> None:
    rules = "[{weights: '*hh*', row_modes: [32, 16], column_modes: [16, 16]}]"
    assert refusal(rules) == (
        "lstm.weight_hh_l0: row_modes [32, 16] and column_modes [16, 16] make a 512 x 256 matrix,"
        " but the weight is 1024 x 256 (rules[0]).\n"
        "    The row modes must multiply to 1024, for example [32, 32]."
    )


def test_all_that_does_not_fit_is_shown_at_once() -> None:
    message = refusal(
        "[{weights: recurrent, row_modes: [1024], column_modes: [8, 9]}, {weights: 'x.*'}]"
    )
    assert message.count("rules[1] (`x.*`) matches no weight") == 1
    assert message.count("make a 1024 x 72 matrix") == 2
    assert "must multiply to 64, for example [8, 8]" in message
    assert "must multiply to 256, for example [16, 16]" in message


@given(st.integers(1, 5000), st.integers(1, 5))
def test_example_modes_multiply_to_the_size(size: int, count: int) -> None:
    wrong = [size + 1] + [2] * (count - 1)
    rule = {"weights": "head.*", "row_modes": wrong, "column_modes": [7]}
    keys = {"version": 1, "budget": {"factor": 8}, "default": "keep", "rules": [rule]}
    with pytest.raises(PlanError) as caught:
        match(recipe_from(keys), [weight("head.weight", "linear", size, 7)])
    cure = rf"The row modes must multiply to {size}, for example \[(.*)\]\.$"
    found = re.search(cure, str(caught.value))
    assert found is not None
    modes = [int(mode) for mode in found[1].split(", ")]
    assert prod(modes) == size
    assert len(modes) <= count
    assert size == 1 or min(modes) > 1


MASK = weight("attn.mask", "matrix", 16, 16)
BRACKETS = weight("heads[0].table", "matrix", 9, 9)
ODD = (HEAD, MASK, BRACKETS, weight("linear", "matrix", 9, 9))


def assign_odd(rules: str, default: str = "keep") -> list[str]:
    text = f"version: 1\nbudget: {{factor: 8}}\ndefault: {default}\nrules: {rules}"
    return [a.format for a in match(parse_recipe(text), ODD)]


@pytest.mark.parametrize("selector", ["all", "linear", '"*"', '"re:.*"'])
def test_nothing_but_its_name_selects_a_matrix_of_unknown_use(selector: str) -> None:
    assert assign_odd(f"[{{weights: {selector}}}]") == ["mps", "keep", "keep", "keep"]


def test_nor_does_a_default_to_decompose() -> None:
    assert assign_odd("[]", default="decompose") == ["mps", "keep", "keep", "keep"]


def test_its_exact_name_selects_it_even_with_brackets() -> None:
    assert assign_odd('[{weights: attn.mask}, {weights: "heads[0].table"}]') == [
        "keep",
        "mps",
        "mps",
        "keep",
    ]


@pytest.mark.parametrize("selector", ["attn.*", "re:attn[.]mask"])
def test_a_pattern_for_such_matrices_alone_is_refused_with_their_names(selector: str) -> None:
    with pytest.raises(PlanError) as caught:
        assign_odd(f'[{{weights: "{selector}"}}]')
    assert str(caught.value) == (
        f"rules[0] (`{selector}`) matches only matrices that no layer is known to use: attn.mask."
        "\n    Only an exact name compresses such a matrix: if it is a weight, write a rule for"
        " each, for example `- weights: attn.mask`."
    )
