from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ttcompress.layers.recurrent_model import POOLINGS, Chain, RecurrentModel
from ttcompress.model.weights import RecurrentStack


def chain(bidirectional: bool = False) -> Chain:
    stacks = (
        RecurrentStack("a.", "lstm", 4, 5, bidirectional=bidirectional),
        RecurrentStack("b.", "gru", 5 * (1 + bidirectional), 6, bidirectional=bidirectional),
    )
    return Chain("embed", 9, stacks, "out", 3, bias=True, tied=False)


def sequences() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(9, (4, 7)), torch.tensor([3, 7, 1, 5])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", [None, *POOLINGS])
def test_padding_changes_nothing(pooling, bidirectional):
    torch.manual_seed(0)
    model = RecurrentModel(chain(bidirectional), pooling).double()
    inputs, lengths = sequences()
    together = model(inputs, None, lengths)[0]
    for k, length in enumerate(lengths.tolist()):
        alone = model(inputs[k : k + 1, :length])[0][0]
        padded = together[k] if pooling else together[k, :length]
        torch.testing.assert_close(padded, alone, rtol=0, atol=1e-12)


def test_the_last_step_of_each_direction_is_its_final_state():
    torch.manual_seed(0)
    model = RecurrentModel(chain(bidirectional=True), "last")
    inputs, lengths = sequences()
    logits, states = model(inputs, None, lengths)
    final = torch.cat(list(states[-1]), 1)  # (directions, batch, hidden)
    torch.testing.assert_close(logits, model.get_submodule("out")(final))


def test_mean_and_max_are_over_the_steps():
    torch.manual_seed(0)
    each = RecurrentModel(chain())
    features, _ = each.get_submodule("b")(each.get_submodule("a")(each.embed(sequences()[0]))[0])
    for pooling, pooled in (("mean", features.mean(1)), ("max", features.amax(1))):
        model = RecurrentModel(chain(), pooling)
        model.load_state_dict(each.state_dict())
        torch.testing.assert_close(model(sequences()[0])[0], model.get_submodule("out")(pooled))


def test_state_goes_on_where_it_ended():
    torch.manual_seed(0)
    model = RecurrentModel(chain()).double()
    inputs, _ = sequences()
    whole, _ = model(inputs)
    first, state = model(inputs[:, :3])
    second, _ = model(inputs[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)


def test_a_replaced_layer_is_the_one_that_runs():
    model = RecurrentModel(chain())
    model.out = torch.nn.Linear(6, 2)
    assert model(sequences()[0])[0].shape == (4, 7, 2)


def test_a_model_without_embedding_takes_values_or_one_hot_symbols():
    torch.manual_seed(0)
    plain = replace(chain(), embedding=None, symbols=4)
    model = RecurrentModel(plain, "last")
    values = torch.randn(3, 6, 4, dtype=torch.float64)  # in the model's type, whatever theirs is
    expected = model.b(model.a(values.float())[0])[0][:, -1]
    torch.testing.assert_close(model(values)[0], model.out(expected))
    symbols = torch.randint(4, (3, 6))
    one_hot = torch.nn.functional.one_hot(symbols, 4).float()
    assert torch.equal(model(symbols)[0], model(one_hot)[0])
