import torch
from torch import nn

from ttcompress.checkpoint.names import names_inside
from ttcompress.layers.structure import structure_of
from ttcompress.workflows.compress import compress


class Tied(nn.Module):
    """A language model whose decoder is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(11, 6)
        self.rnn = nn.LSTM(6, 6)
        self.decoder = nn.Linear(6, 11)
        self.decoder.weight = self.encoder.weight


def test_a_checkpoint_and_what_it_was_compressed_to_have_one_structure(save):
    checkpoint = save(Tied().state_dict(), vocab={"a": 0}, losses=torch.ones(3))
    before = structure_of(checkpoint)
    after = structure_of(compress(checkpoint, {"version": 1, "budget": {"rank": 2}}))
    assert before.shapes == after.shapes
    assert list(before.shapes) == list(after.shapes)
    assert before.roles == after.roles
    assert before.ties == after.ties
    assert before.stacks == after.stacks
    assert before.content["vocab"] == after.content["vocab"] == {"a": 0}


def test_every_name_of_a_tied_weight_has_its_own_role(save):
    structure = structure_of(save(Tied().state_dict()))
    assert structure.ties == (("encoder.weight", "decoder.weight"),)
    assert structure.roles["encoder.weight"] == "embedding"
    assert structure.roles["decoder.weight"] == "linear"
    assert structure.roles["rnn.weight_hh_l0"] == "recurrent"


def test_tensors_beside_the_state_dict_are_none_of_the_model(save):
    structure = structure_of(save(Tied().state_dict(), losses=torch.ones(3)))
    assert "losses" not in structure.shapes
    assert "rnn.bias_hh_l0" in structure.shapes


def test_at_the_root_of_a_file_all_tensors_are_of_the_model():
    paths = {"head.weight": "head.weight", "lstm.weight_hh_l0": "lstm._orig_mod.weight_hh_l0"}
    assert names_inside(paths) == tuple(paths)


def test_a_wrapper_around_all_is_no_place_in_a_file():
    paths = {"head.weight": "module.head.weight", "head.bias": "module.head.bias"}
    assert names_inside(paths) == tuple(paths)


def test_the_content_has_no_tensor_of_the_model(save):
    structure = structure_of(save(Tied().state_dict(), epoch=3))
    assert structure.content["epoch"] == 3
    assert all(t.numel() == 0 for t in structure.content["state_dict"].values())


def test_stored_weights_are_described_by_all_their_names(save):
    recipe = {
        "version": 1,
        "rules": [{"weights": "embedding", "format": "dense", "store": "int8"}],
        "default": "decompose",
        "budget": {"rank": 2},
    }
    model = compress(save(Tied().state_dict()), recipe)
    assert "encoder.weight" in {stored.weight.name for stored in model.weights}
    assert structure_of(model).ties == (("encoder.weight", "decoder.weight"),)
