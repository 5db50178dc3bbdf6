import pytest
import torch
from torch import nn

from ttcompress.errors import RecipeError
from ttcompress.tasks.forecast import Forecast

HOURS = [(k, float(k * k), -2.0 * k) for k in range(100)]  # a, b, c


def write(tmp_path, rows=HOURS, header="a,b,c", name="data.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    return str(path)


def model(inputs=3, outputs=3, bidirectional=False) -> nn.Module:
    features = 5 * (1 + bidirectional)
    layers = {
        "rnn": nn.GRU(inputs, 5, bidirectional=bidirectional),
        "out": nn.Linear(features, outputs),
    }
    return nn.ModuleDict(layers)


class Repeating(nn.Module):
    """Forecasts the last value of every input again, `horizon` times, plus a fault."""

    def __init__(self, horizon: int, fault: float = 0.0, each: bool = False) -> None:
        super().__init__()
        self.horizon, self.each = horizon, each
        self.fault = nn.Parameter(torch.tensor(fault))

    def forward(self, inputs, state, lengths):
        last = inputs if self.each else inputs[:, -1]
        return last.repeat(*[1] * (last.dim() - 1), self.horizon) + self.fault, (None,)


def test_batches_are_scaled_windows_and_what_follows_them(describe, tmp_path):
    structure = describe(model(inputs=2, outputs=4))
    options = {"columns": ["b", "a"], "target": ["c", "b"], "window": 3, "scaling": "none"}
    task = Forecast(structure, data=write(tmp_path), **options, batch=200)
    (batch,) = task.train_batches(0, 0)
    assert batch.inputs.shape == (90 - 5 + 1, 3, 2)
    for window, target in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        k = int(window[0][1])
        assert window == [[(k + i) ** 2, k + i] for i in range(3)]
        assert target == [-2 * (k + 3), (k + 3) ** 2, -2 * (k + 4), (k + 4) ** 2]
    held_out = list(task.held_out_batches())
    assert held_out[0].inputs[:, 0, 1].tolist() == [*range(90, 96)]


def test_at_each_step_every_row_of_a_window_has_its_forecast(describe, tmp_path):
    structure = describe(model(inputs=1, outputs=2))
    options = {"columns": "a", "window": 7, "scaling": "none", "pooling": "none"}
    task = Forecast(structure, data=write(tmp_path), **options, batch=200)
    (batch,) = task.train_batches(0, 0)
    starts = batch.inputs[:, 0, 0].sort().values
    assert len(starts) == task.build()(batch.inputs)[0].shape[0] == -(-(90 - 7 - 2 + 1) // 7)
    seen = batch.inputs.flatten()
    assert torch.equal(batch.targets, torch.stack([seen + 1, seen + 2], 1))
    offsets = {next(task.train_batches(e, 0)).inputs[:, 0, 0].min().item() for e in range(9)}
    assert len(offsets) > 3


SCALED = {
    "standard": lambda x: (x - 44.5) / ((90**2 - 1) / 12) ** 0.5,
    "minmax": lambda x: x / 89,
    "none": lambda x: x,
}


@pytest.mark.parametrize("scaling", SCALED)
def test_scales_are_those_of_the_part_to_train_on(scaling, describe, tmp_path):
    rows = [(k, 7.0) for k in range(100)]
    path = write(tmp_path, rows, "a,constant")
    task = Forecast(
        describe(model(2, 1)), data=path, target="a", window=2, scaling=scaling, batch=99
    )
    (batch,) = task.held_out_batches()
    expected = SCALED[scaling](torch.arange(90, 98, dtype=torch.float64)).float()
    torch.testing.assert_close(batch.inputs[:, 0, 0], expected)
    assert set(batch.inputs[:, :, 1].flatten().tolist()) == {7.0 if scaling == "none" else 0.0}


@pytest.mark.parametrize("pooling", ["last", "none"])
def test_the_naive_forecast_is_as_good_as_itself(pooling, describe, tmp_path):
    structure = describe(model(inputs=2, outputs=6))
    options = {"columns": ["a", "b"], "horizon": 3, "window": 2, "pooling": pooling}
    task = Forecast(structure, data=write(tmp_path), **options)
    found = task.evaluate(Repeating(3, each=pooling == "none"))
    assert found["mse_to_naive"] == pytest.approx(1)
    assert task.evaluate(Repeating(3, -1.0, pooling == "none"))["mse_to_naive"] > 1


def test_metrics_are_means_over_all_forecasts(describe, tmp_path):
    rows = [(2.0 + k % 2,) for k in range(40)]  # 2 3 2 3
    options = {"window": 2, "train": write(tmp_path, rows, "a"), "batch": 3}
    valid = write(tmp_path, rows[:7], "a", "valid.csv")
    task = Forecast(describe(model(1, 2)), valid=valid, **options)
    found = task.evaluate(Repeating(2))
    # In the model's units -1 and 1: wrong by 2 one step ahead, right two steps ahead.
    assert found["mse"] == pytest.approx(2)
    assert found["mae"] == pytest.approx(1)
    assert found["smape"] == pytest.approx(100 * (1 / 2.5) / 2)


def test_columns_are_found_by_name_in_both_files(describe, tmp_path):
    train = write(tmp_path)
    turned = [(c, a, b) for a, b, c in HOURS]
    valid = write(tmp_path, turned, "c,a,b", "valid.csv")
    files = {"train": train, "valid": valid, "horizon": 1, "window": 2, "scaling": "none"}
    (batch,) = Forecast(describe(model()), **files).held_out_batches()
    assert batch.inputs[5, 0].tolist() == [5, 25, -10]


BAD = {
    "columns": ({"columns": ["a", "b"]}, "takes 3 values in each step, but there are 2 columns"),
    "a missing column": ({"columns": ["a", "b", "x"]}, "has no column 'x'"),
    "a missing target": ({"target": "x"}, "has no column of numbers 'x'; its 3 are a, b, c"),
    "no target": ({"horizon": None}, "out gives 3 outputs, and 3 columns could be forecast"),
    "the horizon": (
        {"horizon": 2},
        r"gives 3 outputs, but a, b, c at a horizon of 2 \(3 x 2\) needs 6",
    ),
    "the target": (
        {"target": ["a", "b"], "horizon": None},
        r"a, b at a horizon of 1 \(2 x 1\) needs 2",
    ),
    "a long window": ({"window": 90}, "there are 90 rows to train on, but .* at least 91"),
    "a short end": ({"window": 10}, "there are 10 rows to measure on, but .* at least 11"),
    "no list": ({"columns": {"a": 1}}, "columns: expected a column's name or a list of names"),
    "an empty list": ({"target": []}, "target: expected a column's name or a list of names"),
    "no horizon": ({"horizon": 0}, "horizon: expected a whole number of at least 1, got 0"),
    "no window": ({"window": 0}, "window: expected a whole number of at least 1, got 0"),
    "the scaling": ({"scaling": "z"}, "scaling: expected one of standard, minmax, none, got 'z'"),
    "the pooling": ({"pooling": "first"}, "pooling: expected one of last, mean, max, none"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_both_numbers(name, describe, tmp_path):
    options, fact = BAD[name]
    given = {"data": write(tmp_path), "window": 4, "horizon": 1} | options
    with pytest.raises(RecipeError, match=fact):
        task = Forecast(describe(model()), **given)
        task.batches_per_epoch  # noqa: B018
        task.evaluate(task.build())


def test_a_scale_needs_the_data_to_train_on(describe, tmp_path):
    path = write(tmp_path)
    with pytest.raises(RecipeError, match="scaling: standard is by the data to train on"):
        Forecast(describe(model()), valid=path, window=3, horizon=1)
    task = Forecast(describe(model()), valid=path, window=3, horizon=1, scaling="none")
    assert task.evaluate(task.build())["mse_to_naive"] > 0


def test_a_series_that_stands_still_is_refused(describe, tmp_path):
    path = write(tmp_path, [(3.0,)] * 100, "a")
    task = Forecast(describe(model(1, 1)), data=path, window=3)
    with pytest.raises(RecipeError, match="no target changes in the 10 rows to measure on"):
        task.evaluate(task.build())


def test_a_model_of_symbols_is_refused(describe):
    users = nn.ModuleDict(
        {"embed": nn.Embedding(9, 4), "rnn": nn.GRU(4, 5), "out": nn.Linear(5, 3)}
    )
    with pytest.raises(RecipeError, match="takes 9 symbols by embed, but a series has values"):
        Forecast(describe(users), data="x.csv", window=3)


def test_a_model_that_sees_what_it_forecasts_is_refused(describe):
    users = model(bidirectional=True)
    with pytest.raises(RecipeError, match=r"rnn\.\* is bidirectional, so at each step it sees"):
        Forecast(describe(users), data="x.csv", window=3, pooling="none")
    assert Forecast(describe(users), data="x.csv", window=3).build()
