"""Weights under weight norm, spectral norm and pruning are read as what their modules compute."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import ttcompress
from ttcompress.checkpoint import Checkpoint, rebuild
from ttcompress.errors import ArtifactError, CheckpointError

Opened = Callable[..., Checkpoint]
FULL_RANK = {
    "version": 1,
    "format": "mps",
    "budget": {"tolerance": 0},
    "store": "float32",
    "rules": [{"weights": "lstm.weight_hh_l0"}, {"weights": "head.weight"}],
    "default": "keep",
}
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
    prune.l1_unstructured(net.head, "weight_v", amount=0.2)
    parametrizations.weight_norm(net.lstm, "weight_hh_l0")
    prune.l1_unstructured(net.lstm.parametrizations.weight_hh_l0, "original1", amount=0.2)


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


def unknown_maps(net: Net) -> None:
    parametrizations.orthogonal(net.cell, "weight_hh")
    parametrize.register_parametrization(net.head, "weight", nn.Tanh())
    parametrizations.spectral_norm(net.head)  # behind one that keeps nothing


def trained(change: Callable[[Net], None], dtype: torch.dtype = torch.float32) -> Net:
    """A net with a few steps behind it, so that no part has the value that it began with."""
    torch.manual_seed(0)
    net = Net().to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(net)
        for _ in range(5):
            run(net)
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
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
    notes = [note for note in checkpoint.notes if "read as the weight" in note]
    words = {"two on one": "spectral norm and weight norm", "pruned inside": "pruning"}
    assert any(words.get(way, way.partition(",")[0]) in note for note in notes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["weight norm, hooks", "spectral norm, hooks", "pruning"])
def test_a_whole_module_gives_plain_weights_too(way: str, opened: Opened) -> None:
    net = trained(WAYS[way])
    expected = plain_values(net)
    back = rebuilt(opened(net))
    assert set(back) == set(expected)
    assert all(torch.allclose(back[name], expected[name], rtol=1e-5) for name in back)


def test_what_is_not_known_is_kept_and_named(opened: Opened) -> None:
    net = trained(unknown_maps)
    state = net.state_dict()
    checkpoint = opened(state)
    back = rebuilt(checkpoint)
    assert set(back) == set(state) and all(torch.equal(back[name], state[name]) for name in back)
    assert not any("parametrizations" in weight.name for weight in checkpoint.weights)
    assert [stack.prefix for stack in checkpoint.stacks] == ["lstm."]
    (note,) = (note for note in checkpoint.notes if "parametrizations" in note)
    for name in ("cell.parametrizations.weight_hh.0.base", "head.parametrizations.weight.original"):
        assert name in note


G, V = torch.rand(4, 1) + 1, torch.randn(4, 3)


@pytest.mark.parametrize(
    "parts",
    [
        {"head.weight_g": torch.ones(5, 1), "head.weight_v": V},
        {"head.weight_g": torch.ones(4, 3), "head.weight_v": V},
        {"head.weight_v": V},
        {"head.weight_g": G, "head.weight_v": V.to(torch.int32)},
        {"head.weight_g": G, "head.weight_v": V, "head.weight": V + 1},
        {"query_g": G, "query_v": V},
        {"head.weight_orig": V, "head.weight_mask": torch.ones(3, 4)},
        {"head.weight_orig": V, "head.weight_u": torch.ones(5), "head.weight_v": torch.ones(3)},
        {"head.weight_orig": V, "head.weight_u": torch.ones(4), "head.weight_v": torch.ones(4)},
        {"head.parametrizations.weight.original": V},
        {
            "head.parametrizations.weight.original": V,
            "head.parametrizations.weight.0._u": torch.ones(9),
            "head.parametrizations.weight.0._v": torch.ones(3),
        },
        {"head.weight_g": torch.ones(0, 1), "head.weight_v": torch.ones(0, 3)},
    ],
)
def test_what_only_has_the_names_stays(parts: dict[str, Tensor], opened: Opened) -> None:
    """Parts of other shapes, numbers or names are not torch's, and are not touched."""
    state = {**parts, "other.weight": V}
    back = rebuilt(opened(state))
    assert list(back) == list(state) and all(torch.equal(back[name], state[name]) for name in back)


def test_other_content_of_the_file_is_not_touched(opened: Opened) -> None:
    sample = {"weight_orig": V, "weight_mask": torch.ones(4, 3)}
    content = {"model": {"head.weight_g": G, "head.weight_v": V}, "ema": [sample], "sample": sample}
    back = rebuilt(opened(content, "model"))
    assert list(back["model"]) == ["head.weight"] and "sample" not in back


