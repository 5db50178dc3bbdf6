"""The recipe: every key, declared once, with its default, its help and its option.

Make one with `load_recipe`, `parse_recipe` or `recipe_from`. How values are written is in
`values.py`, rules are in `rules.py`, and `sections.py` reads what is declared here.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final, Literal, get_args

from ttcompress.errors import RecipeError
from ttcompress.planning.formats import KEEP, is_whole
from ttcompress.recipe.rules import FORMAT, STORE, Rule
from ttcompress.recipe.sections import Kind, Place, Section, Values, declare, list_of, section_of
from ttcompress.recipe.values import (
    COUNT,
    DROP,
    FACTOR,
    FLAG,
    OPTION,
    SIZE,
    TEXT,
    TOLERANCE,
    Drop,
    Option,
    format_version,
    number,
    one_of,
    whole,
)
from ttcompress.stores import AUTO

VERSION: Final = 1

KEY_HELP: Final = "State dict to read if the file holds several; en,de reads two, all reads all."

Default = Literal["keep", "decompose"]

Holder = Literal["file", "onnx", "c"]
"""What will hold the weights where the model runs."""


class Budget(Section):
    """What the result must reach; everything that is set must hold."""

    rank: int | None = declare(COUNT, "Largest rank that any weight may have.", "--rank")
    tolerance: float | None = declare(
        TOLERANCE, "Largest relative error of each weight.", "--tolerance"
    )
    factor: float | None = declare(
        FACTOR, "How many times fewer bytes the decomposed weights take.", "--factor"
    )
    model_factor: float | None = declare(
        FACTOR,
        "How many times fewer bytes the file takes than all tensors of the model.",
        "--model-factor",
    )
    size: int | None = declare(SIZE, "Size of the file, for example 2MB.", "--size SIZE")
    flash: int | None = declare(
        SIZE, "Bytes of constants in C, for example 300kB; needs target c.", "--flash SIZE"
    )
    params: int | None = declare(COUNT, "Number of values in the decomposed weights.", "--params")
    multiply_adds: float | None = declare(
        FACTOR, "How many times fewer multiply-adds a time step takes.", "--multiply-adds"
    )
    drop: Drop | None = declare(
        DROP, "Find the smallest file within this drop, for example 1%.", "--drop DROP"
    )

    @property
    def of_file(self) -> bool:
        """Whether it limits the whole file."""
        return self.size is not None or self.model_factor is not None

    def largest_file(self, model_bytes: int) -> int | None:
        """The most bytes that the file may have, given those of the model's tensors, if limited."""
        limits = [] if self.size is None else [self.size]
        if self.model_factor is not None:
            limits.append(int(model_bytes / self.model_factor))
        return min(limits, default=None)


class Limits(Section):
    """Limits that a finished run is judged by."""

    max_drop: Drop | None = declare(
        DROP, "Exit with 4 if the metric drops by more, for example 1%.", "--max-drop DROP"
    )
    min_factor: float | None = declare(
        FACTOR, "Exit with 4 if the factor is lower.", "--min-factor"
    )
    max_size: int | None = declare(SIZE, "Exit with 4 if the file is larger.", "--max-size SIZE")
    min_multiply_adds: float | None = declare(
        FACTOR, "Exit with 4 if the factor of multiply-adds is lower.", "--min-multiply-adds"
    )


def _read_options(value: Any, place: Place) -> object:
    """Read the options of a task from a mapping or from pairs, in any order."""
    options = dict(value)
    if "name" in options:
        return place.wrong("`name` names the task, so it cannot be one of its options.")
    read = {name: OPTION.read(item, place.below(name, {})) for name, item in options.items()}
    return tuple(sorted(read.items()))


class TaskChoice(Section):
    """The task that judges and trains a model, and its options by name.

    The task itself checks its options. Paths, in them and in the name, are relative to the working
    directory, not to the recipe.
    """

    name: str = declare(
        TEXT,
        "Task that measures the model: a built-in one, or file.py:Name.",
        "--task TASK",
        missing="Write a task, for example `name: language-model`.",
    )
    options: tuple[tuple[str, Option], ...] = declare(
        Kind(_read_options, OPTION.words, OPTION.schema),
        "Option of the task, which checks it.",
        default=(),
        rest=True,
    )


