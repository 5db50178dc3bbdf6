"""All errors of a calibrated budget are in the same units, however many inputs there are."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from ttcompress.calibration.moments import calibrate
from ttcompress.calibration.prior import PriorSource
from ttcompress.calibration.sources import FileSource
from ttcompress.checkpoint import open_checkpoint
from ttcompress.workflows.compress import compress

SYMBOLS, SIZE, HIDDEN = 30, 16, 48


class EncoderDecoder(nn.Module):
    """Reads a sequence, then writes one, starting from the state that reading left."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, SIZE)
        self.encoder = nn.LSTM(SIZE, HIDDEN, batch_first=True)
        self.decoder = nn.LSTM(SIZE, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, SYMBOLS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:  # (batch, time), both
        _, state = self.encoder(self.embedding(source))
        return self.head(self.decoder(self.embedding(target), state)[0])


@pytest.fixture(scope="module")
def model() -> EncoderDecoder:
    """With falling spectra, gates that move and symbols of unequal frequency, as after training."""
    torch.manual_seed(0)
    made = EncoderDecoder()
    with torch.no_grad():
        for name, matrix in made.named_parameters():
            if name.split(".")[0] in ("encoder", "decoder") and matrix.dim() == 2:
                u, s, v = torch.linalg.svd(matrix, full_matrices=False)
                matrix.copy_(4 * (u * (s * 0.94 ** torch.arange(len(s)))) @ v)
    return made.eval()


@pytest.fixture(scope="module")
def checkpoint(model: EncoderDecoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("units") / "model.pt"
    torch.save(model.state_dict(), path)
    return path


def text(count: int, seed: int, time: int = 20) -> Tensor:
    """Symbols of falling frequency, (sequences, time): `count` in all, or a little more."""
    generator = torch.Generator().manual_seed(seed)
    frequencies = 1.0 / torch.arange(1, SYMBOLS + 1)
    time = min(count, time)
    sequences = -(-count // time)
    return torch.multinomial(
        frequencies, sequences * time, replacement=True, generator=generator
    ).view(sequences, time)


def distance(model: EncoderDecoder, tensors: dict[str, Tensor]) -> float:
    """How far the logits on other text are from the original's, relative to them."""
    other = EncoderDecoder().eval()
    other.load_state_dict(tensors)
    source, target = text(1000, 98), text(1000, 99)
    with torch.no_grad():
        wanted = model(source, target)
        return float((other(source, target) - wanted).norm() / wanted.norm())


def compressed(checkpoint: Path, inputs: dict[str, Tensor] | None, to: Path) -> dict[str, Tensor]:
    recipe: dict[str, object] = {"version": 1, "format": "mps", "budget": {"factor": 12}}
    if inputs is not None:
        save_file({name: values.contiguous() for name, values in inputs.items()}, to)
        recipe["calibration"] = {"data": str(to)}
    return dict(compress(checkpoint, recipe).state_dict())


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(0, 8).map(lambda k: round(10 ** (k / 2))), both=st.booleans())
def test_no_number_of_inputs_is_worse_than_none(model, checkpoint, tmp_path, count, both):
    plain = distance(model, compressed(checkpoint, None, tmp_path / "x"))
    embedded = model.embedding.weight.detach()[text(count, 1)]
    inputs = {"encoder": embedded} | ({"decoder": embedded.flip(0).clone()} if both else {})
    found = distance(model, compressed(checkpoint, inputs, tmp_path / "x"))
    assert found < 1.1 * plain, f"{count} inputs"


@pytest.mark.parametrize("kind", ["constant", "copies"])
def test_inputs_that_vary_little_are_not_worse_than_none(model, checkpoint, tmp_path, kind):
    embedded = model.embedding.weight.detach()[text(4000, 1)]
    embedded = (embedded[:1, :1] if kind == "constant" else embedded[:1]).expand(200, 20, SIZE)
    plain = distance(model, compressed(checkpoint, None, tmp_path / "x"))
    inputs = {"encoder": embedded, "decoder": embedded.clone()}
    assert distance(model, compressed(checkpoint, inputs, tmp_path / "x")) < 1.25 * plain


def test_one_input_gives_nearly_the_guess_and_many_give_the_data(model, checkpoint, tmp_path):
    opened = open_checkpoint(checkpoint)
    for count in (1, 10_000):
        embedded = model.embedding.weight.detach()[text(count, 1)]
        save_file({"encoder": embedded}, tmp_path / "x")
        found = calibrate(opened, FileSource(tmp_path / "x", opened))
        assert set(found.weightings) == {weight.name for weight in opened.weights}
        name = "encoder.weight_ih_l0"
        flat = embedded.flatten(0, 1).double()
        data, guess = flat.mT @ flat / count, found.priors[name].columns.diag()
        mine, known = found.weightings[name].moment, found.weightings[name].known
        torch.testing.assert_close(mine, known * data + (1 - known) * guess, rtol=1e-2, atol=2e-3)
        assert known == pytest.approx(count / (count + SIZE), rel=0.05)
        assert found.weightings["decoder.weight_hh_l0"].known == 0
        assert found.notes["decoder.weight_hh_l0"].startswith("not calibrated: the data do not")


def test_columns_that_are_always_zero_are_not_free(model, checkpoint, tmp_path):
    opened = open_checkpoint(checkpoint)
    embedded = model.embedding.weight.detach()[text(4000, 1)] * (torch.arange(SIZE) < SIZE // 2)
    save_file({"encoder": embedded}, tmp_path / "x")
    found = calibrate(opened, FileSource(tmp_path / "x", opened))
    name = "encoder.weight_ih_l0"
    dead = found.weightings[name].moment.diagonal()[SIZE // 2 :]
    assert bool((dead > 0.002 * found.priors[name].columns[SIZE // 2 :]).all())


def test_guesses_are_in_the_units_of_what_is_measured(model, checkpoint, tmp_path):
    """The cost of each weight's errors, guessed, is within a factor of 3 of the measured one."""
    opened = open_checkpoint(checkpoint)
    embedded = model.embedding.weight.detach()[text(10_000, 1)]
    save_file({"encoder": embedded, "decoder": embedded.clone()}, tmp_path / "x")
    found = calibrate(opened, FileSource(tmp_path / "x", opened))
    for weight in opened.weights:
        if weight.role == "recurrent":
            guess, measured = found.priors[weight.name], found.weightings[weight.name]
            ratio = guess.rows.mean() * guess.columns.mean()
            ratio /= measured.rows.mean() * measured.moment.diagonal().mean()
            assert 1 / 3 < float(ratio) < 3, weight.name


MODELS: dict[str, dict[str, nn.Module]] = {
    "cells": {"embed": nn.Embedding(9, 5), "cell": nn.GRUCell(5, 7), "out": nn.Linear(7, 9)},
    "one-hot": {"rnn": nn.LSTM(9, 7, 2), "out": nn.Linear(7, 9)},
    "values": {"rnn": nn.RNN(1, 7, bidirectional=True), "out": nn.Linear(14, 1)},
    "projection": {"rnn": nn.LSTM(6, 8, 2, proj_size=3), "out": nn.Linear(3, 4)},
    "above another": {"low": nn.GRU(6, 8), "high": nn.LSTM(8, 5), "out": nn.Linear(5, 4)},
    "no recurrent layer": {"first": nn.Linear(4, 3), "out": nn.Linear(3, 4)},
}


class Nothing:
    """Data that reach no weight."""

    batches = 0

    def run(self, tensors):
        return iter(())


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_of_any_model_has_a_weighting_without_data(name, tmp_path):
    torch.manual_seed(0)
    model = nn.ModuleDict(MODELS[name])
    torch.save(model.state_dict(), tmp_path / "model.pt")
    opened = open_checkpoint(tmp_path / "model.pt")
    found = calibrate(opened, Nothing())
    for weight in opened.weights:
        weighting = found.weightings[weight.name]
        assert weighting.rows.shape == weight.shape[:1]
        assert bool((weighting.rows > 0).all())
        assert bool((torch.linalg.eigvalsh(weighting.moment) > 0).all())
    assert found.inputs == dict.fromkeys(found.weightings, 0)


def test_weight_dropped_layers_and_tied_weights_have_weightings_too(tmp_path):
    torch.manual_seed(0)
    model = nn.ModuleDict({"embedding": nn.Embedding(9, 6), "rnn": nn.LSTM(6, 6)})
    values = {
        (f"{n}_raw" if "_hh" in n and "weight" in n else n): t
        for n, t in model.state_dict().items()
    }
    torch.save(values | {"decoder.weight": values["embedding.weight"]}, tmp_path / "model.pt")
    opened = open_checkpoint(tmp_path / "model.pt")
    found = calibrate(opened, Nothing())
    assert set(found.weightings) == {weight.name for weight in opened.weights}
    assert len(found.weightings) == 3
    (activations,) = PriorSource(opened.stacks, opened.weights).run(opened.state_dict())
    hidden = activations.stacks["rnn."][0][0].hidden(0)
    mean = float(hidden.square().mean())
    assert 0 < mean < 1  # bounded by the cell
    guessed = found.priors["rnn.weight_hh_l0_raw"].columns
    assert float(guessed.square().mean() / guessed.mean()) < 1


def test_a_layers_inputs_are_recognised(tmp_path):
    """Rows of the embedding of like name, one-hot vectors, and the outputs of the layer before."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "encoder": nn.ModuleDict({"embedding": nn.Embedding(9, 5), "rnn": nn.LSTM(5, 4)}),
            "decoder": nn.ModuleDict({"embedding": nn.Embedding(9, 5), "rnn": nn.LSTM(5, 4)}),
            "above": nn.GRU(4, 3),
            "hot": nn.GRU(7, 6),
            "out": nn.Linear(6, 7),
        }
    )
    torch.save(model.state_dict(), tmp_path / "model.pt")
    opened = open_checkpoint(tmp_path / "model.pt")
    tensors = opened.state_dict()
    (found,) = PriorSource(opened.stacks, opened.weights).run(tensors)
    inputs = {prefix: calls[0][0].inputs for prefix, calls in found.stacks.items()}
    for side in ("encoder", "decoder"):
        table = tensors[f"{side}.embedding.weight"]
        rows = inputs[f"{side}.rnn."].flatten(0, 1)
        assert bool((torch.cdist(rows, table).amin(1) < 1e-2).all())
    assert torch.equal(inputs["above."], found.stacks["decoder.rnn."][0][0].outputs)
    assert bool((inputs["hot."].sum(2) == 1).all())
    assert found.linears.keys() == {"out"}