def test_two_ways_to_one_name_lose_nothing(opened: Opened) -> None:
    state = {
        "w.weight_orig": V,
        "w.weight_mask": torch.ones(4, 3),
        "w.weight_g": G,
        "w.weight_v": V,
    }
    back = rebuilt(opened(state))
    assert torch.equal(back["w.weight"], V)
    assert set(back) == {"w.weight", "w.weight_g", "w.weight_v"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_weight_keeps_the_type_of_its_source(dtype: torch.dtype, opened: Opened) -> None:
    g, v = G.to(dtype), V.to(dtype)
    read = opened({"head.weight_g": g, "head.weight_v": v}).tensor("head.weight")
    exact = v.double() * (g.double() / v.double().square().sum(1, keepdim=True).sqrt())
    assert read.dtype == dtype and torch.equal(read, exact.to(dtype))


def test_a_module_that_is_in_two_places_stays_tied(opened: Opened) -> None:
    state = {"a.weight_g": G, "a.weight_v": V, "b.weight_g": G, "b.weight_v": V}
    (weight,) = opened(state).weights
    assert weight.names == ("a.weight", "b.weight")


def test_vectors_that_fit_both_ways_and_say_the_other_one_are_refused(opened: Opened) -> None:
    u, _, v = torch.linalg.svd(torch.randn(4, 4))
    matrix = u @ torch.diag(torch.tensor([4.0, 3, 2, 1])) @ v
    state = {"head.weight_orig": matrix, "head.weight_u": v[0], "head.weight_v": u[:, 0]}
    with pytest.raises(CheckpointError, match="fit rows and columns alike"):
        opened(state).tensor("head.weight")


def test_a_large_weight_is_computed_block_by_block(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    g, v = torch.rand(70, 1), torch.randn(70, 9)
    u, w = torch.randn(70), torch.randn(9)
    state = {"a.weight_g": g, "a.weight_v": v, "b.weight_g": g[:1, 0].reshape(()), "b.weight_v": v}
    state |= {"c.weight_orig": v, "c.weight_u": u, "c.weight_v": w}
    state |= {"e.weight_orig": v, "e.weight_u": w, "e.weight_v": u}  # of the transposed matrix
    state |= {"d.weight_orig": v, "d.weight_mask": (v > 0).float()}
    whole = rebuilt(opened(state))
    monkeypatch.setattr("ttcompress.checkpoint.reparametrised.SLAB", 700)
    blocks = rebuilt(opened(state))
    for name in whole:
        torch.testing.assert_close(blocks[name], whole[name], rtol=1e-6, atol=0)


def test_many_weights_of_the_same_parts_do_not_fill_the_memory(opened: Opened) -> None:
    """Each computed weight is 4 MB of memory, although all share the parts in the file."""
    v = torch.ones(1000, 1000)
    state: dict[str, Tensor] = {}
    for k in range(50):
        state |= {f"{k}.weight_v": v, f"{k}.weight_g": torch.full((1000, 1), float(k))}
    with pytest.raises(CheckpointError, match="its tensors claim"):
        opened(state)


@pytest.mark.parametrize("links, is_read", [(4, True), (40, False)])
def test_a_chain_has_an_end(links: int, is_read: bool, opened: Opened) -> None:
    """Each link is read inside the next one; a thousand would end in a RecursionError."""
    at = "head.parametrizations.weight"
    state = {f"{at}.original": V, "other.weight": V}
    for k in range(links):
        state |= {f"{at}.{k}._u": torch.rand(4), f"{at}.{k}._v": torch.rand(3)}
    checkpoint = opened(state)
    assert ("head.weight" in checkpoint.source_paths) == is_read
    assert all(checkpoint.tensor(name).isfinite().all() for name in checkpoint.source_paths)


@pytest.mark.parametrize("suffix", ["_orig", "_mask"])
def test_names_that_repeat_a_suffix_come_to_an_end(suffix: str, opened: Opened) -> None:
    state = {"weight" + "_orig" * k + suffix: torch.ones(4, 3) for k in range(40)}
    state["weight" + "_orig" * 40] = V
    checkpoint = opened(state)
    assert all(checkpoint.tensor(name).shape == (4, 3) for name in checkpoint.source_paths)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("plain", [False, True])
def test_load_into_a_module_with_or_without(way: str, plain: bool, tmp_path: Path) -> None:
    net = trained(WAYS[way])
    torch.save(net.state_dict(), tmp_path / "m.pt")
    fresh = Net()
    if not plain:
        WAYS[way](fresh)
    compressed = ttcompress.compress(tmp_path / "m.pt", FULL_RANK)
    loaded = ttcompress.load_into(fresh, compressed).eval()
    with torch.no_grad():
        for before, after in zip(run(net), run(loaded), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_file_that_does_not_fit_leaves_the_parametrization(tmp_path: Path) -> None:
    net = trained(WAYS["weight norm"])
    torch.save(net.state_dict(), tmp_path / "m.pt")
    compressed = ttcompress.compress(tmp_path / "m.pt", FULL_RANK)
    other = Net()
    parametrizations.weight_norm(other.head)
    other.more = nn.Linear(2, 2)
    with pytest.raises(ArtifactError, match=r"more\.weight is not in the artifact"):
        ttcompress.load_into(other, compressed)
    assert parametrize.is_parametrized(other.head)


def test_the_parts_of_a_computed_weight_are_not_left_out(opened) -> None:
    """They are in the result, as the weight."""
    cell = nn.LSTMCell(8, 8)
    prune.l1_unstructured(cell, "weight_hh", 0.5)
    assert opened(cell.state_dict()).left_out == ()
