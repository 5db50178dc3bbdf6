"""Embedding or linear: by name and by use."""

import pytest

from ttcompress.checkpoint.evidence import Roles
from ttcompress.model.weights import RecurrentStack, Role

STACK = RecurrentStack("lstm.", "lstm", input_size=8, hidden_size=8)
LSTM = {"lstm.weight_ih_l0": (32, 8), "lstm.weight_hh_l0": (32, 8)}


@pytest.mark.parametrize(
    "name, shape, bias, role",
    [
        ("embedding.weight", (50, 8), None, "embedding"),
        ("emb.weight", (50, 5), None, "embedding"),
        ("model.word_embeddings.weight", (50, 5), None, "embedding"),
        ("char_emb.weight", (50, 5), None, "embedding"),
        ("wte.weight", (50, 5), None, "embedding"),
        ("embed.0.weight", (50, 5), None, "embedding"),
        ("embed_in", (50, 5), None, "embedding"),
        ("encoder.weight", (50, 8), None, "embedding"),
        ("tokens.weight", (5, 8), None, "embedding"),
        ("encoder.weight", (50, 8), 50, "linear"),
        ("embedding_projection.weight", (8, 5), None, "linear"),
        ("embedder.weight", (50, 8), 50, "linear"),
        ("encoder.weight", (50, 7), None, "linear"),
        ("fc.weight", (50, 8), None, "linear"),
        ("attention.query.weight", (8, 8), None, "linear"),
        ("W", (50, 8), None, "linear"),
        ("member.weight", (50, 5), None, "linear"),
        ("embedding.weight", (50, 8), 8, "embedding"),
    ],
)
def test_the_role_before_a_layer(
    name: str, shape: tuple[int, int], bias: int | None, role: Role
) -> None:
    vectors = {} if bias is None else {name.replace("weight", "bias"): bias}
    assert Roles({name: shape, **LSTM}, vectors, (STACK,)).of((name,)) == role


def test_the_same_shape_behind_the_layer_is_linear() -> None:
    assert Roles({**LSTM, "top.weight": (50, 8)}, {}, (STACK,)).of(("top.weight",)) == "linear"


def test_a_tied_weight_is_an_embedding_by_any_of_its_names() -> None:
    matrices = {"decoder.weight": (50, 8), "encoder.weight": (50, 8), **LSTM}
    vectors = {"decoder.bias": 50}
    names = ("decoder.weight", "encoder.weight")
    assert Roles(matrices, vectors, (STACK,)).of(names) == "embedding"
    assert Roles(matrices, vectors, (STACK,)).of(names[:1]) == "linear"
