"""What the user asks for: files, mappings and options come in, checked frozen recipes go out."""

from ttcompress.recipe.loading import load_recipe, parse_recipe, recipe_from
from ttcompress.recipe.overrides import Options, effective, with_options
from ttcompress.recipe.rules import Assignment, match
from ttcompress.recipe.schema import Budget, Limits, Recipe, Rule
from ttcompress.recipe.shipped import (
    AnyRecipe,
    ShippedRecipe,
    as_recipe,
    default_recipe,
    find_recipe,
    shipped,
)
from ttcompress.recipe.training import CalibrationChoice, Finetune, TaskChoice
from ttcompress.recipe.units import Drop, parse_drop, parse_format, parse_ranks, parse_size

__all__ = [
    "AnyRecipe",
    "Assignment",
    "Budget",
    "CalibrationChoice",
    "Drop",
    "Finetune",
    "Limits",
    "Options",
    "Recipe",
    "Rule",
    "ShippedRecipe",
    "TaskChoice",
    "as_recipe",
    "default_recipe",
    "effective",
    "find_recipe",
    "load_recipe",
    "match",
    "parse_drop",
    "parse_format",
    "parse_ranks",
    "parse_recipe",
    "parse_size",
    "recipe_from",
    "shipped",
    "with_options",
]
