"""The task `forecast`: predicts the next values of a series from a window of those before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ttcompress.errors import RecipeError
from ttcompress.layers.recurrent_model import POOLINGS, Chain, Pooling
from ttcompress.layers.stacks import NONLINEARITIES, Nonlinearity
from ttcompress.layers.structure import Structure
from ttcompress.tasks import metrics
from ttcompress.tasks.architecture import read_chain
from ttcompress.tasks.column_files import Series, list_names, read_series
from ttcompress.tasks.data_files import DataFiles, check_choice, check_positive
from ttcompress.tasks.protocol import Metric, OutputKind, State
from ttcompress.tasks.recurrent_task import (
    MEASURE_ON,
    TRAIN_ON,
    Batch,
    RecurrentTask,
    generator_of,
)

Scaling = Literal["standard", "minmax", "none"]

SCALINGS: tuple[Scaling, ...] = get_args(Scaling)

EACH_STEP = "none"
"""As `pooling`: the model forecasts at each step of a window, and not only once."""

HELD_OUT_WINDOWS = 256
"""In a batch when measuring."""

MSE = Metric("mse", higher_is_better=False)
MAE = Metric("mae", higher_is_better=False)
SMAPE = Metric("smape", higher_is_better=False)
MSE_TO_NAIVE = Metric("mse_to_naive", higher_is_better=False)
"""The MSE as a fraction of that of the naive forecast, which repeats the last value of each target:
above 1 the model is worse than no model.
"""


@dataclass(frozen=True, eq=False)
class Scale:
    """For each column what is taken off and what it is divided by, (columns,), float64."""

    offset: Tensor
    unit: Tensor

    @classmethod
    def of(cls, values: Tensor, scaling: Scaling) -> Scale:
        """What brings the columns of (rows, columns) to deviation 1 around 0, or to 0 to 1.

        A constant column only loses its offset, as in scikit-learn.
        """
        match scaling:
            case "standard":
                offset, unit = values.mean(0), values.std(0, correction=0)
            case "minmax":
                offset, unit = values.amin(0), values.amax(0) - values.amin(0)
            case "none":
                offset, unit = torch.zeros_like(values[0]), torch.ones_like(values[0])
        return cls(offset, torch.where(unit > 0, unit, 1.0))

    def of_columns(self, columns: Sequence[int]) -> Scale:
        """The scale of some of the columns, in this order."""
        return Scale(self.offset[columns], self.unit[columns])


@dataclass(frozen=True)
class Cutting:
    """How windows are cut from a series: `spacing` rows from one start to the next.

    Each of the last `forecasts` rows of a window is followed by a forecast.
    """

    forecasts: int
    spacing: int


@dataclass(frozen=True, eq=False)
class Windows:
    """A scaled series, from which windows are cut.

    Attributes:
        inputs: (rows, features).
        targets: (rows, targets).
        scale: of the targets.
        steps: rows in a window.
        horizon: rows to forecast.
        cutting: how windows are cut.
    """

    inputs: Tensor
    targets: Tensor
    scale: Scale
    steps: int
    horizon: int
    cutting: Cutting

    @property
    def starts(self) -> int:
        """At how many rows a window can start."""
        return len(self.inputs) - self.steps - self.horizon + 1

    @property
    def count(self) -> int:
        """How many windows an epoch has."""
        return -(-self.starts // self.cutting.spacing)

    def cut(self, starts: Tensor) -> Batch:  # starts: (windows,)
        """The windows that start at these rows."""
        windows = self.inputs.unfold(0, self.steps, 1)[starts].transpose(1, 2)
        following = self.targets.unfold(0, self.horizon, 1)[self._rows_ahead(starts)]
        return Batch(windows, following.transpose(1, 2).flatten(1))

    def cut_naive(self, starts: Tensor) -> Tensor:  # (positions, horizon x targets)
        """What the naive forecast says after these windows: each target's last value again."""
        return self.targets[self._rows_ahead(starts) - 1].repeat(1, self.horizon)

    def restore(self, values: Tensor) -> Tensor:  # both (positions, horizon x targets)
        """Forecasts in the units of the data."""
        offset, unit = (
            one.repeat(self.horizon).to(values.device)
            for one in (self.scale.offset, self.scale.unit)
        )
        return values * unit + offset

    def _rows_ahead(self, starts: Tensor) -> Tensor:  # (positions,)
        """The first row of each forecast."""
        steps = torch.arange(self.steps - self.cutting.forecasts, self.steps) + 1
        return (starts[:, None] + steps).flatten()


