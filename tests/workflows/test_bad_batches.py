"""Batches, labels, metrics and recordings that do not fit: one message, and nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import ttcompress
from ttcompress.tasks.record import RECORD

RECIPE: dict[str, Any] = {"version": 1, "budget": {"factor": 4}}
TUNED = {**RECIPE, "finetune": {"epochs": 3}}
GOOD = [(torch.ones(2, 5, 4), torch.zeros(2, 5, 1))] * 4


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(x)[0])
        return out


def of_data(data: Any) -> Callable[[Model], object]:
    return lambda model: ttcompress.compress(model, RECIPE, data=data)


def of_recording(batches: Any) -> Callable[[Model], object]:
    return lambda model: ttcompress.record(model, batches, "x.safetensors")


def of_task(recipe: Any = RECIPE, **given: Any) -> Callable[[Model], object]:
    def run(model: Model) -> object:
        chosen = {"train": GOOD, "valid": GOOD, "loss": "mse"} | given
        return ttcompress.compress(model, recipe, task=ttcompress.task_of(model, **chosen))

    return run


def of_metric(found: Any) -> Callable[[Model], object]:
    return of_task(metrics={"fit": (lambda outputs, labels: found, True)})


def endless() -> Iterator[Any]:
    while True:
        yield GOOD[0]


NARROW, TEXT = [torch.ones(2, 5, 3)], ["text"]
CASES: dict[str, tuple[Callable[[Model], object], str]] = {
    "no layer": (lambda _: ttcompress.compress(nn.Linear(4, 4), RECIPE), "no recurrent layer"),
    "no layer to record": (
        lambda _: ttcompress.record(nn.Linear(4, 4), [], "x.safetensors"),
        "record: Linear has no recurrent layer",
    ),
    "narrow data": (of_data(NARROW), r"data: .*test_bad_batches.py:\d+: .*Expected 4, got 3"),
    "text as data": (of_data(TEXT), "data: a batch does not run: .*'str' object"),
    "integers as data": (of_data([torch.ones(2, 5, 4).long()]), "does not match weight dtype"),
    "no batches at all": (of_data(5), "data: expected batches, .* got int"),
    "an empty loader": (of_data([]), "has no data to run"),
    "data with NaN": (of_data([torch.full((2, 5, 4), torch.nan)]), "hold NaN or infinity"),
    "narrow inputs to record": (of_recording(NARROW), "record: .*Expected 4, got 3"),
    "text to record": (of_recording(TEXT), "record: a batch does not run: .*'str' object"),
    "nothing to record": (of_recording([]), "record: no batch reached"),
    "a number to record": (of_recording(5), "record: expected batches, .* got int"),
    "batches that only calibrate": (
        lambda model: ttcompress.compress(model, TUNED, data=GOOD),
        "there is nothing to train on: .*task_of makes a task of batches",
    ),
    "nothing to train on": (of_task(TUNED, train=[]), "an epoch has 0 batches"),
    "an endless loader": (of_task(train=endless()), "has no length. Say how many"),
    "a loader that ends": (
        of_task(TUNED, train=iter(GOOD), batches=4),
        "list_iterator to train on has ended, since it can be read only once",
    ),
    "nothing to measure on": (of_task(valid=[]), "yields no batch"),
    "measured once": (of_task(valid=iter(GOOD)), "can be read only once, but every measurement"),
    "measured on a number": (of_task(valid=5), "task_of: valid: expected batches"),
    "narrow batches": (of_task(valid=[(NARROW[0], GOOD[0][1])]), "task own: .*Expected 4, got 3"),
    "labels that are text": (of_task(valid=[(GOOD[0][0], "a")]), "a batch has no labels"),
    "labels with NaN": (
        of_task(valid=[(GOOD[0][0], GOOD[0][1] * torch.nan)]),
        "mse is nan, which is not a finite number. Check the data",
    ),
    "a metric that is text": (of_metric("high"), "task own: fit is not a number but a str"),
    "a metric that is nothing": (of_metric(None), "fit is not a number but a NoneType"),
    "a metric of two numbers": (of_metric(torch.ones(2)), "fit is not a number but a Tensor of 2"),
    "a metric that is NaN": (of_metric(float("nan")), "fit is nan, which is not a finite"),
    "a loss of many numbers": (
        of_task(loss=lambda outputs, labels: outputs - labels, predicts="values"),
        "loss is not a number but a Tensor of 10 x 1",
    ),
    "no task": (
        lambda model: ttcompress.compress(model, RECIPE, task=5),  # type: ignore[arg-type]
        "task int: lacks name, metrics",
    ),
    "an example that does not run": (
        lambda model: ttcompress.export(
            ttcompress.compress(model, RECIPE),
            "x.onnx",
            module=ttcompress.OwnModule(model, (torch.ones(2, 5, 3),), ({0: "batch", 1: "time"},)),
        ),
        "export: the module does not run on the example: ",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_message_and_nothing_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, message = CASES[name]
    if name == "an example that does not run":
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with pytest.raises(ttcompress.TTCompressError, match=message) as caught:
        run(Model())
    assert str(caught.value).rstrip().endswith((".", "`", ")")) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rnn.0.inputs": torch.full((2, 5, 4), torch.nan)}, "40 of 40 values are NaN"),
        ({"rnn.0.lengths": torch.tensor([5, 9])}, "the longest 9, for 2 sequences of 5 steps"),
        ({"rnn.0.lengths": torch.tensor([5.0, 2.0])}, "2 lengths"),
        ({"rnn.0.h0": torch.zeros(1, 2, 32)}, r"of 1 x 2 x 32, 1 x 2 x 32, got 1 x 2 x 32\."),
        (
            {"rnn.0.h0": torch.zeros(1, 3, 32), "rnn.0.c0": torch.zeros(1, 3, 32)},
            "expected first states of 1 x 2 x 32, 1 x 2 x 32, got 1 x 3 x 32",
        ),
    ],
)
def test_a_recording_that_was_changed(
    changed: dict[str, Tensor], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Model()
    ttcompress.record(model, [torch.ones(2, 5, 4)], "x.safetensors")
    with safe_open("x.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {RECORD: file.metadata()[RECORD]}
    save_file(tensors | changed, "x.safetensors", metadata)
    for recipe in (RECIPE, TUNED):
        with pytest.raises(ttcompress.RecipeError, match=message):
            ttcompress.compress(model, recipe, data="x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
