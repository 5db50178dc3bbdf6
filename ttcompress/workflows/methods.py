"""Makes the recipe by which each method of a comparison compresses a model to equal bytes.

mps, mpo and auto follow the recipe under that format. svd and quantised are what a user would do
by hand: each weight cut by the same factor with int8 factors; every weight dense in few bits. codec
is NNCodec: its recipe leaves what it codes dense and exact, see `ttcompress.workflows.codec`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ttcompress.errors import RecipeError
from ttcompress.model.weights import UNKNOWN, Weight
from ttcompress.planning.formats import AUTO as AUTO_FORMAT
from ttcompress.planning.formats import KEEP, DenseLayout, MpsLayout, decomposing
from ttcompress.recipe import (
    Assignment,
    Recipe,
    effective,
    match,
    recipe_from,
    with_options,
)
from ttcompress.stores import AUTO, STORES

BY_HAND = ("svd", "quantised")
CODEC = "codec"
METHODS = (*decomposing(), *BY_HAND, CODEC, AUTO_FORMAT)

_SVD_STORE = "int8"
_EXACT_STORE = "float32"


def method_recipe(
    method: str, recipe: Recipe, factor: float, weights: Callable[[], Sequence[Weight]]
) -> Recipe:
    """The recipe of one method.

    Args:
        method: one of `METHODS`.
        recipe: everything except the format and the budget.
        factor: compression factor of the decomposed weights.
        weights: returns the model's weights; mps, mpo and auto do not need them.

    Raises:
        RecipeError, PlanError: the recipe does not fit the model, or there is no such method.
    """
    if method not in METHODS:
        raise RecipeError(f"method: expected one of {', '.join(METHODS)}, got {method!r}.")
    if method not in (*BY_HAND, CODEC):
        return with_options(recipe, format=method, factor=factor)
    rules = [
        {"weights": _select(one.weight), **_by_hand(method, one, factor)}
        for one in match(recipe, weights())
        if one.weight.role != UNKNOWN or one.format != KEEP  # `default` keeps the others
    ]
    # The ranks of svd are fixed, and NNCodec meets the budget by itself.
    budget = {"budget": {"factor": factor}} if method == "quantised" else {}
    apart = ("calibration", "budget", *(("finetune",) if method == CODEC else ()))
    plain = {key: value for key, value in effective(recipe).items() if key not in apart}
    return recipe_from(plain | {"rules": rules, "default": "keep"} | budget)


def _select(weight: Weight) -> str:
    """The selector of this weight alone: its name might be a glob, or only its name selects it."""
    return weight.name if weight.role == UNKNOWN else f"re:{re.escape(weight.name)}"


def _by_hand(method: str, one: Assignment, factor: float) -> dict[str, Any]:
    """The keys of a method for a weight; the recipe's own if the weight is not in the budget."""
    if not one.shares_budget:
        return {"format": one.format} | ({} if one.format == KEEP else {"store": one.store})
    if method == "svd":
        return _svd(one, factor)
    return {"format": DenseLayout.format, "store": _EXACT_STORE if method == CODEC else AUTO}


def _svd(one: Assignment, factor: float) -> dict[str, Any]:
    """The largest rank whose factors are smaller by `factor`, and at least 1."""
    rows, columns = one.weight.shape
    store, allowed, rank = STORES[_SVD_STORE], one.weight.bytes / factor, 1
    while rank < min(rows, columns):
        values = (rows * (rank + 1), columns * (rank + 1))
        if sum(map(store.estimate_bytes, values)) > allowed:
            break
        rank += 1
    modes = {"row_modes": [rows], "column_modes": [columns]}
    return {"format": MpsLayout.format, **modes, "ranks": [rank], "store": _SVD_STORE}
