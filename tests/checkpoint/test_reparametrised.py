"""Weights under weight norm, spectral norm and pruning are read as what their modules compute."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from ttcompress.checkpoint import Checkpoint, rebuild
from ttcompress.errors import CheckpointError

Opened = Callable[..., Checkpoint]
RECURRENT = ("weight_ih_l0", "weight_hh_l0")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 2)
        self.up = nn.ConvTranspose1d(3, 4, 2)
        self.lstm = nn.LSTM(6, 5)
        self.cell = nn.LSTMCell(5, 5)
        self.head = nn.Linear(5, 7)


def on_all(apply: Callable[..., Any], **options: Any) -> Callable[[Net], None]:
    def change(net: Net) -> None:
        for name in RECURRENT:
            apply(net.lstm, name, **options)
        for module in (net.conv, net.up, net.head):
            apply(module, "weight", **options)

    return change


def prune_all(net: Net) -> None:
    on_all(prune.l1_unstructured, amount=0.5)(net)
    prune.random_unstructured(net.lstm, "bias_hh_l0", amount=0.4)


def two_on_one(net: Net) -> None:
    parametrizations.weight_norm(net.head)
    parametrizations.spectral_norm(net.head)
    parametrizations.spectral_norm(net.lstm, "weight_hh_l0")
    parametrizations.spectral_norm(net.lstm, "weight_hh_l0")


def pruned_inside(net: Net) -> None:
    weight_norm(net.head)
    prune.l1_unstructured(net.head, "weight_v", amount=0.5)
    parametrizations.weight_norm(net.lstm, "weight_hh_l0")
    prune.l1_unstructured(net.lstm.parametrizations.weight_hh_l0, "original1", amount=0.5)


WAYS: dict[str, Callable[[Net], None]] = {
    "weight norm": on_all(parametrizations.weight_norm),
    "weight norm, columns": on_all(parametrizations.weight_norm, dim=1),
    "weight norm, whole": on_all(parametrizations.weight_norm, dim=None),
    "weight norm, hooks": on_all(weight_norm),
    "weight norm, hooks, whole": on_all(weight_norm, dim=None),
    "spectral norm": on_all(parametrizations.spectral_norm),
    "spectral norm, hooks": on_all(spectral_norm),
    "spectral norm, columns": lambda net: spectral_norm(net.head, dim=1),
    "pruning": prune_all,
    "pruning, structured": lambda net: prune.ln_structured(net.head, "weight", 0.5, n=2, dim=0),
    "two on one": two_on_one,
    "pruned inside": pruned_inside,
}


def trained(change: Callable[[Net], None], dtype: torch.dtype = torch.float32) -> Net:
    """A net with a few steps behind it, so that no part has the value that it began with."""
    torch.manual_seed(0)
    net = Net().to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(net)
        for _ in range(30):
            run(net)
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
            run(net)
    return net.eval()


def run(net: Net) -> list[Tensor]:
    """Run every layer, which lets old hooks compute its weight."""
    dtype = net.cell.weight_ih.dtype
    line = torch.ones(1, 3, 4, dtype=dtype)
    steps = torch.ones(2, 1, 6, dtype=dtype)
    return [net.conv(line), net.up(line), net.lstm(steps)[0], net.head(net.lstm(steps)[0])]


def plain_values(net: Net) -> dict[str, Tensor]:
    """What every module multiplies by, under plain names, in torch's own words."""
    with torch.no_grad():
        run(net)
    return {
        f"{path}.{name}": getattr(net.get_submodule(path), name).detach()
        for path, names in {
            "conv": ("weight", "bias"),
            "up": ("weight", "bias"),
            "lstm": (*RECURRENT, "bias_ih_l0", "bias_hh_l0"),
            "cell": ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
            "head": ("weight", "bias"),
        }.items()
        for name in names
    }


def rebuilt(checkpoint: Checkpoint) -> Any:
    held = (*checkpoint.weights, *checkpoint.others)
    return rebuild(checkpoint.carried, {one.name: checkpoint.tensor(one.name) for one in held})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
def test_the_weight_is_what_the_module_computes(way: str, opened: Opened) -> None:
    net = trained(WAYS[way])
    expected = plain_values(net)
    checkpoint = opened({"epoch": 3, "state_dict": net.state_dict()})
    back = rebuilt(checkpoint)
    assert back["epoch"] == 3 and set(back["state_dict"]) == set(expected)
    for name, value in back["state_dict"].items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7, equal_nan=True)
    Net().load_state_dict(back["state_dict"], strict=True)
    assert [stack.prefix for stack in checkpoint.stacks] == ["lstm.", "cell."]
    (note,) = (note for note in checkpoint.notes if "read as the weight" in note)
    assert way.partition(",")[0] in note or way in ("two on one", "pruned inside")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["weight norm, hooks", "spectral norm, hooks", "pruning"])
def test_a_whole_module_gives_plain_weights_too(way: str, opened: Opened) -> None:
    net = trained(WAYS[way])
    expected = plain_values(net)
    back = rebuilt(opened(net))
    assert set(back) == set(expected)
    assert all(torch.allclose(back[name], expected[name], rtol=1e-5) for name in back)
