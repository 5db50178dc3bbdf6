"""Models written by hand as users write them, against the chain that is read from their keys."""

import pytest
import torch
from torch import Tensor, nn

from ttcompress.errors import RecipeError
from ttcompress.layers.recurrent_model import RecurrentModel
from ttcompress.tasks.architecture import read_chain
from ttcompress.tasks.registry import make_task

SYMBOLS, CLASSES = 11, 7


class Plain(nn.Module):
    """Embedding, one recurrent module, linear."""

    def __init__(self, layer: nn.RNNBase, features: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, layer.input_size)
        self.layer = layer
        self.out = nn.Linear(features, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.out(self.layer(self.embed(inputs))[0])
        return logits


class Nested(nn.Module):
    """Several recurrent modules of different sizes, deep in the tree; a decoder without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.encoder = nn.Embedding(SYMBOLS, 6)
        self.model.rnns = nn.ModuleList(
            [nn.LSTM(6, 8, batch_first=True), nn.GRU(8, 5, batch_first=True)]
        )
        self.decoder = nn.Sequential(nn.Linear(5, CLASSES, bias=False))

    def forward(self, inputs: Tensor) -> Tensor:
        values = self.model.encoder(inputs)
        for layer in self.model.rnns:
            values = layer(values)[0]
        logits: Tensor = self.decoder(values)
        return logits


class OneHot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SYMBOLS, 8, 2, batch_first=True)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(inputs, SYMBOLS).float()
        logits: Tensor = self.fc(self.lstm(one_hot)[0])
        return logits


class HeadFirst(nn.Module):
    """By shapes and by order the head could be the embedding; its name says that it is none."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, CLASSES, bias=False)
        self.embed = nn.Embedding(SYMBOLS, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.lstm(self.embed(inputs))[0])
        return logits


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(SYMBOLS, 6)
        self.rnn = nn.LSTM(6, 6, batch_first=True)
        self.decoder = nn.Linear(6, SYMBOLS)
        self.decoder.weight = self.encoder.weight

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.rnn(self.encoder(inputs))[0])
        return logits


MODELS = {
    "lstm": lambda: Plain(nn.LSTM(6, 8, batch_first=True), 8),
    "two layers, both directions": lambda: Plain(
        nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True), 16
    ),
    "gru": lambda: Plain(nn.GRU(6, 8, batch_first=True), 8),
    "rnn": lambda: Plain(nn.RNN(6, 8, batch_first=True), 8),
    "projected": lambda: Plain(nn.LSTM(6, 8, proj_size=3, batch_first=True), 3),
    "without bias": lambda: Plain(nn.LSTM(6, 8, bias=False, batch_first=True), 8),
    "embedding as wide as the output": lambda: Plain(nn.LSTM(8, 8, batch_first=True), 8),
    "nested": Nested,
    "one-hot": OneHot,
    "head first": HeadFirst,
    "tied": Tied,
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", MODELS)
def test_the_model_built_from_the_keys_is_the_users(name, describe):
    torch.manual_seed(0)
    users = MODELS[name]()
    chain = read_chain(describe(users), "tagger")
    built = RecurrentModel(chain)
    built.load_state_dict(users.state_dict(), strict=True)
    inputs = torch.randint(SYMBOLS, (3, 9))
    assert torch.equal(built(inputs)[0], users(inputs))


def test_a_tied_decoder_stays_one_parameter(describe):
    built = RecurrentModel(read_chain(describe(Tied()), "language-model"))
    assert built.get_parameter("decoder.weight") is built.get_parameter("encoder.weight")


def test_an_rnn_of_relu_is_run_as_one(describe):
    users = Plain(nn.RNN(6, 8, nonlinearity="relu", batch_first=True), 8)
    built = RecurrentModel(read_chain(describe(users), "tagger"), nonlinearity="relu")
    built.load_state_dict(users.state_dict())
    inputs = torch.randint(SYMBOLS, (3, 9))
    assert torch.equal(built(inputs)[0], users(inputs))


def with_norm() -> nn.Module:
    model = Plain(nn.LSTM(6, 8), 8)
    model.norm = nn.LayerNorm(8)
    return model


def with_two_heads() -> nn.Module:
    model = Plain(nn.LSTM(6, 8), 8)
    model.second = nn.Linear(8, 2)
    return model


def apart() -> nn.Module:
    return nn.ModuleDict(
        {"embed": nn.Embedding(11, 6), "a": nn.LSTM(6, 8), "b": nn.GRU(6, 4), "fc": nn.Linear(4, 2)}
    )


MISFITS = {
    "no recurrent layer": (lambda: nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 2)), "has no"),
    "a cell": (lambda: nn.ModuleDict({"cell": nn.LSTMCell(6, 8), "fc": nn.Linear(8, 2)}), "cell.*"),
    "a layer alone": (lambda: nn.LSTM(6, 8), "is not part of a larger model"),
    "layers that do not meet": (apart, "b.* takes 6 values, but a.* before it gives 8"),
    "another layer": (with_norm, "norm.weight (8)"),
    "two heads": (with_two_heads, "second.weight (2 x 8, linear)"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_told_with_what_was_found(name, describe):
    make, fact = MISFITS[name]
    with pytest.raises(RecipeError) as caught:
        read_chain(describe(make()), "tagger")
    message = str(caught.value)
    assert message.startswith("task tagger: does not fit the model: ")
    assert fact in message
    assert "--task file.py:Name" in message


def test_weight_drop_is_told(describe):
    model = Plain(nn.LSTM(6, 8), 8)
    state = model.state_dict()
    state["layer.weight_hh_l0_raw"] = state.pop("layer.weight_hh_l0")
    with pytest.raises(RecipeError, match="weight-drop"):
        read_chain(describe(state), "tagger")


@pytest.mark.parametrize("name", ["language-model", "tagger", "classifier"])
def test_one_output_is_no_choice_of_classes(name, describe) -> None:
    """Its accuracy would always be 1, and its perplexity too."""
    layers = {"embed": nn.Embedding(4, 3), "rnn": nn.GRU(3, 5), "out": nn.Linear(5, 1)}
    structure = describe(nn.ModuleDict(layers), vocab=["a", "b", "c", "d"])
    options = {"text" if name == "language-model" else "data": "x.txt"}
    with pytest.raises(RecipeError, match=r"out gives 1 output, but at least 2 .*`predicts`"):
        make_task(name, structure, options)
