"""`load_into`: the user's own module with an artifact in it computes what dense weights compute."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ttcompress import load_into
from ttcompress.artifact import CompressedModel
from ttcompress.errors import ArtifactError
from ttcompress.layers import LSTM, Embedding, GRUCell, Linear
from ttcompress.layers.matrices import TrainWeight
from ttcompress.workflows.compress import compress

ALL = {"version": 1, "budget": {"rank": 5}, "store": "float32", "rules": [{"weights": "all"}]}


class Tied(nn.Module):
    """An embedding that is the output layer too, between them layers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 10, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(20, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 13)
        self.head.weight = self.embedding.weight

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embedding(symbols))
        return self.head(self.norm(self.cell(hidden[:, -1])))


def compressed(model: nn.Module, folder: Path, format: str = "mps") -> CompressedModel:
    torch.save(model.state_dict(), folder / "model.pt")
    return compress(folder / "model.pt", ALL | {"format": format, "default": "keep"})


@pytest.fixture
def trained() -> Tied:
    torch.manual_seed(0)
    model = Tied()
    model(torch.randint(13, (8, 4)))  # moves the buffers of the norm
    return model.eval()


@pytest.mark.parametrize("format", ["mps", "mpo"])
def test_the_model_computes_what_its_dense_weights_compute(
    trained: Tied, tmp_path: Path, format: str
) -> None:
    small = compressed(trained, tmp_path, format)
    small.save(tmp_path / "small.safetensors")
    dense = Tied().eval()
    dense.load_state_dict(small.state_dict())
    loaded = load_into(Tied(), tmp_path / "small.safetensors").eval()
    symbols = torch.randint(13, (6, 9))
    torch.testing.assert_close(loaded(symbols), dense(symbols), rtol=1e-4, atol=1e-5)
    assert (loaded(symbols) - trained(symbols)).abs().max() > 1e-3  # the ranks were cut


def test_layers_are_swapped_with_their_configuration(trained: Tied, tmp_path: Path) -> None:
    model = Tied()
    assert load_into(model, compressed(trained, tmp_path)) is model
    kinds = [type(child) for child in (model.embedding, model.lstm, model.cell, model.head)]
    assert kinds == [Embedding, LSTM, GRUCell, Linear]
    assert model.lstm.batch_first and model.lstm.bidirectional
    assert model.embedding.padding_idx == 0
    assert isinstance(model.norm, nn.BatchNorm1d)
    torch.testing.assert_close(model.norm.running_mean, trained.norm.running_mean)


def test_tied_weights_are_one_again(trained: Tied, tmp_path: Path) -> None:
    model = load_into(Tied(), compressed(trained, tmp_path))
    assert isinstance(model.head.weight, TrainWeight)
    assert model.head.weight is model.embedding.weight


def test_tied_weights_that_are_kept_are_one_parameter(trained: Tied, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    kept = compress(tmp_path / "model.pt", {"version": 1, "budget": {"rank": 3}})
    untied = Tied()
    untied.head.weight = nn.Parameter(torch.zeros(13, 12))
    model = load_into(untied, kept)
    assert model.head.weight is model.embedding.weight
    torch.testing.assert_close(model.head.weight, trained.embedding.weight)


def test_the_models_own_type_stays(trained: Tied, tmp_path: Path) -> None:
    model = load_into(Tied().double(), compressed(trained, tmp_path)).eval()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(torch.randint(13, (2, 3))).dtype == torch.float64


def test_a_bare_layer_is_returned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(6, 8)
    loaded = load_into(nn.LSTM(6, 8), compressed(layer, tmp_path))
    assert isinstance(loaded, LSTM)


def test_every_mismatch_is_named_and_the_model_stays_as_it_was(
    trained: Tied, tmp_path: Path
) -> None:
    small = compressed(trained, tmp_path)
    model = Tied()
    model.head = nn.Linear(12, 14)
    model.extra = nn.Linear(2, 2)
    del model.cell
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ArtifactError) as caught:
        load_into(model, small)
    for fact in (
        "extra.weight is not in the artifact",
        "cell.weight_ih is not in the model",
        "head.bias is (13,) in the artifact but (14,) in the model",
    ):
        assert fact in str(caught.value)
    assert type(model.lstm) is nn.LSTM
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_parameter_of_a_module_that_runs_no_train_is_named(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Parameter(torch.randn(30, 30))

    with pytest.raises(ArtifactError, match="Own"):
        load_into(Own(), compressed(Own(), tmp_path))


class Halved(nn.LSTM):
    def forward(self, input, hx=None):  # type: ignore[no-untyped-def]
        output, state = super().forward(input, hx)
        return output / 2, state


class Scaled(nn.Embedding):
    def forward(self, input):  # type: ignore[no-untyped-def]
        return super().forward(input) * 8


class Doubled(nn.Linear):
    def forward(self, input):  # type: ignore[no-untyped-def]
        return 2 * super().forward(input)


class Named(nn.LSTM):
    """Computes what torch's layer does."""


@pytest.mark.parametrize("layer", [Halved(12, 10), Scaled(13, 12), Doubled(12, 10)])
def test_a_layer_that_computes_more_than_torchs_is_not_replaced(layer, tmp_path: Path) -> None:
    model = nn.ModuleDict({"layer": layer, "rnn": nn.LSTM(12, 10)})
    name = f"layer: a {type(layer).__name__} has its own forward"
    with pytest.raises(ArtifactError, match=f"{name}.*ttcompress restore"):
        load_into(model, compressed(model, tmp_path))
    assert model["layer"] is layer


def test_a_layer_of_another_class_that_computes_the_same_is_replaced(tmp_path: Path) -> None:
    model = nn.ModuleDict({"layer": Named(12, 10)})
    assert type(load_into(model, compressed(model, tmp_path))["layer"]) is LSTM
