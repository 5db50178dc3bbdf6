"""The pickle machine: agrees with Python's on plain data, and runs nothing."""

import io
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.checkpoint import open_checkpoint
from ttcompress.checkpoint.pickle.arrays import numpy_builders
from ttcompress.checkpoint.pickle.builders import BUILDERS
from ttcompress.checkpoint.pickle.machine import InstructionCount, PickleReader
from ttcompress.checkpoint.pickle.objects import PickledObject
from ttcompress.errors import CheckpointError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.text())
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(KEYS, inner).map(OrderedDict)
        | st.sets(st.integers())
        | st.frozensets(st.text())
        | st.binary().map(bytearray)
    ),
    max_leaves=12,
)


def no_storages(identity: Any) -> Any:
    raise ValueError("no storages here")


def read(data: bytes) -> Any:
    return PickleReader(BUILDERS, no_storages, InstructionCount()).read(io.BytesIO(data))


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_is_read_as_python_reads_it(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert read(data) == pickle.loads(data) == value


def test_shared_objects_stay_shared() -> None:
    part = [1]
    first, second = read(pickle.dumps([part, part]))
    assert first is second


@given(PLAIN, st.data())
def test_a_cut_pickle_is_damaged(value: Any, data: st.DataObject) -> None:
    whole = pickle.dumps(value, 2)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CheckpointError):
        read(whole[:cut])


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_the_error(data: bytes) -> None:
    with suppress(CheckpointError):
        read(data)


