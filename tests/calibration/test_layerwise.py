import pytest
import torch
from torch import nn
from torch.nn.utils import rnn

from ttcompress.calibration.layerwise import LayerPass, LayerwiseStack
from ttcompress.layers.stacks import stack_of

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def layered(module: nn.RNNBase) -> tuple[LayerwiseStack, list[tuple[LayerPass, ...]]]:
    """The module layer by layer, and the list that it notes its runs in."""
    runs: list[tuple[LayerPass, ...]] = []
    return LayerwiseStack(stack_of(module), module.state_dict(), runs.append, like=module), runs


@pytest.fixture(autouse=True)
def same_and_without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layer_by_layer_gives_what_the_whole_stack_gives(kind, bidirectional, batch_first):
    module = KINDS[kind](5, 4, 2, batch_first=batch_first, bidirectional=bidirectional)
    mine, runs = layered(module)
    state = own = None
    for _ in range(2):  # the second call goes on from the first
        inputs = torch.randn(3, 7, 5)
        wanted, state = module(inputs, state)
        found, own = mine(inputs, own)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(own, state)
    first, last = runs[-1]
    assert torch.equal(last.inputs, first.outputs)
    assert torch.equal(last.outputs, found if batch_first else found.transpose(0, 1))


def test_an_unbatched_sequence_runs_too():
    module = nn.LSTM(5, 4, 2)
    mine, runs = layered(module)
    inputs, state = torch.randn(7, 5), (torch.randn(2, 4), torch.randn(2, 4))
    wanted, after = module(inputs, state)
    found, own = mine(inputs, state)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(own, after)
    assert torch.equal(runs[0][0].inputs, inputs[None])
    assert torch.equal(runs[0][1].hidden(0)[:, 0], state[0][1:])


def test_relu_stays_relu():
    module = nn.RNN(5, 4, 2, nonlinearity="relu")
    inputs = torch.randn(7, 3, 5)
    torch.testing.assert_close(layered(module)[0](inputs)[0], module(inputs)[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projected_layers_run_too():
    module = nn.LSTM(5, 6, 2, batch_first=True, proj_size=3)
    mine, runs = layered(module)
    inputs = torch.randn(2, 4, 5)
    torch.testing.assert_close(mine(inputs)[0], module(inputs)[0])
    assert runs[0][0].hidden(0).shape == (2, 4, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_is_what_weight_hh_saw_in_each_direction_and_padding_is_left_out(kind):
    module = KINDS[kind](5, 4, bidirectional=True)
    mine, runs = layered(module)
    values, lengths = torch.randn(2, 6, 5), torch.tensor([4, 6])
    packed = rnn.pack_padded_sequence(values, lengths, True, enforce_sorted=False)
    torch.testing.assert_close(mine(packed)[0].data, module(packed)[0].data)
    ((run,),) = runs
    forward, reverse = run.outputs.chunk(2, 2)
    assert torch.equal(run.inputs[1], values[1])
    assert torch.equal(run.hidden(0)[:, 1:], forward[:, :-1])
    assert torch.equal(run.hidden(1)[:, :-1], reverse[:, 1:])
    assert not run.hidden(0)[:, 0].any()
    assert not run.hidden(1)[0, 3].any()  # the last real step of the shorter one comes first
    assert run.flat(run.hidden(0)).shape == (10, 4)