TASK: Final = section_of(
    TaskChoice,
    short="name",
    wrong="expected a task's name, or `name:` with options; got {}."
    "\nWrite `task: language-model`, for example.",
)


TrainedOn = Literal["task", "recorded", "synthetic"]
"""A training's data: the task's batches, recorded inputs, or text that the model itself writes."""


Tracker = Literal["csv", "tensorboard", "wandb", "mlflow"]
"""Programs that draw the course of a training; csv is a file for any."""


class Finetune(Section):
    """How a compressed model is trained."""

    epochs: int = declare(whole(0), "Passes over the task's training data.", default=2)
    max_steps: int | None = declare(COUNT, "Steps after which to stop.")
    learning_rate: float = declare(
        number("a learning rate is above 0", "Write 2.0e-3, for example.", exclusiveMinimum=0),
        "Highest learning rate of the run.",
        default=2.0e-3,
    )
    warmup: float = declare(
        number(
            "a warm-up is a fraction of the steps, from 0 to below 1",
            "For one step in twenty, write 0.05.",
            minimum=0,
            exclusiveMaximum=1,
        ),
        "Fraction of the steps over which the learning rate rises.",
        default=0.05,
    )
    clip: float = declare(
        number("gradients are clipped to a norm above 0", "Write 1.0.", exclusiveMinimum=0),
        "Norm that gradients are clipped to.",
        default=1.0,
    )
    weight_decay: float = declare(
        number("a weight decay is 0 or more", "For none, write 0.", minimum=0),
        "Weight decay of the optimizer.",
        default=0.0,
    )
    distill: float = declare(
        number(
            "distill is the original's share of the loss, from 0 to 1",
            "For equal shares of task and original, write 0.5; for the task alone, 0.",
            minimum=0,
            maximum=1,
        ),
        "Share of the loss that follows the original; the task has the rest.",
        default=0.5,
    )
    temperature: float = declare(
        number("a temperature is above 0", "Write 2.0, for example.", exclusiveMinimum=0),
        "Temperature at which the original's outputs are compared.",
        default=2.0,
    )
    kept: bool = declare(FLAG, "Train biases and kept layers too.", default=True)
    data: TrainedOn | None = declare(
        one_of(*get_args(TrainedOn)),
        "Train on the task's batches, on recorded inputs, or on text that the model writes.  "
        "[the first of these that is there]",
    )
    log: Tracker | None = declare(
        one_of(*get_args(Tracker)), "Where to log the course of the training.", "--log"
    )


class CalibrationChoice(Section):
    """Where calibration finds the weights' inputs: the task's training data, a file, or the model.

    `data` is a safetensors file of recorded inputs: see `ttcompress.record`. Its path is relative
    to the working directory. `synthetic` applies where the model can write its own input: where it
    takes symbols and predicts the next one. Otherwise nothing is calibrated, and a note says why.
    """

    batches: int = declare(
        COUNT,
        "Calibrate on the inputs in N batches of the task's training data.",
        "--calibrate N",
        default=24,
    )
    data: str | None = declare(
        TEXT,
        "Calibrate on recorded inputs; without a task, train on them too.",
        "--data PATH",
    )
    synthetic: int | None = declare(
        COUNT, "Calibrate on N sequences that the model itself writes.", "--synthetic N"
    )


# Checks of the recipe's keys, each called with its value and the keys before it.


def _check_reachable(rules: tuple[Rule, ...], recipe: Values, _: object) -> tuple[Rule, ...]:
    earlier: dict[str, int] = {}
    for index, rule in enumerate(rules):
        taker = earlier.get(rule.weights, earlier.get("all", earlier.get("*")))
        if taker is not None:
            raise RecipeError(
                f"rules[{index}] (`{rule.weights}`) never applies: rules[{taker}]"
                f" (`{rules[taker].weights}`) already matches all of its weights."
                "\nThe first match wins: put the narrower rule first."
            )
        earlier[rule.weights] = index
    return rules


