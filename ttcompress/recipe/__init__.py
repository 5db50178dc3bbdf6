"""Recipes: what a user asks for, read from files, mappings or options into frozen dataclasses.

`schema.py` declares every key once; start there.
"""

from ttcompress.recipe.loading import AnyRecipe as AnyRecipe
from ttcompress.recipe.loading import ShippedRecipe as ShippedRecipe
from ttcompress.recipe.loading import as_recipe as as_recipe
from ttcompress.recipe.loading import default_recipe as default_recipe
from ttcompress.recipe.loading import find_recipe as find_recipe
from ttcompress.recipe.loading import load_recipe as load_recipe
from ttcompress.recipe.loading import parse_recipe as parse_recipe
from ttcompress.recipe.loading import recipe_from as recipe_from
from ttcompress.recipe.loading import shipped as shipped
from ttcompress.recipe.loading import task_recipe as task_recipe
from ttcompress.recipe.matching import Assignment as Assignment
from ttcompress.recipe.matching import match as match
from ttcompress.recipe.overrides import effective as effective
from ttcompress.recipe.overrides import parse_format as parse_format
from ttcompress.recipe.overrides import with_options as with_options
from ttcompress.recipe.rules import Rule as Rule
from ttcompress.recipe.schema import Budget as Budget
from ttcompress.recipe.schema import CalibrationChoice as CalibrationChoice
from ttcompress.recipe.schema import Finetune as Finetune
from ttcompress.recipe.schema import Limits as Limits
from ttcompress.recipe.schema import Recipe as Recipe
from ttcompress.recipe.schema import TaskChoice as TaskChoice
from ttcompress.recipe.schema import Tracker as Tracker
from ttcompress.recipe.values import Drop as Drop
from ttcompress.recipe.values import parse_drop as parse_drop
from ttcompress.recipe.values import parse_ranks as parse_ranks
from ttcompress.recipe.values import parse_size as parse_size
