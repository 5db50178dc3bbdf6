import pytest
import torch
from torch import nn

from ttcompress.calibration.layers import layers_of, run_layer
from ttcompress.calibration.sources import Sequences
from ttcompress.modules.geometry import stack_of

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def tensors_of(module: nn.RNNBase) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layer_by_layer_gives_what_the_whole_stack_gives(kind, bidirectional):
    torch.manual_seed(0)
    module = KINDS[kind](5, 4, 2, batch_first=True, bidirectional=bidirectional)
    batches = [Sequences(torch.randn(3, 7, 5), goes_on=True) for _ in range(2)]
    inputs = batches
    for layer in layers_of(stack_of(module)):
        inputs = [run.outputs for run in run_layer(layer.module(tensors_of(module)), inputs)]
    state = None
    for batch, found in zip(batches, inputs, strict=True):
        with torch.no_grad():
            wanted, state = module(batch.values, state)
        torch.testing.assert_close(found.values, wanted)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projected_layers_run_too():
    torch.manual_seed(0)
    module = nn.LSTM(5, 6, 2, batch_first=True, proj_size=3)
    inputs = [Sequences(torch.randn(2, 4, 5))]
    batch = inputs[0]
    for layer in layers_of(stack_of(module)):
        runs = list(run_layer(layer.module(tensors_of(module)), inputs))
        assert runs[0].hidden[0].shape == (2, 4, 3)
        inputs = [run.outputs for run in runs]
    with torch.no_grad():
        torch.testing.assert_close(inputs[0].values, module(batch.values)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_is_what_weight_hh_saw_in_each_direction_and_padding_is_left_out(kind):
    torch.manual_seed(0)
    module = KINDS[kind](5, 4, batch_first=True, bidirectional=True)
    batch = Sequences(torch.randn(2, 6, 5), torch.tensor([6, 4]))
    (layer,) = layers_of(stack_of(module))
    (run,) = run_layer(layer.module(tensors_of(module)), [batch])
    forward, reverse = run.outputs.values.chunk(2, 2)
    torch.testing.assert_close(run.hidden[0][:, 1:], forward[:, :-1])
    torch.testing.assert_close(run.hidden[1][:, :-1], reverse[:, 1:])
    assert not run.hidden[0][:, 0].any()
    assert not run.hidden[1][1, 3].any()  # the last real step of the shorter one comes first
    assert batch.flat(run.hidden[0]).shape == (10, 4)
