"""What is a weight, and which: embedding, linear, or a matrix that no layer is known to use."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.checkpoint.evidence import Evidence
from ttcompress.model.weights import RecurrentStack, Role

STACK = RecurrentStack("lstm.", "lstm", input_size=8, hidden_size=16, bidirectional=True)
LSTM = {"lstm.weight_ih_l0": (64, 8), "lstm.weight_hh_l0": (64, 16)}


@pytest.mark.parametrize(
    "name, shape, bias, role",
    [
        ("embedding.weight", (50, 8), None, "embedding"),
        ("emb.weight", (50, 5), None, "embedding"),
        ("model.word_embeddings.weight", (50, 5), None, "embedding"),
        ("char_emb.weight", (50, 5), None, "embedding"),
        ("wte.weight", (50, 5), None, "embedding"),
        ("wpe.weight", (50, 5), None, "embedding"),
        ("pos_embedding.weight", (50, 5), None, "embedding"),
        ("embed.0.weight", (50, 5), None, "embedding"),
        ("embed_in", (50, 5), None, "embedding"),
        ("encoder.weight", (50, 8), None, "embedding"),
        ("tokens.weight", (5, 8), None, "embedding"),
        ("encoder.weight", (50, 8), 50, "linear"),
        ("embedding_projection.weight", (8, 5), None, "linear"),
        ("embedder.weight", (50, 8), 50, "linear"),
        ("embedding.weight", (50, 8), 8, "embedding"),
        ("fc.weight", (50, 7), 50, "linear"),
        ("attention.query.weight", (8, 16), None, "linear"),
        ("attention.in_proj_weight", (48, 16), None, "linear"),
        ("attention.in_proj_weight", (21, 7), 21, "linear"),
        ("before.weight", (8, 5), None, "linear"),
        ("head.weight", (50, 32), None, "linear"),
        ("head.weight", (50, 16), None, "linear"),
        ("head.weight", (50, 7), None, "matrix"),
        ("member.weight", (50, 5), None, "matrix"),
        ("norm.weight", (8, 16), 8, "linear"),
        ("norm.weight", (50, 16), None, "matrix"),
        ("layer_norm1.weight", (50, 16), None, "matrix"),
        ("W", (8, 16), None, "matrix"),
        ("transitions", (16, 16), None, "matrix"),
        ("crf.transitions", (16, 8), 16, "matrix"),
        ("pos_table", (50, 8), None, "matrix"),
        ("pos_embed", (50, 8), None, "matrix"),
        ("position_embeddings", (50, 8), None, "matrix"),
        ("scaler.mean", (1, 8), None, "matrix"),
        ("attn.mask", (16, 16), None, "matrix"),
        ("fc.weight_mask", (50, 16), None, "matrix"),
        ("h0", (2, 16), None, "matrix"),
        ("adjacency", (16, 16), None, "matrix"),
    ],
)
def test_the_role_beside_a_layer(
    name: str, shape: tuple[int, int], bias: int | None, role: Role
) -> None:
    vectors = {} if bias is None else {name.replace("weight", "bias"): bias}
    assert Evidence({name: shape, **LSTM}, vectors, (STACK,)).role((name,)) == role


def test_a_table_behind_the_layer_that_takes_its_size_is_linear() -> None:
    assert Evidence({**LSTM, "top.weight": (8, 32)}, {}, (STACK,)).role(("top.weight",)) == "linear"


def test_a_tied_weight_is_an_embedding_by_any_of_its_names() -> None:
    matrices = {"decoder.weight": (50, 8), "encoder.weight": (50, 8), **LSTM}
    vectors = {"decoder.bias": 50}
    names = ("decoder.weight", "encoder.weight")
    assert Evidence(matrices, vectors, (STACK,)).role(names) == "embedding"
    assert Evidence(matrices, vectors, (STACK,)).role(names[:1]) == "linear"


def test_layers_without_biases_are_known_by_their_neighbours_alone() -> None:
    matrices = {"a.weight": (32, 16), "b.weight": (9, 32), "c.weight": (7, 5)}
    evidence = Evidence(matrices, {}, ())
    assert [evidence.role((name,)) for name in matrices] == ["linear", "linear", "matrix"]


def test_a_square_matrix_does_not_fit_itself() -> None:
    assert Evidence({"a.weight": (16, 16)}, {}, ()).role(("a.weight",)) == "matrix"


def test_a_cell_that_is_not_torch_s_still_says_what_its_neighbours_are() -> None:
    cell = {"r.weight_ih": (48, 8), "r.weight_hh": (48, 12)}
    matrices = {**cell, "in.weight": (8, 3), "out.weight": (5, 12), "apart.weight": (5, 48)}
    evidence = Evidence(matrices, {}, ())
    roles = [evidence.role((name,)) for name in matrices if "r.weight_" not in name]
    assert roles == ["linear", "linear", "matrix"]


def test_two_axes_in_a_bias_mean_a_norm() -> None:
    matrices = {**LSTM, "n.weight": (8, 16), "n.bias": (8, 16)}
    evidence = Evidence(matrices, {}, (STACK,))
    assert evidence.role(("n.weight",)) == evidence.role(("n.bias",)) == "matrix"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 5)
        self.rnn = nn.GRU(8, 16)
        self.member = nn.Linear(3, 11, bias=False)
        self.rows = nn.LayerNorm((8, 16), bias=False)
        self.embedding_of_time = nn.Parameter(torch.ones(4, 8))
        self.transitions = nn.Parameter(torch.zeros(16, 16))


def saved(value: object, path: Path) -> Checkpoint:
    torch.save(value, path)
    return open_checkpoint(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("scripted", [False, True], ids=["pickled", "TorchScript"])
def test_a_whole_module_knows_its_classes(tmp_path: Path, scripted: bool) -> None:
    if scripted:
        torch.jit.save(torch.jit.script(Net()), tmp_path / "m.pt")
        checkpoint = open_checkpoint(tmp_path / "m.pt")
    else:
        checkpoint = saved({"epoch": 3, "model": Net()}, tmp_path / "m.pt")
    roles = {weight.name: weight.role for weight in checkpoint.weights}
    assert roles == {
        "table.weight": "embedding",
        "rnn.weight_ih_l0": "recurrent",
        "rnn.weight_hh_l0": "recurrent",
        "member.weight": "linear",
        "rows.weight": "matrix",
        "embedding_of_time": "matrix",
        "transitions": "matrix",
    }


def test_a_state_dict_does_not(tmp_path: Path) -> None:
    roles = {w.name: w.role for w in saved(Net().state_dict(), tmp_path / "m.pt").weights}
    assert roles["table.weight"] == roles["member.weight"] == "matrix"


def test_every_name_of_a_tied_module_is_judged_by_its_class(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 7, bias=False), nn.Identity())
    net.append(net[0])
    (weight,) = saved(net, tmp_path / "m.pt").weights
    assert (weight.names, weight.role) == (("0.weight", "2.weight"), "linear")


def test_a_module_that_contains_itself_ends(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 7))
    held: dict[str, Tensor] = net.state_dict()
    object.__setattr__(net, "again", net)
    checkpoint = saved(net, tmp_path / "m.pt")
    assert [weight.name for weight in checkpoint.weights] == [n for n in held if "weight" in n]
