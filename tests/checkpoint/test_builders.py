"""The allow-list: what a pickle may build, and what its builders refuse."""

import pickle
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from pathlib import PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ttcompress.checkpoint import Checkpoint, open_checkpoint, rebuild
from ttcompress.errors import CheckpointError
from ttcompress.model.report import UNUSED

Opened = Callable[..., Checkpoint]


class Color(Enum):
    RED = 1

    def __reduce_ex__(self, protocol: Any) -> tuple[type, tuple[int]]:
        return Color, (self.value,)  # as by itself, but for Python 3.11.0 to 3.11.3


class Marked(torch.Tensor):
    """A tensor subclass."""


BUILT = {
    "path": (PurePosixPath("/data/words.txt"), "/data/words.txt"),
    "Windows path": (PureWindowsPath("C:/data"), "C:\\data"),
    "device": (torch.device("cuda:1"), "cuda:1"),
    "device without index": (torch.device("cpu"), "cpu"),
    "size": (torch.Size([2, 3]), (2, 3)),
    "number type": (torch.bfloat16, torch.bfloat16),
    "default dictionary": (defaultdict(int, a=1), {"a": 1}),
    "counter": (Counter("aab"), {"a": 2, "b": 1}),
    "queue": (deque([1, 2], maxlen=3), [1, 2]),
    "ordered": (OrderedDict(b=1, a=2), OrderedDict(b=1, a=2)),
    "complex": (1 + 2j, 1 + 2j),
    "class": (SimpleNamespace, "types.SimpleNamespace"),
    "namespace": (SimpleNamespace(lr=0.1), {"lr": 0.1}),
    "enum": (Color.RED, {"class": f"{__name__}.Color", "args": (1,)}),
}


@pytest.mark.parametrize("kind", BUILT)
@pytest.mark.parametrize("protocol", [2, 4])
def test_plain_content_comes_back(kind: str, protocol: int, opened: Opened) -> None:
    value, expected = BUILT[kind]
    content = {"model": {"w": torch.ones(2, 2)}, "value": value}
    checkpoint = opened(content, pickle_protocol=protocol)
    back = rebuild(checkpoint.carried, {"w": checkpoint.tensor("w")})
    assert back["value"] == expected and type(back["value"]) is type(expected)


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "parameter": lambda: nn.Parameter(torch.arange(6.0).view(2, 3)),
    "subclass": lambda: torch.arange(6.0).view(2, 3).as_subclass(Marked),
    "unsigned": lambda: torch.tensor([[1, 2]], dtype=torch.uint16),
    "conjugate": lambda: torch.ones(2, 2, dtype=torch.complex64),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_in_every_dress_are_read(kind: str, opened: Opened) -> None:
    tensor = TENSORS[kind]()
    checkpoint = opened({"w": torch.ones(2, 2), "odd": tensor})
    expected = tensor.detach().as_subclass(torch.Tensor)
    assert torch.equal(checkpoint.tensor("odd"), expected)


def test_a_parameter_with_attributes_is_read(opened: Opened) -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.note = "mine"  # type: ignore[attr-defined]
    assert opened({"w": parameter}).weights[0].shape == (2, 2)


def test_a_storage_by_itself_is_left_out(opened: Opened) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = torch.ones(3).storage()
        checkpoint = opened({"model": {"w": torch.ones(2, 2)}, "raw": storage})
    unused, raw = checkpoint.left_out
    assert (raw.key, raw.why) == (
        "raw",
        "not carried over: a value in it is neither plain data nor a tensor",
    )
    assert (unused.bytes, unused.why) == (12, UNUSED)


def test_content_that_cannot_even_be_outlined_leaves_the_state_dict(opened: Opened) -> None:
    loop: list[Any] = []
    loop.append(loop)
    checkpoint = opened([{"w": torch.ones(2, 2)}, loop])
    assert checkpoint.carried == {"dict": [["w", {"tensor": "w"}]]}
    (everything,) = checkpoint.left_out
    assert everything.why.startswith("everything outside the state dict is not carried over")


def test_many_classes_are_counted(opened: Opened) -> None:
    model = nn.ModuleDict({"w": nn.Linear(2, 2)})
    for cls in (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Dropout, nn.Identity, nn.ELU, nn.SELU):
        model[cls.__name__] = cls()
    (note,) = [note for note in opened(model).notes if "classes read as data" in note]
    assert note.endswith(", and 2 more")


class Call:
    """Pickles as a call, to hand a builder what it must refuse."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


rebuild_v2: Any = torch._utils._rebuild_tensor_v2

REFUSED = {
    "bytearray of a number": Call(bytearray, 5),
    "bytes of a number": Call(bytes, 5),
    "tensor without storage": Call(rebuild_v2, 3, 0, (2,), (1,), False, None),
    "negative size": Call(torch.Size, (-1,)),
    "size that is text": Call(torch.Size, "23"),
    "65 dimensions": Call(torch.Size, (1,) * 65),
    "set of lists": Call(set, [[1]]),
    "too many arguments": Call(complex, 1, 2, 3),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_wrong_arguments_are_damage(kind: str, tmp_path: Any) -> None:
    (tmp_path / "m").write_bytes(pickle.dumps({"x": REFUSED[kind]}, 2))
    with pytest.raises(CheckpointError, match="its pickle is damaged"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    "offset, shape, stride",
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (0, (2,), (-1,))],
)
def test_a_window_that_leaves_its_storage_is_damage(
    offset: int, shape: tuple[int, ...], stride: tuple[int, ...], tmp_path: Any
) -> None:
    storage = torch.ones(4)._typed_storage()
    call = Call(rebuild_v2, storage, offset, shape, stride, False, None)
    torch.save({"w": torch.ones(2, 2), "x": call}, tmp_path / "m")
    with pytest.raises(CheckpointError, match="its pickle is damaged"):
        open_checkpoint(tmp_path / "m")
