"""Arguments and options that several commands share, each declared once.

A command takes a group of options as one dataclass: see `flatten_options`. Options that replace a
key of the recipe are made from the recipe's own declaration of that key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from ttcompress.cli import headings
from ttcompress.cli.model_file import ModelFile, silence
from ttcompress.errors import OutputPathError, RecipeError
from ttcompress.recipe import Recipe, as_recipe, with_options
from ttcompress.recipe.overrides import OVERRIDES

if TYPE_CHECKING:
    from ttcompress.training.finetune import Conditions
    from ttcompress.training.loop import StepReport

Model = Annotated[
    ModelFile,
    typer.Argument(
        parser=ModelFile,
        metavar="MODEL",
        help="Trained checkpoint: a file, or hf://user/name on the hub.",
        show_default=False,
    ),
]
Artifact = Annotated[
    ModelFile,
    typer.Argument(
        parser=ModelFile,
        metavar="FILE",
        help="Compressed model: a file, or hf://user/name on the hub.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]

Factors = Annotated[
    str,
    typer.Option(
        metavar="X,X,...", help="Compression factors to try, of the bytes of the weights."
    ),
]

# Options that replace keys of the recipe.
BUDGET = (
    *("format", "rank", "tolerance", "factor", "model_factor", "size"),
    *("flash", "params", "multiply_adds", "drop"),
)
SHARED = (
    *("store", "target", "key", "task", "finetune", "log"),
    *("calibrate", "data", "synthetic", "seed"),
)
LIMITS = ("max_drop", "min_factor", "max_size")
_HEADINGS: dict[str | int, str] = {"limits": headings.LIMITS}
_HEADINGS |= dict.fromkeys(("budget", "format", "store", "target"), headings.BUDGET)
_HEADINGS |= dict.fromkeys(("task", "finetune", "calibration"), headings.TASK)
"""Of the first key on the way to an option's key; all other options are about the recipe."""

G = TypeVar("G")


def _overriding(name: str) -> Any:
    """The option that replaces a key of the recipe, as the key declares it."""
    path, key = OVERRIDES[name]
    flag, _, metavar = key.option.partition(" ")
    heading = _HEADINGS.get(path[0], headings.RECIPE)
    return typer.Option(flag, metavar=metavar or None, help=key.help, rich_help_panel=heading)


Key = Annotated[str | None, _overriding("key")]

MixedPrecision = Annotated[
    Literal["no", "bf16", "fp16"],
    typer.Option(
        metavar="no|bf16|fp16",
        help="Lower precision for training.",
        rich_help_panel=headings.TASK,
    ),
]


def _remember(context: typer.Context, verbose: bool) -> bool:
    """Keep the option for `_Commands.invoke`, which reports errors for every command."""
    context.meta["verbose"] = verbose
    return verbose


@dataclass(frozen=True)
class Talk:
    """How results and progress are shown; the same for every command."""

    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document to stdout, and nothing else.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print only errors to stderr.", rich_help_panel=headings.OUTPUT
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=_remember,
            help="Print tracebacks of errors.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False


@dataclass(frozen=True)
class TuningOptions:
    """How fine-tuning runs; what it trains and for how long is in the recipe."""

    control: Annotated[
        bool,
        typer.Option(
            "--control",
            help="Train the original for as long, to compare.",
            rich_help_panel=headings.TASK,
        ),
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the interrupted run with this output.",
            rich_help_panel=headings.TASK,
        ),
    ] = False
    device: Annotated[
        str | None,
        typer.Option(
            help="Device to train on, such as cuda:0.  [chosen by accelerate, or cpu]",
            rich_help_panel=headings.TASK,
        ),
    ] = None
    mixed_precision: MixedPrecision = "no"

    def refuse(self) -> None:
        """Refuse these options where nothing is trained.

        Raises:
            RecipeError: one of the options was given.
        """
        for field in fields(self):
            if getattr(self, field.name) != field.default:
                name = field.name.replace("_", "-")
                raise RecipeError(f"--{name} only applies to fine-tuning; add --finetune.")

    def conditions(
        self, saved: Path, overwrite: bool, watch: Callable[[StepReport], None]
    ) -> Conditions:
        """Conditions of a run that saves its state to the file `saved`.

        Raises:
            OutputPathError: an interrupted run left its state there, and neither `--resume` nor
                `--overwrite` was given.
        """
        from ttcompress.training.finetune import Conditions, saved_states

        made = Conditions(
            device=self.device,
            precision=self.mixed_precision,
            resume=saved,
            control=self.control,
            folder=saved.with_suffix(".log"),
            watch=watch,
        )
        stale = saved_states(saved)
        if stale and not self.resume:
            if not overwrite:
                raise OutputPathError(
                    f"{stale[0]}: left by an interrupted training. "
                    "Continue it with --resume, or start again with --overwrite."
                )
            made.forget()
        return made


def _adding(*names: str) -> Callable[[type[G]], type[G]]:
    """Give a group the options of these names, as the recipe's keys declare them."""

    def add(group: type[G]) -> type[G]:
        for name in names:
            kind = OVERRIDES[name][1].kind
            group.__annotations__[name] = Annotated[kind.option_type | None, _overriding(name)]
            setattr(group, name, None)
        return group

    return add


def _given(group: Any) -> dict[str, Any]:
    """The options of a group that were given, except `recipe`, to which they apply."""
    values = {field.name: getattr(group, field.name) for field in fields(group)}
    return {key: value for key, value in values.items() if value is not None and key != "recipe"}


@dataclass(frozen=True)
@_adding(*BUDGET)
class BudgetOptions:
    """A format and a budget, which `sweep` and `compare` set themselves."""


@dataclass(frozen=True)
@_adding(*SHARED)
class RecipeOptions:
    """A recipe, and the options that replace its keys."""

    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="RECIPE",
            help="Recipe file, or the name of a shipped recipe.  [balanced]",
            rich_help_panel=headings.RECIPE,
        ),
    ] = None

    def resolve(self) -> Recipe:
        """The recipe with the options applied."""
        return with_options(as_recipe(self.recipe or None), **_given(self))

    def title(self) -> str:
        """The recipe as the user named it: `balanced (the default) with --factor 16`."""
        name = self.recipe or "balanced (the default)"
        given = [f"--{key.replace('_', '-')}{_written(v)}" for key, v in _given(self).items()]
        return f"recipe {' '.join([name, 'with', *given] if given else [name])}"


@dataclass(frozen=True)
@_adding(*LIMITS)
class LimitOptions(RecipeOptions):
    """A recipe with limits on the result."""


@dataclass(frozen=True)
class DecomposeOptions(LimitOptions, BudgetOptions):
    """Every option that replaces a key of the recipe."""


def _written(value: object) -> str:
    if value is True:
        return ""
    return f" {value:g}" if isinstance(value, float) else f" {value}"


def parse_factors(text: str) -> list[float]:
    """Parse the value of `Factors`."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 1:
        raise typer.BadParameter(
            f"--factors: expected numbers above 1, such as 4,8,16, got {text!r}."
        )
    return numbers


def flatten_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take a dataclass of options: each of its fields becomes one option.

    A shared option is declared in its group and nowhere else; Typer sees a flat signature.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        if any(isinstance(value, Talk) and value.quiet for value in given.values()):
            given = {name: silence(value) for name, value in given.items()}
        command(**given)

    parameters = [
        part
        for name, parameter in signature(command).parameters.items()
        for part in (
            _fields(groups[name])
            if name in groups
            else [parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name])]
        )
    ]
    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {part.name: part.annotation for part in parameters}
    return flat


def _fields(group: Any) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
