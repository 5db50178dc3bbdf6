"""Where the weights are: nesting, wrappers, several state dicts, optimizers, whole modules."""

from collections import OrderedDict, UserDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttcompress.checkpoint import Checkpoint, rebuild
from ttcompress.errors import CheckpointError
from ttcompress.model.report import LeftOut

Opened = Callable[..., Checkpoint]
W, V = torch.ones(2, 3), torch.zeros(4, 3)


def rebuilt(checkpoint: Checkpoint) -> Any:
    held = (*checkpoint.weights, *checkpoint.others)
    return rebuild(checkpoint.carried, {one.name: checkpoint.tensor(one.name) for one in held})


def same(first: Any, second: Any) -> bool:
    """Equal in value, type, order and keys, with tensors inside."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model", "net", "weights", "anything"]
)
def test_a_state_dict_is_found_under_any_key(key: str, opened: Opened) -> None:
    content = {key: OrderedDict(w=W), "vocab": {1: "a", 2: "b"}, "epoch": 3}
    checkpoint = opened(content)
    assert [weight.name for weight in checkpoint.weights] == ["w"]
    assert checkpoint.source_paths == {"w": f"{key}.w"}
    assert same(rebuilt(checkpoint), content)


def test_a_state_dict_deep_inside_is_found(opened: Opened) -> None:
    content = {"trainer": [{"best": {"net": {"lstm.w": W}}}, (1, 2)]}
    checkpoint = opened(content)
    assert checkpoint.source_paths == {"lstm.w": "trainer.0.best.net.lstm.w"}
    assert same(rebuilt(checkpoint), content)


def test_two_state_dicts_need_a_key(opened: Opened) -> None:
    content = {"generator": {"w": W}, "discriminator": {"w": V}}
    with pytest.raises(CheckpointError) as caught:
        opened(content)
    assert "2 state dicts: `generator` (1 weights, 0.0 MB), `discriminator`" in str(caught.value)
    assert "--key generator" in str(caught.value)


def test_a_key_chooses_and_the_other_is_left_out(opened: Opened) -> None:
    content = {"generator": {"w": W}, "discriminator": {"w": V}, "epoch": 1}
    checkpoint = opened(content, "discriminator")
    assert torch.equal(checkpoint.tensor("w"), V)
    assert not checkpoint.others
    assert same(rebuilt(checkpoint), {"discriminator": {"w": V}, "epoch": 1})
    assert checkpoint.left_out == (LeftOut("generator", 1, 24, "another state dict"),)


def test_a_moving_average_beside_the_weights_needs_a_key(opened: Opened) -> None:
    with pytest.raises(CheckpointError, match="`ema_state_dict`"):
        opened({"state_dict": {"w": W}, "ema_state_dict": {"w": V}})


def test_the_same_state_dict_twice_is_one(opened: Opened) -> None:
    state = {"w": W}
    checkpoint = opened({"model": state, "best": state})
    assert checkpoint.weights[0].names == ("w",)
    back = rebuilt(checkpoint)
    assert back["best"]["w"] is back["model"]["w"]


def test_a_key_may_name_the_second_place_of_the_same_state_dict(opened: Opened) -> None:
    state = {"w": W}
    checkpoint = opened({"model": state, "best": state}, "best")
    assert checkpoint.source_paths == {"w": "best.w"}
    assert same(rebuilt(checkpoint), {"model": state, "best": state})


@pytest.mark.parametrize("content", [{"state_dict": {"w": W}}, {"a": {"w": W}, "b": {"w": V}}])
def test_a_key_that_matches_nothing_lists_what_there_is(content: Any, opened: Opened) -> None:
    with pytest.raises(
        CheckpointError, match=r"no weights under the key 'nowhere'\. The state dicts are: `"
    ):
        opened(content, "nowhere")


def test_a_key_may_name_what_is_above(opened: Opened) -> None:
    content = {"nets": {"encoder": {"w": W}, "decoder": {"w": V}}, "epoch": 1}
    checkpoint = opened(content, "nets")
    assert [weight.name for weight in checkpoint.weights] == ["encoder.w", "decoder.w"]
    assert same(rebuilt(checkpoint), content)


def test_the_root_is_a_point(opened: Opened) -> None:
    checkpoint = opened({"w": W, "average": {"w": V}}, ".")
    assert [weight.name for weight in checkpoint.weights] == ["w", "average.w"]


def test_loose_tensors_are_kept_under_their_places(opened: Opened) -> None:
    content = {"model": {"w": W}, "w": torch.arange(3), "stats": [torch.ones(1, 40)]}
    checkpoint = opened(content)
    assert [other.name for other in checkpoint.others] == ["w_", "stats.0"]
    assert checkpoint.source_paths["stats.0"] == "stats.0"
    assert same(rebuilt(checkpoint), content)


def test_loose_tensors_come_in_the_order_of_the_file(opened: Opened) -> None:
    names = [f"loose{k}" for k in (5, 3, 8, 1, 9, 2, 7)]
    checkpoint = opened(
        {"model": {"w": W}, **{name: torch.ones(k) for k, name in enumerate(names)}}
    )
    assert list(checkpoint.source_paths) == ["w", *names]


def test_a_loose_matrix_beside_a_wrapper_does_not_confuse(opened: Opened) -> None:
    checkpoint = opened({"mean": torch.ones(1, 40), "state_dict": {"w": W}})
    assert [weight.name for weight in checkpoint.weights] == ["w"]
    assert [other.name for other in checkpoint.others] == ["mean"]


def test_a_moving_average_inside_a_flat_state_dict_needs_a_key(opened: Opened) -> None:
    with pytest.raises(CheckpointError, match=r"`\.` .*`average`"):
        opened({"w": W, "average": {"w": V}})


class Adam:
    """An optimizer object, pickled whole as some programs do; a real one is slow to import."""

    def __init__(self, model: nn.Module) -> None:
        moments = {"step": 1, "exp_avg": torch.zeros(2, 2)}
        self.state = dict.fromkeys(range(len(list(model.parameters()))), moments)
        self.param_groups = [{"lr": 0.1, "params": list(self.state)}]


def adam_state(model: nn.Module) -> dict[str, Any]:
    return vars(Adam(model))


def optimizer_contents(model: nn.Module) -> dict[str, Any]:
    state = adam_state(model)
    return {
        "optimizer": state,
        "optimizer_states": [state],
        "inner": [state, state],
        "optim_dict": {"first": state, "second": state},
        "trainer": state,
        "optimizer_object": Adam(model),
        "optimizer_moments": {"w": torch.ones(2, 2)},
    }


@pytest.mark.parametrize(
    "key",
    [
        "optimizer",
        "optimizer_states",
        "inner",
        "optim_dict",
        "trainer",
        "optimizer_object",
        "optimizer_moments",
    ],
)
def test_optimizer_state_is_left_out_and_named(key: str, opened: Opened) -> None:
    model = nn.LSTM(2, 2)
    content = {"state_dict": model.state_dict(), key: optimizer_contents(model)[key], "lr": 0.1}
    checkpoint = opened(content)
    assert not [name for name in checkpoint.source_paths if key in name]
    assert list(rebuilt(checkpoint)) == ["state_dict", "lr"]
    (optimizer,) = checkpoint.left_out
    assert (optimizer.key, optimizer.why) == (key, "optimizer state")
    assert (optimizer.tensors, optimizer.bytes) == (1, 16)


def test_an_optimizer_in_a_tuple_leaves_its_place(opened: Opened) -> None:
    model = nn.LSTM(2, 2)
    checkpoint = opened((model.state_dict(), adam_state(model), 5))
    first, second, third = rebuilt(checkpoint)
    assert (list(first), second, third) == (list(model.state_dict()), None, 5)


def test_the_name_of_an_optimizer_is_carried(opened: Opened) -> None:
    content = {"model": {"w": W}, "optimizer": "adam", "optimizer_options": {"lr": 0.1}}
    assert same(rebuilt(opened(content)), content)


def test_a_lightning_file(opened: Opened) -> None:
    model = nn.LSTM(2, 2)
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.0",
        "state_dict": OrderedDict((f"model.{k}", v) for k, v in model.state_dict().items()),
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best": torch.tensor(0.5)}},
        "optimizer_states": [adam_state(model)],
        "lr_schedulers": [{"last_epoch": 1}],
        "hyper_parameters": {"hidden": 2},
    }
    checkpoint = opened(content)
    assert checkpoint.stacks[0].prefix == "model."
    del content["optimizer_states"]
    assert same(rebuilt(checkpoint), content)


class Settings:
    """A class of the user's own."""

    def __init__(self) -> None:
        self.hidden = 12


