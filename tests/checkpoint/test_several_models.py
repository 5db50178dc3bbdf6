"""Files with several models: which are taken, how they are named, and what is left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.checkpoint.test_choice import rebuilt, same
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import CheckpointError
from ttcompress.model.report import LeftOut

Opened = Callable[..., Checkpoint]

MODEL, OPTIMIZER = "another state dict", "optimizer state"


def rnn(hidden: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of an LSTM with inputs of 3 numbers, under the name `rnn`."""
    torch.manual_seed(seed)
    return {f"rnn.{name}": value for name, value in nn.LSTM(3, hidden).state_dict().items()}


def trained(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer with moments for every parameter of a model."""
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def test_the_message_says_how_to_take_one_some_or_all(opened: Opened) -> None:
    with pytest.raises(CheckpointError) as caught:
        opened({"en": rnn(), "de": rnn(5), "loss": 1.2})
    assert str(caught.value).endswith(
        "holds 2 state dicts: `en` (2 weights, 0.0 MB), `de` (2 weights, 0.0 MB). "
        "Choose one with --key en, some with --key en,de, or all with --key all."
    )


def test_matrices_beside_a_model_are_taken_by_all(opened: Opened) -> None:
    content = {"table": torch.ones(4, 4), "encoder": rnn()}
    with pytest.raises(CheckpointError, match=r"with --key encoder, or all with --key all\."):
        opened(content)
    assert same(rebuilt(opened(content, "all")), content)


@pytest.mark.parametrize("key", ["en,de", "all", "de, en", "."])
def test_all_models_come_back_in_their_nesting(key: str, opened: Opened) -> None:
    content = {"en": rnn(), "de": rnn(5, seed=1), "loss": 1.2, "steps": torch.arange(3)}
    checkpoint = opened(content, key)
    assert {stack.prefix for stack in checkpoint.stacks} == {"en.rnn.", "de.rnn."}
    assert torch.equal(checkpoint.tensor("de.rnn.weight_hh_l0"), content["de"]["rnn.weight_hh_l0"])
    assert not checkpoint.left_out
    assert same(rebuilt(checkpoint), content)


def test_some_of_several_are_taken_and_the_rest_is_listed(opened: Opened) -> None:
    content = {"netG": rnn(), "netD": rnn(5), "ema": rnn(), "epoch": 7}
    checkpoint = opened(content, "netG,netD")
    assert {weight.name.partition(".")[0] for weight in checkpoint.weights} == {"netG", "netD"}
    assert same(rebuilt(checkpoint), {key: content[key] for key in ("netG", "netD", "epoch")})
    assert checkpoint.left_out == (LeftOut("ema", 4, size(content["ema"]), MODEL),)


@pytest.mark.parametrize(
    ("content", "key", "names"),
    [
        ([rnn(), rnn(5)], "all", {"0", "1"}),
        ([rnn(), rnn(5), rnn(6)], "0,2", {"0", "2"}),
        ({"models": {"a": rnn(), "b": rnn(5)}}, "all", {"models"}),
        ({"models": {"a": rnn(), "b": rnn(5)}}, "models.a,models.b", {"models"}),
        ({"teacher": {"state_dict": rnn(5)}, "student": {"state_dict": rnn()}}, "all", None),
        ({"state_dict": rnn(), "state_dict_ema": rnn(seed=1)}, "all", None),
        ({"a,b": rnn(), "c": rnn(5)}, "a,b", {"rnn"}),
        ({"all": rnn(), "c": rnn(5)}, "all", {"rnn"}),
        ({"a": rnn(), "c": {"w": torch.ones(3)}}, "a,.", {"a"}),
    ],
    ids=[
        "list",
        "some",
        "nested_all",
        "nested_keys",
        "below",
        "averaged",
        "comma",
        "called_all",
        "nothing_twice",
    ],
)
def test_what_a_key_takes(content: Any, key: str, names: set[str] | None, opened: Opened) -> None:
    checkpoint = opened(content, key)
    expected = names or set(content)
    assert {weight.name.partition(".")[0] for weight in checkpoint.weights} == expected


def test_one_of_a_list_keeps_its_place(opened: Opened) -> None:
    models = [rnn(), rnn(5), rnn(6)]
    assert same(rebuilt(opened(models, "0,2")), [models[0], None, models[2]])


def test_a_tensor_of_two_models_is_one_weight(opened: Opened) -> None:
    table = torch.ones(9, 3)
    content = {"en": rnn() | {"embed": table}, "de": rnn(5) | {"embed": table}}
    checkpoint = opened(content, "all")
    (tied,) = (weight for weight in checkpoint.weights if "embed" in weight.name)
    assert tied.names == ("en.embed", "de.embed")
    back = rebuilt(checkpoint)
    assert back["en"]["embed"] is back["de"]["embed"]


def test_what_is_shared_with_the_result_is_not_lost(opened: Opened) -> None:
    """An average that shares its embedding: only its own tensors leave the file."""
    table, average = torch.ones(9, 3), rnn(seed=1)
    content = {"state_dict": rnn() | {"embed": table}, "ema": average | {"embed": table}}
    checkpoint = opened(content, "state_dict")
    assert checkpoint.left_out == (LeftOut("ema", 5, size(average), MODEL),)


def test_two_averages_that_share_a_tensor_lose_it_once(opened: Opened) -> None:
    table = torch.ones(9, 3)
    checkpoint = opened({"net": rnn(), "a": {"w": table}, "b": {"w": table}}, "net")
    assert [one.bytes for one in checkpoint.left_out] == [table.nbytes, 0]


def test_optimizers_of_two_models_are_listed(opened: Opened) -> None:
    generator, critic = nn.LSTM(3, 4), nn.LSTM(3, 5)
    states = {"optimizer_G": trained(generator), "optimizer_D": trained(critic)}
    content = {"G": generator.state_dict(), "D": critic.state_dict()}
    checkpoint = opened(content | {key: one.state_dict() for key, one in states.items()}, "G,D")
    moments = [2 * size(model.state_dict()) + 4 * 4 for model in (generator, critic)]  # 4 steps
    assert checkpoint.left_out == (
        LeftOut("optimizer_G", 12, moments[0], OPTIMIZER),
        LeftOut("optimizer_D", 12, moments[1], OPTIMIZER),
    )
    assert same(rebuilt(checkpoint), content)


@pytest.mark.parametrize("key", [".", "all", None])
def test_an_optimizer_inside_what_is_chosen_is_left_out(key: str | None, opened: Opened) -> None:
    content = {**rnn(), "optimizer": trained(nn.LSTM(3, 4)).state_dict()}
    checkpoint = opened(content, key)
    assert [(one.key, one.why) for one in checkpoint.left_out] == [("optimizer", OPTIMIZER)]
    assert same(rebuilt(checkpoint), rnn())


def test_a_chosen_optimizer_is_not_left_out(opened: Opened) -> None:
    """A learned optimizer, under the name that the state of ordinary ones has."""
    content = {"optimizer": rnn(), "model": rnn(5)}
    checkpoint = opened(content, "optimizer")
    assert same(rebuilt(checkpoint), {"optimizer": content["optimizer"]})


def test_the_rest_of_a_large_storage_is_unused(opened: Opened) -> None:
    """torch.save writes the whole storage of a view."""
    checkpoint = opened({"w": torch.ones(1000, 4)[:10]})
    assert [(one.key, one.bytes) for one in checkpoint.left_out] == [(".", 990 * 4 * 4)]


def test_no_more_is_left_out_than_is_stored(opened: Opened) -> None:
    vast = torch.zeros(2, 1).expand(2, 2**40)
    checkpoint = opened({"net": rnn(), "optimizer": {"state": vast}, "ema": {"w": vast}}, "net")
    assert [one.bytes for one in checkpoint.left_out] == [8, 0]


@pytest.mark.parametrize("key", ["en,nowhere", "nowhere,de", "en,"])
def test_one_wrong_key_of_several_is_named(key: str, opened: Opened) -> None:
    wrong = "" if key.endswith(",") else "nowhere"
    with pytest.raises(CheckpointError, match=rf"no weights under the key '{wrong}'.*`en`.*`de`"):
        opened({"en": rnn(), "de": rnn(5)}, key)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(taken=st.sets(st.sampled_from("abc"), min_size=1), tied=st.booleans(), nested=st.booleans())
def test_every_tensor_is_in_the_result_or_listed(
    taken: set[str], tied: bool, nested: bool, tmp_path: Path
) -> None:
    """The bytes of the result and of what is left out are those of the file's tensors."""
    models = {name: rnn(4 + k, seed=k) for k, name in enumerate("abc")}
    if tied:
        models["b"]["rnn.weight_hh_l0"] = models["a"]["rnn.weight_hh_l0"]
    content: Any = {"models": models, "epoch": 1} if nested else models
    torch.save(content, tmp_path / "models.pt")
    key = ",".join(f"models.{name}" if nested else name for name in sorted(taken))
    checkpoint = open_checkpoint(tmp_path / "models.pt", key)
    left_out = sum(one.bytes for one in checkpoint.left_out)
    kept = sum(tensor.bytes for tensor in (*checkpoint.weights, *checkpoint.others))
    distinct = {id(t): t.nbytes for model in models.values() for t in model.values()}
    assert kept + left_out == sum(distinct.values())
    back = rebuilt(checkpoint)
    assert same(back["models"] if nested else back, {k: v for k, v in models.items() if k in taken})
