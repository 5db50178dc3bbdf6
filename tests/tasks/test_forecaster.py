import random

import pytest
import torch
from torch import nn

from ttcompress.errors import RecipeError
from ttcompress.samples import oscillators
from ttcompress.samples.oscillators import HORIZON, WINDOW
from ttcompress.tasks.forecaster import TRAINED_STEPS, Forecaster


def model(inputs=4, outputs=4 * HORIZON) -> nn.Module:
    return nn.ModuleDict({"rnn": nn.GRU(inputs, 3), "out": nn.Linear(3, outputs)})


@pytest.fixture
def task(describe, monkeypatch) -> Forecaster:
    values = random.Random(0)
    rows = [tuple(values.random() for _ in range(4)) for _ in range(400)]
    monkeypatch.setattr(oscillators, "load", lambda split: rows)
    return Forecaster(describe(model()))


def test_in_training_each_later_step_has_its_forecast(task):
    batch = next(task.train_batches(0, 0))
    targets = batch.targets.view(len(batch.inputs), TRAINED_STEPS, HORIZON, 4)
    first = WINDOW - TRAINED_STEPS + 1
    assert torch.equal(targets[:, :-1, 0], batch.inputs[:, first:])
    assert torch.equal(targets[:, 1:, :-1], targets[:, :-1, 1:])
    built = task.build()
    outputs, _ = task.outputs(built, batch, None)
    expected = built(batch.inputs)[0][:, -TRAINED_STEPS:]
    assert torch.equal(outputs.view_as(expected), expected)


def test_only_the_last_step_of_every_window_is_measured(task):
    (one, two) = task.held_out_batches()
    inputs, targets = torch.cat([one.inputs, two.inputs]), torch.cat([one.targets, two.targets])
    assert len(inputs) == len(targets) == 400 - WINDOW - HORIZON + 1
    assert torch.equal(targets[:-1, :4], inputs[1:, -1])
    built = task.build()
    assert torch.equal(task.outputs(built, two, None)[0], built(two.inputs)[0][:, -1])


def test_another_number_of_values_is_refused(describe):
    task = Forecaster(describe(model(inputs=5)))
    with pytest.raises(RecipeError, match="takes 5 values in each step, but there are 4 columns"):
        task.evaluate(task.build())
    task = Forecaster(describe(model(outputs=6)))
    with pytest.raises(RecipeError, match="out gives 6 outputs, but first, second, third, fourth"):
        task.evaluate(task.build())