class AttributeDict(UserDict[str, Any]):
    """A dictionary of the user's own."""


def test_objects_come_back_as_their_attributes(opened: Opened) -> None:
    checkpoint = opened({"model": {"w": W}, "args": Settings(), "more": AttributeDict(lr=0.1)})
    back = rebuilt(checkpoint)
    assert back["args"] == {"hidden": 12}
    assert back["more"] == {"data": {"lr": 0.1}}
    assert any(f"{__name__}.Settings" in note for note in checkpoint.notes)


class Holder(nn.Module):
    """A module with what state dicts leave out, a buffer, and a submodule twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(3, 3)
        self.second = self.first
        self.register_buffer("mask", torch.ones(2))
        self.loose = torch.ones(5, 5)
        self.vocabulary = {"a": 1}


def test_a_whole_module_is_its_state_dict(opened: Opened) -> None:
    model = Holder()
    checkpoint = opened({"model": model, "epoch": 2})
    expected = model.state_dict()
    assert set(checkpoint.source_paths) == set(expected)
    assert all(torch.equal(checkpoint.tensor(name), expected[name]) for name in expected)
    assert checkpoint.weights[0].names == ("first.weight_ih_l0", "second.weight_ih_l0")
    back = rebuilt(checkpoint)
    assert back["epoch"] == 2
    Holder().load_state_dict(back["model"], strict=True)


def test_a_data_parallel_module_loses_its_prefix(opened: Opened) -> None:
    checkpoint = opened(nn.DataParallel(nn.LSTM(2, 2)))
    assert checkpoint.weights[0].name == "weight_ih_l0"
    assert checkpoint.source_paths["weight_ih_l0"] == "module.weight_ih_l0"
    assert "module.weight_ih_l0" in rebuilt(checkpoint)


WRAPPED: dict[str, Callable[[str], str]] = {
    "fabric": lambda name: f"_forward_module.{name}",
    "fsdp": lambda name: f"_fsdp_wrapped_module.{name.replace('first.', 'first._orig_mod.')}",
    "checkpointed": lambda name: name.replace("first.", "first._checkpoint_wrapped_module."),
    "averaged": lambda name: f"module.{name}",
    "averaged in parallel": lambda name: f"module.module.{name}",
}


@pytest.mark.parametrize("place", [(), ("ema",), ("state", "model")])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_what_a_wrapper_adds_is_not_the_models(
    wrapper: str, place: tuple[str, ...], opened: Opened
) -> None:
    model, wrap = Holder(), WRAPPED[wrapper]
    state = {wrap(name): value for name, value in model.state_dict().items()}
    if wrapper.startswith("averaged"):
        state = {"n_averaged": torch.tensor(3), **state}
    content: Any = state
    for key in reversed(place):
        content = {key: content, "epoch": 1}
    checkpoint = opened(content)
    model.load_state_dict(checkpoint.state_dict(), strict=True)
    assert [stack.prefix for stack in checkpoint.stacks] == ["first.", "second."]
    assert same(rebuilt(checkpoint), content)


def test_a_count_of_averages_beside_other_names_is_the_models_own(opened: Opened) -> None:
    state = {"n_averaged": torch.tensor(3), "module.w": W, "head.w": V}
    assert set(opened(state).state_dict()) == set(state)


def test_a_whole_averaged_module_loses_its_prefix(opened: Opened) -> None:
    checkpoint = opened(torch.optim.swa_utils.AveragedModel(nn.LSTM(2, 2)))
    nn.LSTM(2, 2).load_state_dict(checkpoint.state_dict(), strict=True)
    assert {"n_averaged", "module.weight_ih_l0"} < set(rebuilt(checkpoint))


def test_a_cycle_is_left_out_and_named(opened: Opened) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    checkpoint = opened({"model": {"w": W}, "loop": loop})
    assert same(rebuilt(checkpoint), {"model": {"w": W}})
    assert [one.key for one in checkpoint.left_out] == ["loop"]


def test_large_content_is_left_out_and_named(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttcompress.checkpoint.carried.MAX_CARRIED", 2000)
    content = {"in": {"model": {"w": W}, "vocab": ["word"] * 500, "epoch": 1}}
    checkpoint = opened(content)
    assert same(rebuilt(checkpoint), {"in": {"model": {"w": W}, "epoch": 1}})
    assert [one.key for one in checkpoint.left_out] == ["vocab"]


@pytest.mark.parametrize(
    "content",
    [
        {"b": torch.ones(3)},
        {"w": torch.ones(2, 2, dtype=torch.int64)},
        {"w": torch.empty(0, 3)},
        {},
        [W, V],
        W,
        {"optimizer": {"state": {0: {"exp_avg": W}}, "param_groups": []}},
        {0: W},
    ],
    ids=["vector", "integers", "empty side", "nothing", "list", "tensor", "optimizer", "int keys"],
)
def test_a_file_without_weights_is_refused(content: Any, opened: Opened) -> None:
    with pytest.raises(CheckpointError, match="no named 2-D tensor"):
        opened(content)