class Payload:
    """Pickles as a call of any function."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call = call
        self.args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


def commands(marker: Path) -> dict[str, bytes]:
    """Pickles that would make `marker` if any part of them ran."""
    touch = f"touch '{marker}'"
    text = f"open({str(marker)!r}, 'w').close()"
    exec_name, system = b"cbuiltins\nexec\n", f"c{os.name}\nsystem\n".encode()
    as_text = b"X" + struct.pack("<I", len(text)) + text.encode()
    return {
        "reduce": pickle.dumps(Payload(os.system, touch), 2),
        "protocol 4": pickle.dumps(Payload(os.system, touch), 4),
        "exec": pickle.dumps(Payload(exec, text), 2),
        "getattr": b"\x80\x02cbuiltins\ngetattr\n" + exec_name + b"X\x01\x00\x00\x00a\x86R.",
        "inst": b"\x80\x02(" + as_text + b"ibuiltins\nexec\n.",
        "obj": b"\x80\x02(" + exec_name + as_text + b"o.",
        "new object": b"\x80\x02" + exec_name + as_text + b"\x85\x81.",
        "python 2": b"\x80\x02" + system + as_text + b"\x85R.",
        "build": b"\x80\x02" + exec_name + b"}" + as_text + b"Nsb.",
        "as a key": b"\x80\x02}" + system + b"Ns.",
    }


@pytest.mark.parametrize("kind", commands(Path("x")))
@pytest.mark.parametrize("torch_made", [False, True])
def test_a_hostile_pickle_runs_nothing(kind: str, torch_made: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "it ran", tmp_path / "model.pt"
    data = commands(marker)[kind]
    if torch_made:
        torch.save({"w": torch.ones(2, 2)}, path)
        whole = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, data if name.endswith("data.pkl") else old.read(name))
    else:
        path.write_bytes(data)
    with pytest.raises(CheckpointError, match="Nothing was run"):
        open_checkpoint(path)
    assert not marker.exists()


def test_an_unknown_class_becomes_a_record_and_is_not_called() -> None:
    data = b"\x80\x02cpathlib\nhome\nX\x01\x00\x00\x00a\x85R}X\x01\x00\x00\x00kK\x05sb."
    value = read(data)
    assert isinstance(value, PickledObject)
    assert (str(value.cls), value.args, value.state) == ("pathlib.home", ("a",), {"k": 5})


def nested_tuples(depth: int) -> bytes:
    return b"\x80\x02)" + b"\x85" * depth


HOSTILE = {
    "a memo index of 2**31": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a string of 2**62 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "bytes of 2**40": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "a deep tuple as a key": b"\x80\x02}" + nested_tuples(60_000)[2:] + b"Ns.",
    "a bytearray of a number": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "no stop": b"\x80\x02N",
    "an empty stack": b"\x80\x02.",
    "a list as a key": b"\x80\x02}]Ns.",
    "an extension code": b"\x80\x02\x82\x01.",
    "a number called": b"\x80\x02K\x01)R.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bomb_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(HOSTILE[kind])
    begin = time.monotonic()
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "m")
    assert time.monotonic() - begin < 5


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(nested_tuples(100_000) + b".")
    with pytest.raises(CheckpointError, match="nested"):
        open_checkpoint(tmp_path / "m")


def test_a_tree_that_doubles_a_hundred_times_is_not_walked_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ttcompress.checkpoint.tree.MAX_STEPS", 10_000)
    value: Any = [torch.zeros(1)]
    for _ in range(60):
        value = [value, value]
    torch.save({"state_dict": {"w": torch.ones(2, 2)}, "more": value}, tmp_path / "m")
    with pytest.raises(CheckpointError, match="nested"):
        open_checkpoint(tmp_path / "m")


def test_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttcompress.checkpoint.pickle.machine.MAX_OPCODES", 50)
    with pytest.raises(CheckpointError, match="50 instructions"):
        read(pickle.dumps(list(range(100))))


def test_control_characters_in_a_name_are_not_shown() -> None:
    with pytest.raises(CheckpointError) as caught:
        read(b"\x80\x02cos\n\x1b[2Jsystem\n)R.")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"K\x01K\x020.", 1),
        (b"K\x05(0.", 5),
        (b"K\x05(K\x01K\x021.", 5),
        (b"K\x052\x86.", (5, 5)),
        (b"(K\x01K\x02d.", {1: 2}),
        (b"(K\x01K\x02l.", [1, 2]),
        (b"]K\x01a.", [1]),
        (b"}K\x01K\x02s.", {1: 2}),
        (b"I01\n.", True),
        (b"L12L\n.", 12),
        (b"U\x02ab.", "ab"),
    ],
)
def test_old_instructions_do_what_python_does(data: bytes, expected: Any) -> None:
    assert read(b"\x80\x02" + data) == pickle.loads(b"\x80\x02" + data) == expected


class Slotted:
    """Keeps an attribute in a slot, and one in its dictionary."""

    __slots__ = ("__dict__", "fixed")


class Keyword:
    """Is made with a keyword argument."""

    def __new__(cls, *, size: int = 0) -> "Keyword":
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"size": 3}


def test_slots_are_attributes() -> None:
    value = Slotted()
    value.fixed, value.free = 1, 2
    assert read(pickle.dumps(value, 2)).attributes == {"fixed": 1, "free": 2}


def test_keyword_arguments_are_attributes() -> None:
    assert read(pickle.dumps(Keyword(), 4)).attributes == {"size": 3}


@pytest.mark.parametrize(
    "data",
    [
        b"]K\x01K\x02s.",
        b"K\x01K\x02a.",
        b"K\x01K\x02\x93.",
        b"}(K\x01u.",
        b"h\x05.",
        b"Pid\n.",
        b"cnumpy\ndtype\nX\x00\x00\x00\x00\x85R.",
    ],
    ids=["keys to a list", "items to a number", "name", "odd pairs", "memo", "storage", "no code"],
)
def test_misused_instructions_are_damage(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="its pickle is damaged"):
        read_any(b"\x80\x02" + data)


def read_any(data: bytes) -> Any:
    builders = {**BUILDERS, **numpy_builders({})}
    return PickleReader(builders, no_storages, InstructionCount()).read(io.BytesIO(data))


def test_what_an_unknown_call_returns_is_unknown_when_called() -> None:
    value = read(b"\x80\x02cmine\nmake\n)R)R.")
    assert isinstance(value, PickledObject) and str(value.cls) == "mine.make"


def test_too_deep_a_key_ends_in_the_error() -> None:
    with pytest.raises(CheckpointError, match="64 parts"):
        read(b"\x80\x02}" + b")" + b"\x85" * 10_001 + b"Ns.")
