"""The recipe as frozen dataclasses: plain mappings come in through pydantic, checked values go out.

pydantic walks the classes, fills in defaults and finds every wrong value, not only the first;
`units.py` reads single values, `modes.py` checks what modes and ranks must agree on, `training.py`
holds the task and its training. The format of the whole recipe reaches its rules as the validation
context `{"format": ...}`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from ttcompress.errors import RecipeError
from ttcompress.planning.formats import AUTO as AUTO_FORMAT
from ttcompress.planning.formats import FORMATS, KEEP, decomposing, is_whole
from ttcompress.recipe.modes import check_modes, interior_ranks
from ttcompress.recipe.readers import CONFIG, Count, reader
from ttcompress.recipe.selectors import check_selector
from ttcompress.recipe.training import (
    CalibrationChoice,
    Finetune,
    TaskChoice,
    named_task,
    switched,
)
from ttcompress.recipe.units import (
    Drop,
    one_of,
    parse_count,
    parse_drop,
    parse_factor,
    parse_modes,
    parse_ranks,
    parse_size,
    parse_text,
    parse_tolerance,
    whole,
)
from ttcompress.recipe.wording import described
from ttcompress.stores.store import AUTO, STORES

VERSION: Final = 1

Default = Literal["keep", "decompose"]


def _version(value: object) -> int:
    version = parse_count(value)
    if version > VERSION:
        raise RecipeError(
            f"the recipe is of version {version}, and this program reads version {VERSION}."
            "\nUpdate ttcompress."
        )
    return version


def _recipe_format(value: object) -> str:
    """One of the formats that decompose, whichever are registered by now, or `auto`."""
    return one_of(*decomposing(), AUTO_FORMAT)(value)


def _rule_format(value: object) -> str:
    """The same, a format without ranks, or `keep`."""
    trains = decomposing()
    others = (name for name in FORMATS if name not in trains)
    return one_of(*trains, AUTO_FORMAT, *others, KEEP)(value)


def _rule_list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of rules, got {described(value)}.")
    return value


_Factor = Annotated[float | None, reader(parse_factor)]
_Size = Annotated[int | None, reader(parse_size)]
_Tolerance = Annotated[float | None, reader(parse_tolerance)]
_Drop = Annotated[Drop | None, reader(parse_drop)]
_Text = Annotated[str | None, reader(parse_text)]
_Modes = Annotated[tuple[int, ...] | None, reader(parse_modes)]
_Ranks = Annotated[tuple[int, ...] | int | None, reader(parse_ranks)]
_Selector = Annotated[str, reader(check_selector)]
_Store = reader(one_of(AUTO, *STORES))


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Budget:
    """What the result must reach; whatever is set must hold together.

    `factor` and `multiply_adds` say how many times fewer bytes and multiply-adds the decomposed
    weights take, `size` is the bytes of the file, `params` the values of the decomposed weights,
    `tolerance` the relative Frobenius error of each weight as stored, `rank` a cap on every rank.
    `drop` is how much the task's counting metric may worsen: the largest factor is searched for.
    """

    rank: Count = None
    tolerance: _Tolerance = None
    factor: _Factor = None
    size: _Size = None
    params: Count = None
    multiply_adds: _Factor = None
    drop: _Drop = None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Limits:
    """What a finished run is judged by."""

    max_drop: _Drop = None
    min_factor: _Factor = None
    max_size: _Size = None
    min_multiply_adds: _Factor = None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Rule:
    """What to do with the weights that a selector matches; None leaves it to the recipe.

    `ranks` are interior (one fewer than cores) and fixed; a single number is a cap on all of them.
    """

    weights: _Selector
    format: Annotated[str | None, reader(_rule_format)] = None
    store: Annotated[str | None, _Store] = None
    row_modes: _Modes = None
    column_modes: _Modes = None
    ranks: _Ranks = None

    @field_validator("store")
    @classmethod
    def _store_is_used(cls, store: str | None, info: ValidationInfo) -> str | None:
        if store and info.data.get("format") == KEEP:
            raise ValueError("a kept weight stays as it is and has no store. Take the key out.")
        return store

    @field_validator("column_modes")
    @classmethod
    def _modes_agree(
        cls, columns: tuple[int, ...] | None, info: ValidationInfo
    ) -> tuple[int, ...] | None:
        if "row_modes" in info.data:
            check_modes(info.data["row_modes"], columns, _format_here(info))
        return columns

    @field_validator("ranks")
    @classmethod
    def _ranks_are_interior(
        cls, ranks: tuple[int, ...] | int | None, info: ValidationInfo
    ) -> tuple[int, ...] | int | None:
        format = _format_here(info)
        if ranks is not None and is_whole(format):
            raise ValueError(f"a weight of format {format} has no ranks. Take the key out.")
        if not isinstance(ranks, tuple) or not {"row_modes", "column_modes"} <= info.data.keys():
            return ranks
        return interior_ranks(ranks, info.data["row_modes"], info.data["column_modes"], format)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Recipe:
    """Everything a user asks for. Make one with `load_recipe`, `parse_recipe` or `recipe_from`.

    Without rules the recurrent weights are decomposed and `default` decides about the rest.
    `budget` is empty only where every decomposed weight has fixed ranks and a store. `text` is the
    recipe as written, "" when it was built from Python, and takes no part in equality.
    """

    version: Annotated[int, reader(_version)]
    format: Annotated[str, reader(_recipe_format)] = "mps"
    store: Annotated[str, _Store] = AUTO
    rules: Annotated[tuple[Rule, ...], BeforeValidator(_rule_list)] = ()
    default: Annotated[Default, reader(one_of("keep", "decompose"))] = None  # type: ignore[assignment]
    budget: Budget = Budget()
    task: Annotated[TaskChoice | None, BeforeValidator(named_task)] = None
    calibration: Annotated[CalibrationChoice | None, BeforeValidator(switched)] = None
    finetune: Annotated[Finetune | None, BeforeValidator(switched)] = None
    limits: Limits | None = None
    seed: Annotated[int, reader(whole(0))] = 0
    key: _Text = None
    text: str = field(default="", compare=False, repr=False)

    @field_validator("rules")
    @classmethod
    def _rules_are_reachable(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        earlier: dict[str, int] = {}
        for index, rule in enumerate(rules):
            taker = earlier.get(rule.weights, earlier.get("all", earlier.get("*")))
            if taker is not None:
                raise ValueError(
                    f"rules[{index}] (`{rule.weights}`) can never match: rules[{taker}]"
                    f" (`{rules[taker].weights}`) takes all of its weights."
                    "\nThe first match wins: put the narrower rule first."
                )
            earlier[rule.weights] = index
        return rules

    @field_validator("default")
    @classmethod
    def _default_stands_beside_rules(cls, default: Default | None, info: ValidationInfo) -> Default:
        # Rules that are wrong are absent here, but they are there.
        if default is None and info.data.get("rules", True):
            raise ValueError(
                "missing. Beside rules, say what happens to the weights that none of them"
                " matches: `default: keep` or `default: decompose`."
            )
        return default or KEEP

    @field_validator("calibration")
    @classmethod
    def _calibration_agrees(
        cls, calibration: CalibrationChoice | None, info: ValidationInfo
    ) -> CalibrationChoice | None:
        budget = info.data.get("budget")
        if calibration is not None and budget is not None and budget.tolerance is not None:
            raise ValueError(
                "a tolerance bounds the error of the weights themselves, and calibration minimises "
                "that of their outputs.\nTake another budget beside it, as `budget: {factor: 8}`."
            )
        return calibration

    @field_validator("budget")
    @classmethod
    def _budget_is_enough(cls, budget: Budget, info: ValidationInfo) -> Budget:
        known = {"rules", "default", "store"} <= info.data.keys()
        if budget == Budget() and known and not _all_is_fixed(info.data):
            raise ValueError(
                "missing. It says what the result must reach, for example `budget: {factor: 8}`."
                "\nOnly where every decomposed weight has a list of ranks and a store other than"
                " auto is there nothing left to choose."
            )
        return budget


def _format_here(info: ValidationInfo) -> str | None:
    """The format in force in a rule: its own, otherwise the recipe's; None where that is wrong."""
    own: str | None = info.data.get("format")
    return own or (info.context or {}).get("format")


def _all_is_fixed(known: dict[str, Any]) -> bool:
    """Whether a recipe leaves no rank and no store for a budget to choose."""
    rules: tuple[Rule, ...] = known["rules"]
    changed = [rule for rule in rules if rule.format != KEEP]
    return (
        bool(changed)
        and known["default"] == KEEP
        and all((rule.store or known["store"]) != AUTO for rule in changed)
        and all(isinstance(rule.ranks, tuple) or is_whole(rule.format) for rule in changed)
    )
