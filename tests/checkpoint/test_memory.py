"""Models in memory: modules and state dicts are described like files, and never changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ttcompress.checkpoint import open_checkpoint, rebuild
from ttcompress.errors import CheckpointError


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.LSTM(8, 16, batch_first=True)  # a name that wrappers use
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(16, 20)
        self.tied = nn.Linear(8, 20, bias=False)
        self.tied.weight = self.embedding.weight
        self.register_buffer("steps", torch.tensor(3))


def test_a_module_has_its_own_names_and_values() -> None:
    model = Tagger()
    found = open_checkpoint(model)
    assert list(found.state_dict()) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(found.tensor(name), value)
    assert [s.prefix for s in found.stacks] == ["module."]
    assert found.label == found.container == "Tagger in memory"


def test_tied_tensors_are_one_weight() -> None:
    found = open_checkpoint(Tagger())
    tied = next(weight for weight in found.weights if len(weight.names) > 1)
    assert tied.names == ("embedding.weight", "tied.weight")
    assert found.bytes == 4 * sum(p.numel() for p in Tagger().parameters()) + 8


def test_a_wrapper_keeps_its_prefix() -> None:
    """The names must lead into the module that is at hand."""
    found = open_checkpoint(nn.DataParallel(Tagger()))
    assert all(name.startswith("module.") for name in found.state_dict())


def test_what_is_read_is_a_copy() -> None:
    model = nn.LSTM(4, 8)
    before = copy.deepcopy(model.state_dict())
    open_checkpoint(model).tensor("weight_ih_l0").zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_state_dict_keeps_what_is_nested_beside_it() -> None:
    content = {"model": nn.GRU(4, 8).state_dict(), "epoch": 3, "words": ["a", "b"]}
    found = open_checkpoint(content)
    assert "weight_hh_l0" in found.state_dict()
    again = rebuild(found.carried, {name: found.tensor(name) for name in found.source_paths})
    assert again["epoch"] == 3 and again["words"] == ["a", "b"]
    assert list(again["model"]) == list(content["model"])


def test_the_hash_is_that_of_the_values() -> None:
    model = nn.LSTM(4, 8)
    first = open_checkpoint(model).sha256
    assert open_checkpoint(copy.deepcopy(model)).sha256 == first
    with torch.no_grad():
        model.bias_ih_l0[0] += 1
    assert open_checkpoint(model).sha256 != first


@pytest.mark.parametrize("change", ["transpose", "expand", "narrow"])
def test_views_are_read_as_their_values(change: str) -> None:
    base = torch.randn(32, 32)
    view = {
        "transpose": lambda: base.T,
        "expand": lambda: base[:1].expand(32, 32),
        "narrow": lambda: base[4:, 3:11],
    }[change]()
    assert torch.equal(open_checkpoint({"fc.weight": view}).tensor("fc.weight"), view)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"fc.weight": torch.eye(4), "a": torch.eye(4).to_sparse()}, "a: is torch.sparse_coo"),
        ({"fc.weight": torch.eye(4), "a": torch.empty(4, device="meta")}, "a: is .* on meta"),
        ({"epoch": 3}, "nothing to compress"),
        (3, "int in memory: a model is a file"),
    ],
)
def test_what_cannot_be_read_is_refused(model: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(model)  # type: ignore[arg-type]


def test_a_mapping_that_contains_itself_is_refused() -> None:
    content: dict[str, object] = {"fc.weight": torch.randn(4, 4)}
    content["self"] = content
    with pytest.raises(CheckpointError, match="nested over"):
        open_checkpoint(content)