class SeriesTask(RecurrentTask):
    """Forecasts a series in windows, in the model's units: those that scaling gives.

    The outputs are `horizon x targets` numbers, step after step: all targets one step ahead, then
    all targets two steps ahead. MSE and MAE are means over all of them, in the model's units;
    sMAPE is 100 |output - target| / ((|output| + |target|) / 2), in the units of the data.

    Args:
        chain: the model.
        train: returns the series to train on; called when it is first needed.
        held_out: returns the series to measure on.
        window: rows that the model sees.
        horizon: rows to forecast; by default what the outputs are enough for.
        columns: the model's inputs; by default all columns of the series.
        target: what is forecast; by default all columns, if the horizon leaves no doubt.
        scaling: by the series to train on.
        batch: windows in a training batch.
        pooling: how a window becomes one forecast; None for one at each step.
        training, measuring: how windows are cut; only with one forecast if the model pools.
        nonlinearity: of the stacks that are RNNs.
    """

    predicts: ClassVar[OutputKind] = "values"
    takes_values = True
    metrics: tuple[Metric, ...] = (MSE, MAE, SMAPE, MSE_TO_NAIVE)

    def __init__(
        self,
        chain: Chain,
        train: Callable[[], Series],
        held_out: Callable[[], Series],
        *,
        window: int,
        horizon: int | None,
        columns: Sequence[str] | None,
        target: Sequence[str] | None,
        scaling: Scaling,
        batch: int,
        pooling: Pooling | None,
        training: Cutting,
        measuring: Cutting,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        super().__init__(chain, train, held_out, batch, pooling, nonlinearity)
        self._window, self._horizon = window, horizon
        self._columns, self._target, self._scaling = columns, target, scaling
        self._cuttings = {TRAIN_ON: training, MEASURE_ON: measuring}

    def _prepare(self, data: Series, use: str) -> Windows:
        """Choose inputs and targets, scale them, and check that they fit the model."""
        inputs = list(self._columns or data.names)
        if len(inputs) != self.chain.symbols:
            raise RecipeError(
                f"{data.place}: the model takes {self.chain.symbols} values in each step, but "
                f"there are {len(inputs)} columns: {list_names(inputs)}. "
                "Choose them in the model's order: `columns: [...]`."
            )
        targets = self._choose_targets(data, inputs)
        horizon = self.chain.classes // len(targets)
        least = self._window + horizon
        if len(data) < least:
            raise RecipeError(
                f"{data.place}: there are {len(data):,} rows to {use}, but a window of "
                f"{self._window} and {horizon} to forecast need at least {least:,}. "
                "Give a longer series or a shorter `window`."
            )
        known = data if self._scaling == "none" else self._read_train()
        scale = Scale.of(known.values, self._scaling)
        scaled = ((data.values - scale.offset) / scale.unit).float()
        features, forecast = (list(map(data.names.index, names)) for names in (inputs, targets))
        return Windows(
            scaled[:, features],
            scaled[:, forecast],
            scale.of_columns(forecast),
            self._window,
            horizon,
            self._cuttings[use],
        )

    def _choose_targets(self, data: Series, inputs: Sequence[str]) -> list[str]:
        """What is forecast, checked against the number of the model's outputs."""
        outputs, head = self.chain.classes, self.chain.linear
        targets = list(self._target or inputs)
        if self._target is None and self._horizon is None and len(inputs) > 1:
            raise RecipeError(
                f"{data.place}: {head} gives {outputs} outputs, and {len(inputs)} columns could be "
                "forecast. Name those that are: `target: NAME` (or a list), or give `horizon`, the "
                "number of steps."
            )
        if unknown := [name for name in targets if name not in data.names]:
            raise RecipeError(
                f"{data.place}: has no column of numbers {unknown[0]!r}; its {len(data.names)} are "
                f"{list_names(data.names)}. Give one of these as `target`."
            )
        steps = self._horizon or max(1, outputs // len(targets))
        if steps * len(targets) != outputs:
            raise RecipeError(
                f"{data.place}: {head} gives {outputs} outputs, but {list_names(targets)} at a "
                f"horizon of {steps} ({len(targets)} x {steps}) needs {steps * len(targets)}. "
                "Give the model's `target` and `horizon`."
            )
        return targets

    @property
    def batches_per_epoch(self) -> int:
        """Full batches, and one with the rest."""
        count: int = self._train.count
        return -(-count // self._batch)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """All windows in random order, cut elsewhere in each epoch if they do not overlap."""
        generator, data = generator_of(epoch, seed), self._train
        spacing = data.cutting.spacing
        starts = torch.randperm(data.count, generator=generator) * spacing
        offset = torch.randint(spacing, (), generator=generator)
        starts = (starts + offset) % data.starts
        return map(data.cut, torch.split(starts, self._batch))

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out windows in their order."""
        return map(self._held_out.cut, self._held_out_starts())

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Forecasts (positions, horizon x targets)."""
        found, _ = model(batch.inputs.to(next(model.parameters()).device), state, batch.lengths)
        if self._pooling is None:
            found = found[:, -(len(batch.targets) // len(batch.inputs)) :].flatten(0, 1)
        return found, None

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean squared error."""
        return functional.mse_loss(outputs, batch.real_targets.to(outputs.device))

    def _held_out_starts(self) -> Sequence[Tensor]:
        data = self._held_out
        return torch.split(torch.arange(0, data.starts, data.cutting.spacing), HELD_OUT_WINDOWS)

    @cached_property
    def _naive_error(self) -> float:
        """The MSE of the naive forecast on the held-out data."""
        data, total, positions = self._held_out, 0.0, 0
        for starts in self._held_out_starts():
            targets = data.cut(starts).targets
            total += metrics.squared_error(data.cut_naive(starts), targets).item()
            positions += len(targets)
        if not total:
            raise RecipeError(
                f"task {self.name}: no target changes in the {len(data.targets):,} rows to measure "
                "on, so there is nothing to forecast. Give a series that changes."
            )
        return total / positions

    def _tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        restore = self._held_out.restore
        return torch.stack(
            [
                metrics.squared_error(outputs, targets),
                metrics.absolute_error(outputs, targets),
                metrics.symmetric_error(restore(outputs), restore(targets)),
            ]
        )

    def _figures(self, tally: Tensor, positions: int) -> dict[str, float]:
        mse, mae, smape = (tally / positions).tolist()
        figures = {MSE: mse, MAE: mae, SMAPE: smape, MSE_TO_NAIVE: mse / self._naive_error}
        return {metric.name: value for metric, value in figures.items()}


class Forecast(SeriesTask):
    """The task `forecast`: the next values of a series; the structure is read from the checkpoint.

    Args:
        structure: of the model.
        window: rows that the model sees.
        data: a file, see `column_files`; its first 90 % is trained on, its last 10 % held out.
        train: a file to train on; with `valid`, instead of `data`.
        valid: a file to measure on.
        columns: the model's inputs in its order; by default all columns of numbers.
        target: the column or columns that are forecast; by default all inputs, if there is one or
            the horizon is given.
        horizon: steps that are forecast; by default as many as the model's outputs are enough for.
        scaling: "standard" (deviation 1 around 0) or "minmax" (0 to 1), by the data to train on;
            "none" where the file is already in the model's units.
        batch: windows in a training batch; it does not affect the metrics.
        pooling: "last" takes the last step of the window, "mean" and "max" are over its steps; with
            "none" the model forecasts at each step.
        nonlinearity: of RNNs, "tanh" or "relu"; a checkpoint does not say.

    Raises:
        InputError: a file is missing.
        RecipeError: the structure, the data or an option does not fit.
    """

    name = "forecast"

    def __init__(
        self,
        structure: Structure,
        *,
        window: int,
        data: str | None = None,
        train: str | None = None,
        valid: str | None = None,
        columns: str | Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        horizon: int | None = None,
        scaling: Scaling = "standard",
        batch: int = 32,
        pooling: str = "last",
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        check_positive(
            self.name, window=window, batch=batch, horizon=1 if horizon is None else horizon
        )
        check_choice(self.name, "scaling", scaling, SCALINGS)
        check_choice(self.name, "pooling", pooling, (*POOLINGS, EACH_STEP))
        check_choice(self.name, "nonlinearity", nonlinearity, NONLINEARITIES)
        files = DataFiles(self.name, "data", data, train, valid)
        first = data or train
        if first is None and scaling != "none":
            raise RecipeError(
                f"task {self.name}: scaling: {scaling} is by the data to train on, but there is "
                "only valid. Give `train: FILE`, or `scaling: none` if valid is scaled already."
            )
        inputs, targets = (
            _name_list(self.name, option, given)
            for option, given in (("columns", columns), ("target", target))
        )
        cutting = Cutting(window, window) if pooling == EACH_STEP else Cutting(1, 1)
        named = None if inputs is None else tuple(dict.fromkeys([*inputs, *(targets or ())]))

        @cache  # both parts may be in one file, and the scale needs the first
        def read(path: str) -> Series:
            same = None if first in (None, path) else read(first).names
            return read_series(self.name, path, named or same)

        super().__init__(
            read_forecasting_chain(structure, self.name, at_each_step=pooling == EACH_STEP),
            train=lambda: files.read_train(read),
            held_out=lambda: files.read_held_out(read),
            window=window,
            horizon=horizon,
            columns=inputs,
            target=targets,
            scaling=scaling,
            batch=batch,
            pooling=next((one for one in POOLINGS if one == pooling), None),
            training=cutting,
            measuring=cutting,
            nonlinearity=nonlinearity,
        )


def read_forecasting_chain(structure: Structure, task: str, at_each_step: bool) -> Chain:
    """Recognise a chain that takes values.

    Raises:
        RecipeError: the model is not a chain, takes symbols, or sees what it should forecast.
    """
    chain = read_chain(structure, task)
    if chain.embedding is not None:
        raise RecipeError(
            f"task {task}: the model takes {chain.symbols} symbols by {chain.embedding}, but a "
            "series has values. Use the task language-model, tagger or classifier."
        )
    seeing = next((stack for stack in chain.stacks if stack.bidirectional), None)
    if at_each_step and seeing is not None:
        raise RecipeError(
            f"task {task}: {seeing.prefix}* is bidirectional, so at each step it sees what it "
            "should forecast. Use `pooling: last`."
        )
    return chain


def _name_list(task: str, option: str, given: object) -> list[str] | None:
    """Names of columns that a user gave; those of a file without names are numbers.

    Raises:
        RecipeError: it is neither a name nor a list of names.
    """
    if given is None:
        return None
    names = list(given) if isinstance(given, list | tuple) else [given]
    if not names or not all(isinstance(n, str | int) and not isinstance(n, bool) for n in names):
        raise RecipeError(
            f"task {task}: {option}: expected a column's name or a list of names, got {given!r}. "
            f"Write, for example, `{option}: [load, price]`."
        )
    return list(map(str, names))
