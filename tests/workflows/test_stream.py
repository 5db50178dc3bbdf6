"""`stream` and `evaluate` with `native`: what C gives from Python is what torch gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ttcompress
from ttcompress.artifact import CompressedModel
from ttcompress.targets.c.compiler import find_compiler
from ttcompress.targets.c.native import cache_folder

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler here")


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 12)
        self.lstm = nn.LSTM(12, 20, num_layers=2)
        self.head = nn.Linear(20, 11)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 20, bidirectional=True)
        self.head = nn.Linear(40, 3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def compress(module: nn.Module) -> CompressedModel:
    return ttcompress.compress(module, {"version": 1, "budget": {"factor": 2}, "format": "mps"})


@pytest.fixture(scope="module")
def words() -> CompressedModel:
    torch.manual_seed(0)
    return compress(Words())


def torchs(small: CompressedModel, symbols: list[int]) -> np.ndarray:
    model = ttcompress.load_into(Words(), small).eval()
    with torch.no_grad():
        hidden, _ = model.lstm(model.embedding(torch.tensor(symbols)[:, None]))
        found: np.ndarray = model.head(hidden)[:, 0].numpy()
    return found


SYMBOLS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def test_steps_and_a_run_are_torchs(words) -> None:
    model = ttcompress.stream(words)
    assert (model.symbols, model.outputs, model.states) == (11, 11, 1)
    steps = np.stack([model.step(symbol) for symbol in SYMBOLS])
    np.testing.assert_allclose(steps, torchs(words, SYMBOLS), atol=1e-5)
    model.reset()
    np.testing.assert_allclose(model.run(SYMBOLS), steps, atol=1e-6)


def test_several_states_are_apart(words) -> None:
    model = ttcompress.stream(words, states=6)
    columns = np.random.default_rng(0).integers(11, size=(8, 6))
    found = np.stack([model.step(row) for row in columns])
    for k in range(6):
        np.testing.assert_allclose(found[:, k], torchs(words, columns[:, k].tolist()), atol=1e-5)
    model.reset(4)
    again = model.step(columns[0])
    np.testing.assert_allclose(again[4], found[0, 4], atol=1e-6)
    assert np.abs(again[3] - found[0, 3]).max() > 1e-3
    model.reset()
    np.testing.assert_allclose(model.run(columns), found, atol=1e-6)


def test_memory_is_torchs_state_and_can_be_put_back(words) -> None:
    model = ttcompress.stream(words)
    model.run(SYMBOLS[:6])
    kept = model.memory
    dense = ttcompress.load_into(Words(), words).eval()
    with torch.no_grad():
        _, state = dense.lstm(dense.embedding(torch.tensor(SYMBOLS[:6])[:, None]))
    wanted = torch.cat([member.flatten() for member in state])
    np.testing.assert_allclose(kept[0], wanted, atol=1e-6)
    after = model.run(SYMBOLS[6:])
    model.memory = kept
    np.testing.assert_array_equal(model.run(SYMBOLS[6:]), after)
    with pytest.raises(ValueError, match=r"\(3,\), but the model needs \(1, 80\)"):
        model.memory = [1, 2, 3]


def test_values_in_both_directions_are_run_whole() -> None:
    torch.manual_seed(0)
    small = compress(Tagger())
    model = ttcompress.stream(small, states=2)
    assert (model.symbols, model.inputs, model.outputs) == (None, 6, 3)
    x = torch.randn(7, 2, 6)
    dense = ttcompress.load_into(Tagger(), small).eval()
    with torch.no_grad():
        wanted = dense.head(dense.rnn(x)[0])
    np.testing.assert_allclose(model.run(x.numpy()), wanted, atol=1e-5)
    with pytest.raises(ttcompress.RecipeError, match=r"bidirectional.*Use `run`"):
        model.step(x[0].numpy())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (11, "symbols 11 to 11, but there are 11, from 0 to 10"),
        (-1, "symbols -1 to -1"),
        (1.5, "float64, but symbols are integers"),
        ([1, 2], r"shape \(2,\), but \(\) is needed"),
    ],
)
def test_a_step_refuses_what_is_no_input(words, x, message) -> None:
    with pytest.raises(ValueError, match=message):
        ttcompress.stream(words).step(x)


def test_a_run_needs_a_step(words) -> None:
    with pytest.raises(ValueError, match="0 steps"):
        ttcompress.stream(words).run([])


def test_it_is_built_once(words) -> None:
    ttcompress.stream(words, quantize="int8")
    before = {path: path.stat().st_mtime_ns for path in cache_folder().iterdir()}
    ttcompress.stream(words, quantize="int8", states=3)
    assert {path: path.stat().st_mtime_ns for path in cache_folder().iterdir()} == before
    assert all(path.suffix == ".so" for path in before)


def test_a_layer_by_itself_is_named(words) -> None:
    model = ttcompress.stream(words, layer="lstm")
    assert (model.inputs, model.outputs) == (12, 20)
    with pytest.raises(ttcompress.RecipeError, match=r"no recurrent layer 'gru'. Layers are: lstm"):
        ttcompress.stream(words, layer="gru")
    two = compress(nn.ModuleDict({"one": nn.LSTM(8, 8), "two": nn.GRU(5, 8)}))
    with pytest.raises(ttcompress.RecipeError, match=r"not known: one, two. Name one: layer='one'"):
        ttcompress.stream(two)


def test_what_does_not_fit_is_refused(words) -> None:
    with pytest.raises(ttcompress.RecipeError, match="states must be at least 1, got 0"):
        ttcompress.stream(words, states=0)
    with pytest.raises(ttcompress.RecipeError, match="expected 'int8' or 'int4', got 'int2'"):
        ttcompress.stream(words, quantize="int2")


def test_without_a_compiler_one_message_says_so(words, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "")
    with pytest.raises(
        ttcompress.MissingExtraError, match=r"no cc, gcc or clang here.*variable CC"
    ) as e:
        ttcompress.stream(words)
    assert e.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("sample", ["charlm", "highlighter"])
def test_a_samples_metric_in_int8_stays_within_a_quarter_of_a_percent(sample) -> None:
    small = ttcompress.compress(ROOT / "sample_models" / f"{sample}.pt", "fast")
    counting, wanted = next(iter(ttcompress.evaluate(small, sample).items()))
    exact = ttcompress.evaluate(small, sample, native="none")[counting]
    rounded = ttcompress.evaluate(small, sample, native="int8")[counting]
    assert exact == pytest.approx(wanted, rel=1e-4)
    assert rounded == pytest.approx(wanted, rel=0.0025) and rounded != wanted


def test_only_a_compressed_model_is_run_as_c(tiny_checkpoint) -> None:
    with pytest.raises(ttcompress.RecipeError, match="only a compressed model runs as C"):
        ttcompress.evaluate(ROOT / "sample_models" / "charlm.pt", "charlm", native="int8")


def test_a_task_is_measured_in_c_as_in_torch(case) -> None:
    exact = ttcompress.evaluate(case.compressed, case.task)
    assert ttcompress.evaluate(case.compressed, case.task, native="none") == pytest.approx(
        exact, rel=1e-4
    )


def test_a_task_with_code_of_its_own_is_not_run_as_c(words) -> None:
    class Calls(Words):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.lstm(self.embedding(x))[0])
            return out

    task = ttcompress.task_of(Calls(), valid=[torch.ones(5, 1).long()], predicts="classes")
    with pytest.raises(ttcompress.RecipeError, match=r"in code of its own\. Use a built-in task"):
        ttcompress.evaluate(words, task, native="none")