def _check_default(default: Default | None, recipe: Values, _: object) -> Default:
    if default is None and recipe.get("rules", True):
        raise RecipeError(
            "missing. Rules need it, for the weights that none of them matches:"
            " write `default: keep` or `default: decompose`."
        )
    return default or KEEP


def _check_budget(budget: Budget, recipe: Values, _: object) -> Budget:
    """An empty budget is enough where no rank and no store is left to choose."""
    if budget.flash is not None and recipe.get("target", "c") != "c":
        raise RecipeError(
            "flash counts what the model takes as C code, but the target is"
            f" {recipe['target']}.\nAdd `target: c` (--target c), or use `size` for the file."
        )
    if budget != Budget() or not {"rules", "default", "store"} <= recipe.keys():
        return budget
    decomposed = [rule for rule in recipe["rules"] if rule.format != KEEP]
    all_is_fixed = (
        bool(decomposed)
        and recipe["default"] == KEEP
        and all((rule.store or recipe["store"]) != AUTO for rule in decomposed)
        and all(isinstance(rule.ranks, tuple) or is_whole(rule.format) for rule in decomposed)
    )
    if not all_is_fixed:
        raise RecipeError(
            "missing. Write what the result must reach, for example `budget: {factor: 8}`."
            "\nIt may be left out only if every decomposed weight has a list of ranks and a store"
            " other than auto."
        )
    return budget


def _check_calibration(
    calibration: CalibrationChoice | None, recipe: Values, _: object
) -> CalibrationChoice | None:
    if calibration and calibration.data is not None and calibration.synthetic is not None:
        raise RecipeError(
            "data and synthetic are two sources of inputs, but a calibration has one."
            "\nRemove one of them."
        )
    toleranced = "budget" in recipe and recipe["budget"].tolerance is not None
    if calibration and calibration.synthetic is None and toleranced:
        raise RecipeError(
            "a tolerance bounds the error of the weights, but calibration minimises that of their"
            " outputs.\nUse another budget with calibration, for example `budget: {factor: 8}`."
        )
    return calibration


class Recipe(Section):
    """Everything a user asks for.

    Without rules the recurrent weights are decomposed, and `default` decides what happens to the
    rest. `budget` is empty only if every decomposed weight has fixed ranks and a store. `text` is
    the recipe as written, "" if it was made in Python, and is ignored by ==.
    """

    version: int = declare(
        format_version("recipe", VERSION),
        "Version of the recipe's format.",
        missing=f"Write `version: {VERSION}`.",
    )
    format: str = declare(
        FORMAT, "Format of every decomposed weight.", "--format mps|mpo|auto", default="mps"
    )
    store: str = declare(
        STORE,
        "Number type: auto, coded, int2 to int8, float16, float32 ...",
        "--store STORE",
        default=AUTO,
    )
    target: Holder = declare(
        one_of(*get_args(Holder)),
        "What runs the model: for onnx, auto takes the stores that it holds as they are; for c, "
        "int8, and a factor counts bytes of flash.",
        "--target file|onnx|c",
        default="file",
    )
    rules: tuple[Rule, ...] = declare(
        list_of(section_of(Rule), "a list of rules"),
        "Rules for the weights they select; the first match wins.  [decompose recurrent weights]",
        default=(),
        check=_check_reachable,
    )
    default: Default = declare(
        one_of(*get_args(Default)),
        "What to do with weights that no rule matches; required if there are rules.  [keep]",
        check=_check_default,
    )
    budget: Budget = declare(
        section_of(Budget), "What the result must reach.", default=Budget(), check=_check_budget
    )
    task: TaskChoice | None = declare(TASK, "Task that judges and trains the model.")
    calibration: CalibrationChoice | None = declare(
        section_of(CalibrationChoice, switch=True),
        "Inputs to calibrate the weights on.",
        check=_check_calibration,
    )
    finetune: Finetune | None = declare(
        section_of(Finetune, switch=True),
        "Train the result on the task, guided by the original.",
        "--finetune",
    )
    limits: Limits | None = declare(section_of(Limits), "Limits that a finished run is judged by.")
    seed: int = declare(whole(0), "Seed of all random numbers.", "--seed", default=0)
    key: str | None = declare(TEXT, KEY_HELP, "--key")
    text: str = field(default="", compare=False, repr=False)
