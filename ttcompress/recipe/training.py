"""What a recipe says about the data comes in: its task, what is trained, what is calibrated on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, TypeAdapter
from pydantic.dataclasses import dataclass

from ttcompress.recipe.readers import CONFIG, Count, number, reader
from ttcompress.recipe.units import Scalar, parse_flag, parse_option, parse_text, whole
from ttcompress.recipe.wording import described

Option = Scalar | tuple[Scalar, ...]

_OPTIONS = TypeAdapter(dict[str, Annotated[Option, reader(parse_option)]])

_LearningRate = number(lambda n: n > 0, "a learning rate is above 0", "Write 2.0e-3, for example.")
_Warmup = number(
    lambda n: 0 <= n < 1,
    "a warm-up is a fraction of the steps, from 0 to below 1",
    "For one step in twenty, write 0.05.",
)
_Clip = number(lambda n: n > 0, "gradients are clipped to a norm above 0", "Write 1.0.")
_WeightDecay = number(lambda n: n >= 0, "a weight decay is 0 or more", "For none, write 0.")
_Distill = number(
    lambda n: 0 <= n <= 1,
    "distill is the original's part in the loss, from 0 to 1",
    "For equal parts of task and original, write 0.5; for the task alone, 0.",
)
_Temperature = number(lambda n: n > 0, "a temperature is above 0", "Write 2.0, for example.")


def _task_options(value: Any) -> tuple[tuple[str, Option], ...]:
    """Options by name, from a mapping or from pairs: their order means nothing."""
    options = dict(value)
    if "name" in options:
        raise ValueError("`name` names the task, and is none of its options.")
    return tuple(sorted(_OPTIONS.validate_python(options).items()))


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class TaskChoice:
    """The task that judges and trains a model: a built-in's name, `file.py:Name` or
    `package.module:Name`, and its options by name.

    The task itself checks its options. Paths, in them and in the name, are relative to the folder
    the program runs in, wherever the recipe lies.
    """

    name: Annotated[str, reader(parse_text)]
    options: Annotated[tuple[tuple[str, Option], ...], PlainValidator(_task_options)] = ()


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Finetune:
    """How a compressed model is trained.

    `epochs` are passes over the task's training data; `max_steps` stops earlier. The learning rate
    rises over the fraction `warmup` of the steps, and gradients are clipped to the norm `clip`.
    `distill` is the original's part in the loss, at `temperature`; the task has the rest. `kept`
    says whether biases and kept layers are trained too.
    """

    epochs: Annotated[int, reader(whole(0))] = 2
    max_steps: Count = None
    learning_rate: Annotated[float, _LearningRate] = 2.0e-3
    warmup: Annotated[float, _Warmup] = 0.05
    clip: Annotated[float, _Clip] = 1.0
    weight_decay: Annotated[float, _WeightDecay] = 0.0
    distill: Annotated[float, _Distill] = 0.5
    temperature: Annotated[float, _Temperature] = 2.0
    kept: Annotated[bool, reader(parse_flag)] = True


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CalibrationChoice:
    """What shows the weights their inputs: `batches` of the task's training data, or a file.

    `data` is a safetensors file with the inputs of each recurrent layer, (batch, time, input),
    under the layer's path; its path is relative to the folder the program runs in.
    """

    batches: Annotated[int, reader(whole(1))] = 24
    data: Annotated[str | None, reader(parse_text)] = None


def named_task(value: object) -> object:
    """A task's name alone, or its name with options beside it; both as `TaskChoice` has them."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        options = dict(value)
        name = {"name": options.pop("name")} if "name" in options else {}
        return name | {"options": options}
    if value is None or isinstance(value, TaskChoice):
        return value
    raise ValueError(
        f"expected a task's name, or `name:` with options; got {described(value)}."
        "\nWrite `task: language-model`, for example."
    )


def switched(value: object) -> object:
    """`true` stands for a block of defaults, `false` for none."""
    if isinstance(value, bool):
        return {} if value else None
    return value
