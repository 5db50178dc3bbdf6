"""Files made to break a reader: each is refused at once, in little memory; nothing is written."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ttcompress.artifact import load
from ttcompress.checkpoint import open_checkpoint
from ttcompress.checkpoint.containers.torch_legacy import MAGIC, VERSION
from ttcompress.errors import TTCompressError
from ttcompress.recipe import load_recipe
from ttcompress.workflows.baseline import read_baseline
from ttcompress.workflows.evaluate import open_model
from ttcompress.workflows.manifest import read_manifest

SECONDS = 5
"""Of processor time; each takes a small part of it."""

MEMORY = 64_000_000
"""Bytes that a reader may take beside the file's own."""


@contextmanager
def bounded(size: int) -> Iterator[None]:
    began = time.process_time()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY + 4 * size
    assert time.process_time() - began < SECONDS


def header(text: bytes | object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(begin: int = 0, shape: tuple[int, ...] = (2, 2), end: int | None = None) -> Any:
    stop = begin + 16 if end is None else end
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, stop]}


SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "a header of 2**40 - 1": (header(b"{}", length=2**40 - 1), "header should have 1099511627775"),
    "a header of 2**60": (header(b"{}", length=2**60), "header should have|not a known kind"),
    "a header of 2**64 - 1": (
        header(b"{}", length=2**64 - 1),
        "header should have|not a known kind",
    ),
    "a header of -1 as 63 bits": (
        header(b"{}", length=2**63),
        "header should have|not a known kind",
    ),
    "a header longer than the file": (header(b"{}", length=3), "header should have 3"),
    "brackets": (header(b'{"a":' + b"[" * 12_000_000), "12,000,001 values, but at most"),
    "numbers": (header(b'{"a":[' + b"1," * 12_000_000 + b"1]}"), "12,000,002 values, but at most"),
    "nested": (header(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "nested, below the limit of Python": (
        header({"a": json.loads("[" * 900 + "]" * 900)}),
        "not a",
    ),
    "a number of a million digits": (header(b'{"a":' + b"1" * 10**6 + b"}"), "digits"),
    "the same name twice": (
        header(b'{"w":%b,"w":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(16)),
        "'w' is given twice",
    ),
    "shared bytes": (
        header({f"w{k}": entry() for k in range(1000)}, bytes(16)),
        r"w1: overlaps the tensor before it \(it begins at byte 0, but that one ends at 16\)",
    ),
    "half shared bytes": (header({"a": entry(), "b": entry(8)}, bytes(24)), "b: overlaps"),
    "a gap": (header({"a": entry(), "b": entry(20)}, bytes(36)), "b: leaves a gap"),
    "bytes of nobody": (header({"a": entry()}, bytes(99)), "end at byte 16 of 99"),
    "bytes behind the file": (header({"a": entry(2**40)}, bytes(16)), "does not fit its bytes"),
    "an end before the begin": (header({"a": entry(16, end=0)}, bytes(16)), "does not fit"),
    "a negative offset": (header({"a": entry(-16)}, bytes(16)), "not a tensor"),
    "a product beyond 64 bits": (
        header({"a": entry(0, (2**62, 2**62))}, bytes(16)),
        "does not fit",
    ),
    "a shape that is not a number": (
        header({"a": entry(0, (1e308, 2))}, bytes(16)),
        "not a tensor",
    ),  # type: ignore[arg-type]
    "not a number": (header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,0]}}'), "not a"),
    "half a character": (header(b'{"\\ud800":{}}'), "surrogates not allo"),
    "metadata of numbers": (header({"__metadata__": {"a": 3}}), "not a table of text"),
}
"""Each with what is said; all but the first kind are told by every reader in the same words."""


@pytest.mark.parametrize("read", [open_checkpoint, load, open_model])
@pytest.mark.parametrize("kind", SAFETENSORS)
def test_a_crafted_safetensors_file(
    kind: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    data, fact = SAFETENSORS[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with bounded(len(data)), pytest.raises(TTCompressError, match=fact) as caught:
        read(path)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(f"{path}: ")
    assert list(tmp_path.iterdir()) == [path]


def test_a_gigabyte_of_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 10**9) + b"{")
        file.truncate(10**9 + 100)
    for read in (open_checkpoint, load):
        with bounded(0), pytest.raises(TTCompressError, match="header should have 1000000000 byte"):
            read(path)
    with path.open("r+b") as file:
        file.write(b'{"jobs":[')
    with bounded(100_000_000), pytest.raises(TTCompressError, match="over 100,000,000 bytes"):
        read_baseline(path)
    with bounded(0), pytest.raises(TTCompressError, match="large text file"):
        open_checkpoint(path)


def test_a_header_that_begins_like_json_is_none(tmp_path: Path) -> None:
    """Its length of 123 bytes is written with the byte of a brace."""
    text = json.dumps({"w": entry()}).encode()
    (tmp_path / "m").write_bytes(header(text + b" " * (0x7B - len(text)), bytes(16)))
    assert [weight.name for weight in open_checkpoint(tmp_path / "m").weights] == ["w"]


Edit = Callable[[dict[str, Any]], object]


def effective(document: dict[str, Any]) -> dict[str, Any]:
    """The recipe that applied, as the report has it."""
    found: dict[str, Any] = document["report"]["recipe"]["effective"]
    return found


DOCUMENTS: dict[str, tuple[Edit, str]] = {
    "a long version": (
        lambda d: d.update(format_version=10**4000),
        r"version 1000000\d+, but this",
    ),
    "huge ranks": (lambda d: d["plan"][0].update(ranks=[10**400]), "more than 64 bits"),
    "negative ranks": (lambda d: d["plan"][0].update(ranks=[-3]), "needs"),
    "no ranks": (lambda d: d["plan"][0].update(ranks=[0]), "needs"),
    "huge bytes": (lambda d: d["report"]["weights"][0].update(bytes_before=10**400), "64 bits"),
    "a budget of text": (
        lambda d: effective(d).update(budget="x"),
        "effective.budget: Input should be a valid dictionary",
    ),
    "a budget of lists": (
        lambda d: effective(d).update(budget={"size": [2]}),
        "a budget must be of numbers or text",
    ),
    "a factor of text": (
        lambda d: effective(d).update(budget={"factor": "8"}),
        "effective.budget.factor: Input should be a valid number",
    ),
    "a key of numbers": (lambda d: effective(d).update(key=3), "effective.key: Input should be"),
    "a store of numbers": (lambda d: effective(d).update(store=[8]), "effective.store: Input"),
    "a task of text": (lambda d: effective(d).update(task="x"), "effective.task: Input should be"),
    "a task named by a number": (
        lambda d: effective(d).update(task={"name": 3}),
        "effective.task.name: Input should be",
    ),
    "a calibration that lists": (
        lambda d: effective(d).update(calibration=[1]),
        "effective.calibration: Input should be",
    ),
    "rules of numbers": (lambda d: effective(d).update(rules=[3]), "effective.rules.0: Input"),
    "a rule for nothing": (
        lambda d: effective(d).update(rules=[{}]),
        "effective.rules.0.weights: Field required",
    ),
    "a rule whose expression cannot be compiled": (
        lambda d: effective(d).update(rules=[{"weights": "re:("}]),
        "'re:\\(' is not a regular expression",
    ),
    "weights by number": (lambda d: d["report"].update(weights=3), "report.weights: Input should"),
    "drift by number": (lambda d: d["report"].update(drift=3), "report.drift: Input should"),
    "gate errors by number": (
        lambda d: d["report"]["weights"][0].update(gate_errors=3),
        "gate_errors: Input should",
    ),
    "totals of a part": (
        lambda d: d["report"]["totals"].pop("model"),
        "report.totals: missing model",
    ),
    "a weight of an unknown type": (
        lambda d: d["plan"][0]["weight"].update(dtype="float3"),
        "a weight cannot be of type float3",
    ),
    "a training of nothing": (lambda d: d["report"].update(finetune={"x": 1}), "finetune.task"),
    "a training whose settings are text": (
        lambda d: d["report"].update(finetune={"task": "t", "steps": 1, "settings": "x"}),
        "finetune.settings: Input should be",
    ),
    "a calibration of biases by number": (
        lambda d: d["report"].update(calibration={"biases": 3}),
        "calibration.biases: Input should be",
    ),
    "a control without its metric": (
        lambda d: d["report"].update(
            metrics={"loss": {"before": 1, "after": 2, "drop": 1, "higher_is_better": False}},
            control={"accuracy": {"control": 1.0}},
        ),
        "report.control: missing loss",
    ),
    "times, which no file has": (
        lambda d: d["report"].update(bench={"rows": []}),
        "bench: Input should be None",
    ),
    "huge source": (lambda d: d["report"]["source"].update(bytes=10**400), "64 bits"),
    "huge modes": (
        lambda d: d["plan"][0]["layout"].update(row_modes=[2**40, 2**40]),
        "modes make",
    ),
    "negative shape": (lambda d: d["plan"][0]["weight"].update(shape=[-32, 8]), "modes make"),
    "a shape of nothing": (lambda d: d["plan"][0]["weight"].update(shape=[0, 0]), "modes make"),
    "a shape of fractions": (lambda d: d["plan"][0]["weight"].update(shape=[1.5, 8]), "shape"),
    "very many modes": (
        lambda d: d["plan"][0]["layout"].update(row_modes=[2**62] * 400_000),
        "a train cannot have 400001 cores",
    ),
    "gates that rows do not have": (lambda d: d["plan"][0]["weight"].update(gates=3), "3 gates"),
    "very many layers": (
        lambda d: d["stacks"][0].update(num_layers=2**62),
        "a layer cannot have the",
    ),
    "no hidden unit": (
        lambda d: d["stacks"][0].update(hidden_size=0),
        "a layer cannot have the sizes",
    ),
    "a very large layer": (
        lambda d: d["stacks"][0].update(hidden_size=2**40),
        r"weight_ih_l0: is \(32, 6\), but its layer needs \(4398046511104, 6\)",
    ),
    "a layer that is not there": (
        lambda d: d["stacks"][0].update(prefix="other."),
        "weight_ih_l0: is None, but its layer needs",
    ),
    "a place of no tensor": (
        lambda d: d["source_paths"].update(absent="absent"),
        "source_paths: no tensor is named 'absent'",
    ),
    "a weight in no place": (
        lambda d: d["source_paths"].pop(d["plan"][0]["weight"]["name"]),
        "source_paths: lstm.weight_ih_l0 is not in it",
    ),
    "a bias in no place": (
        lambda d: d["source_paths"].pop("lstm.bias_hh_l0"),
        "bias_hh_l0: is None, but its layer needs",
    ),
    "ties of no tensor": (lambda d: d["ties"].update(absent=["absent"]), "ties: no tensor is"),
    "ties of one name twice": (
        lambda d: d["ties"].update({d["report"]["kept"][0]["name"]: ["x", "y"]}),
        "ties: .* is not the first of its names",
    ),
    "ties that a weight does not have": (
        lambda d: d["ties"].update({d["plan"][0]["weight"]["name"]: ["a", "b"]}),
        "its names are .*, but ties has",
    ),
    "one name for two tensors": (
        lambda d: d["ties"].update({k["name"]: [k["name"], "x"] for k in d["report"]["kept"][:2]}),
        "two tensors are named 'x'",
    ),
    "a spectrum without values": (
        lambda d: d["report"]["weights"][0]["spectrum"][0].update(values=[]),
        "indices, 0 values",
    ),
    "a spectrum at no place": (
        lambda d: d["report"]["weights"][0]["spectrum"][0].update(indices=[3, 1]),
        "indices of a spectrum do not increase",
    ),
}


def edited(path: Path, edit: Edit) -> bytes:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    document = json.loads(content["__metadata__"]["ttcompress"])
    edit(document)
    content["__metadata__"]["ttcompress"] = json.dumps(document)
    return header(content, data[8 + length :])


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_crafted_document(kind: str, tiny_artifact: Path, tmp_path: Path) -> None:
    edit, fact = DOCUMENTS[kind]
    path = tmp_path / "small.safetensors"
    path.write_bytes(edited(tiny_artifact, edit))
    with bounded(0), pytest.raises(TTCompressError, match=fact) as caught:
        load(path).restored()
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 500


def test_a_crafted_document_that_is_a_list(tiny_artifact: Path, tmp_path: Path) -> None:
    data = tiny_artifact.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    content["__metadata__"]["ttcompress"] = "[]"
    (tmp_path / "m.safetensors").write_bytes(header(content, data[8 + length :]))
    with pytest.raises(TTCompressError, match="its metadata is not an object"):
        load(tmp_path / "m.safetensors")


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


PICKLES = {
    "a path that doubles 50 times": (
        pickled(
            text(b"a" * 1000) + b"q\x00"
            b"" + b"0cpathlib\nPurePosixPath\nh\x00h\x00\x86Rq\x00" * 50
        ),
        "a path of",
    ),
    "many sets": (pickled(b"]" + b"\x8f0" * 2000), "takes over 20,000 instructions"),
    "many dictionaries": (pickled(b"]" + b"}0" * 4100), "takes over 20,000 instructions"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PICKLES)
def test_a_crafted_pickle(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, fact = PICKLES[kind]
    monkeypatch.setattr("ttcompress.checkpoint.pickle.machine.MAX_OPCODES", 20_000)
    (tmp_path / "m").write_bytes(data)
    with bounded(len(data)), pytest.raises(TTCompressError, match=fact):
        open_checkpoint(tmp_path / "m")


def remembered(value: bytes) -> bytes:
    """A value in the memo's place 0; the stack is as it was."""
    return value + b"q\x000"


def built(name: str, times: int) -> bytes:
    """A list of what a name makes of the value in the memo's place 0, again and again."""
    module, _, leaf = name.rpartition(".")
    builder = b"c%b\n%b\nq\x010" % (module.encode(), leaf.encode())
    return builder + b"](" + b"h\x01h\x00\x85R" * times + b"e"


MANY = 200_000
COPIES = {
    "builtins.bytearray": b"\x8e" + struct.pack("<Q", MANY) + bytes(MANY),
    "_codecs.encode": text(b"a" * MANY),
    "builtins.list": b"](" + b"N" * MANY + b"e",
    "builtins.set": b"](" + b"".join(b"J" + struct.pack("<i", k) for k in range(9999)) + b"e",
    "collections.OrderedDict": b"}(" + b"".join(b"K%cN" % k for k in range(255)) + b"u",
    "any.Class": b"](" + b"N" * MANY + b"e",
}
"""By what copies it, a value that is short to name."""


def legacy(body: bytes, version: bytes | None = None, keys: bytes = b"]") -> bytes:
    """A file of torch's old format around a pickle, without storages."""
    frame = (
        pickle.dumps(MAGIC, 2),
        pickle.dumps(VERSION, 2) if version is None else pickled(version),
        pickle.dumps({"little_endian": True}, 2),
    )
    return b"".join([*frame, pickled(body), pickled(keys)])


TWICE = remembered(b"]") + b"](h\x00h\x00eq\x000" * 60 + b"h\x00"
"""A list that holds another twice, which holds another twice: printed, it has 2**60 brackets."""

HUGE = b"\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000
"""An integer that Python refuses to print."""

STORAGE = text(b"storage") + b"ctorch\nFloatStorage\n"
UNPRINTABLE = {
    "a version": (legacy(b"N", version=TWICE), "expected version 1001, got list"),
    "a long version": (legacy(b"N", version=HUGE), "expected version 1001, got int"),
    "a deep version": (
        legacy(b"N", version=b")" + b"\x85" * 50_000),
        "expected version 1001, got tuple",
    ),
    "a key of a storage": (legacy(b"N", keys=b"]" + TWICE + b"a"), "before storage 'list'"),
    "a long key of a storage": (legacy(b"N", keys=b"]" + HUGE + b"a"), "before storage 'int'"),
    "a kind of id": (legacy(b"(" + TWICE + b"NNNK\x04tQ"), "persistent id 'list'"),
    "a class of storages": (
        legacy(b"(" + text(b"storage") + TWICE + b"NNK\x04tQ"),
        "list is not a storage",
    ),
    "a key in an id": (legacy(b"(" + STORAGE + TWICE + b"NK\x04tQ"), "'list' is not in the file"),
    "a place in a storage": (
        legacy(b"(" + STORAGE + text(b"7") + b"NK\x04(N" + HUGE + b"K\x04ttQ"),
        "not a range of its storage",
    ),
    "a device": (pickled(b"ctorch\ndevice\n" + TWICE + b"K\x01\x86R"), "no named 2-D tensor"),
    "a number type of numpy's": (
        pickled(b"cnumpy\ndtype\n" + TWICE + b"\x85R"),
        "no named 2-D tensor",
    ),
    "a number type": (
        pickled(b"ctorch._utils\n_rebuild_tensor_v3\n(NNNNNN" + TWICE + b"tR"),
        "its pickle is damaged",
    ),
    "an encoding": (
        pickled(b"c_codecs\nencode\n" + text(b"a") + TWICE + b"\x86R"),
        "bytes written in list",
    ),
    "a function": (
        pickled(b"ctorch._tensor\n_rebuild_from_type_v2\n(" + TWICE + b"NNtR"),
        "no named 2-D tensor",
    ),
    "a class": (
        pickled(b"ctorch._tensor\n_rebuild_from_type_v2\n(N" + TWICE + b"NtR"),
        "no named 2-D tensor",
    ),
    "a side of an empty array": (
        pickled(
            b"cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n"
            + text(b"f4")
            + b"\x85RK\x00"
            + HUGE
            + b"\x86NtR"
        ),
        "its pickle is damaged",
    ),
}


@pytest.mark.parametrize("kind", UNPRINTABLE)
def test_what_takes_for_ever_to_print_is_not_printed(kind: str, tmp_path: Path) -> None:
    data, fact = UNPRINTABLE[kind]
    (tmp_path / "m").write_bytes(data)
    with bounded(len(data)), pytest.raises(TTCompressError, match=fact) as caught:
        open_checkpoint(tmp_path / "m")
    assert caught.value.exit_code == 3


def test_pickles_inside_a_pickle_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttcompress.checkpoint.pickle.machine.MAX_OPCODES", 200_000)
    inner = legacy(b"](" + b"}" * 1000 + b"e")
    value = b"\x8e" + struct.pack("<Q", len(inner)) + inner
    data = b"\x80\x04" + remembered(value) + built("torch.storage._load_from_bytes", 100) + b"."
    (tmp_path / "m").write_bytes(data)
    with bounded(len(data)), pytest.raises(TTCompressError, match="over 200,000 instructions"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("name", COPIES)
def test_a_value_copied_without_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttcompress.checkpoint.pickle.machine.MAX_OPCODES", 2_000_000)
    data = b"\x80\x04" + remembered(COPIES[name]) + built(name, 100_000) + b"."
    (tmp_path / "m").write_bytes(data)
    with (
        bounded(len(data)),
        pytest.raises(TTCompressError, match=r"instructions|refused as a pickle bomb"),
    ):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("key", [b"(" + b"N" * 5000 + b"t", b"\x8b" + struct.pack("<i", 9999)])
def test_a_key_that_takes_long_to_hash(key: bytes, tmp_path: Path) -> None:
    if key.startswith(b"\x8b"):
        key += b"\x7f" * 9999
    data = b"\x80\x04" + remembered(key) + b"}" + b"h\x00Ns" * 100_000 + b"."
    (tmp_path / "m").write_bytes(data)
    with (
        bounded(len(data)),
        pytest.raises(TTCompressError, match=r"a key with (over|thousands)"),
    ):
        open_checkpoint(tmp_path / "m")


def many_places(names: int) -> Any:
    """Tensors in different places whose names, once joined, are the same."""
    content: dict[str, Any] = {}
    for place in range(names):
        inner, name = content, "a"
        for bit in range(8):
            if place >> bit & 1:
                inner, name = inner.setdefault(name, {}), "a"
            else:
                name += ".a"
        inner[name] = torch.zeros(1)
    return content


class Bare(torch.nn.Module):
    """Holds what it is given, as a module that holds no tensor could."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self._buffers = {"held": held}


WEIGHTS = {"lstm.weight_ih_l0": torch.zeros(16, 4), "lstm.weight_hh_l0": torch.zeros(16, 4)}
BRANCHES: list[Any] = [[] for _ in range(1000)]
TREES: dict[str, tuple[Any, str]] = {
    "a name that reads as an output layer, again and again": (
        WEIGHTS | {"out" * 100_000 + "-.weight": torch.zeros(4, 4)},
        "300,008 characters",
    ),
    "a name behind very many wrappers": (
        {"module." * 100_000 + name: tensor for name, tensor in WEIGHTS.items()},
        "700,017 characters",
    ),
    "one name for very many tensors": (
        {"state_dict": WEIGHTS, "more": many_places(250)},
        "over 100 tensors share the name",
    ),
    "very many optimizers that share what they hold": (
        {"state_dict": WEIGHTS} | {f"optim_{k}": {"x": BRANCHES} for k in range(100)},
        "over 50,000 parts",
    ),
    "very many states that share what they hold": (
        {"state_dict": WEIGHTS}
        | {str(k): {"state": BRANCHES, "param_groups": []} for k in range(100)},
        "over 50,000 parts",
    ),
    "very many modules that share what they hold": (
        {"state_dict": WEIGHTS} | {str(k): Bare(BRANCHES) for k in range(100)},
        "over 50,000 parts",
    ),
}


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_that_takes_long_to_look_through(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, fact = TREES[kind]
    monkeypatch.setattr("ttcompress.checkpoint.tree.MAX_STEPS", 50_000)
    torch.save(content, tmp_path / "m")
    with bounded((tmp_path / "m").stat().st_size), pytest.raises(TTCompressError, match=fact):
        open_checkpoint(tmp_path / "m")


def test_a_key_that_reads_as_an_optimizer_again_and_again(tmp_path: Path) -> None:
    torch.save({"m": WEIGHTS, "optim_" * 50_000 + "\n": {"x": [1]}}, tmp_path / "m")
    with bounded(300_000):
        assert len(open_checkpoint(tmp_path / "m").weights) == 2


def test_windows_on_one_storage_do_not_multiply(tmp_path: Path) -> None:
    storage = torch.zeros(250_000)
    views = {f"w{k}": storage[k : k + 200_000].view(400, 500) for k in range(300)}
    torch.save(views, tmp_path / "m.pt")
    with bounded(0), pytest.raises(TTCompressError, match="claim 240,000,000 bytes, over 8"):
        open_checkpoint(tmp_path / "m.pt")
    torch.save(
        {"all": storage.view(500, 500), **dict(list(views.items())[:3])}, tmp_path / "few.pt"
    )
    assert len(open_checkpoint(tmp_path / "few.pt").weights) == 4


@pytest.mark.parametrize("key", ["w\ud800", "mod\udfff.w"])
def test_a_name_that_is_no_text(key: str, tmp_path: Path) -> None:
    with (tmp_path / "m").open("wb") as file:
        pickle.dump({key: torch.zeros(3, 2).numpy()}, file)
    with pytest.raises(TTCompressError, match=r"is not valid text \(half a character at") as caught:
        open_checkpoint(tmp_path / "m")
    str(caught.value).encode()


def repacked(path: Path, kind: int, more: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", kind) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, content in more:
                new.writestr(name, content)
    return buffer.getvalue()


def patched(data: bytes, offset: int, format: str, value: int) -> bytes:
    """The first entry of the archive's directory changed."""
    changed = bytearray(data)
    struct.pack_into(format, changed, data.index(b"PK\x01\x02") + offset, value)
    return bytes(changed)


@pytest.mark.parametrize(
    ("kind", "fact"),
    [
        ("size", "refused as a zip bomb"),
        ("offset", "not where the archive's directory says"),
        ("method", "uses compression method 99, but only 0 and 8 are supported"),
        ("bzip2", "uses compression method 12"),
        ("lzma", "uses compression method 14"),
        ("twice", "its pickle is damaged"),
        ("persistent id", "unknown persistent id 'sforage'"),
        ("no storage", "storage '0' is not in the archive"),
        ("zip64", "truncated zip archive|not where"),
    ],
)
def test_a_crafted_zip(kind: str, fact: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = tiny_checkpoint.read_bytes()
    made = {
        "size": lambda: patched(data, 24, "<I", 2**32 - 2),
        "offset": lambda: patched(data, 42, "<I", 2**31),
        "method": lambda: patched(data, 10, "<H", 99),
        "bzip2": lambda: repacked(tiny_checkpoint, zipfile.ZIP_BZIP2),
        "lzma": lambda: repacked(tiny_checkpoint, zipfile.ZIP_LZMA),
        "twice": lambda: repacked(tiny_checkpoint, 0, (("tiny/data.pkl", b"\x80\x02]q"),)),
        "persistent id": lambda: data.replace(b"storageq", b"sforageq"),
        "no storage": lambda: data.replace(b"tiny/data/0", b"tiny/dota/0"),
        "zip64": lambda: patched(data, 42, "<I", 2**32 - 1),
    }[kind]()
    path = tmp_path / "m.pt"
    path.write_bytes(made)
    with bounded(0), pytest.raises(TTCompressError, match=fact) as caught:
        open_checkpoint(path)
    assert caught.value.exit_code == 3


def test_entries_with_paths_are_never_unpacked(tiny_checkpoint: Path, tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    more = (("../../evil", b"x"), (f"{tmp_path}/evil", b"x"))
    (inner / "m.pt").write_bytes(repacked(tiny_checkpoint, 0, more))
    checkpoint = open_checkpoint(inner / "m.pt")
    assert all(checkpoint.tensor(weight.name).isfinite().all() for weight in checkpoint.weights)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "m.pt"]


def test_a_deflated_archive_is_not_searched_again_for_every_tensor(tmp_path: Path) -> None:
    torch.save({f"w{k}": torch.full((2, 2), float(k)) for k in range(1500)}, tmp_path / "stored")
    path = tmp_path / "deflated"
    path.write_bytes(repacked(tmp_path / "stored", zipfile.ZIP_DEFLATED))
    checkpoint = open_checkpoint(path)
    began = time.process_time()
    assert all(checkpoint.tensor(f"w{k}")[0, 0] == k for k in range(1500))
    assert time.process_time() - began < 1.5


def test_a_deflated_entry_that_ends_early_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(10, 25)}, tmp_path / "stored")
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(tmp_path / "stored") as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name)[:900] if name.endswith("/0") else old.read(name))
    data = bytearray(buffer.getvalue())
    at = data.index(b"stored/data/0", data.index(b"PK\x01\x02")) - 46 + 24
    struct.pack_into("<I", data, at, 1000)  # as the directory promises
    (tmp_path / "m").write_bytes(data)
    checkpoint = open_checkpoint(tmp_path / "m")
    with pytest.raises(TTCompressError, match="w: ends early: expected 1000 bytes at 0, got 900"):
        checkpoint.tensor("w")


def test_a_deflated_entry_is_held_against_its_checksum(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    data = repacked(tiny_checkpoint, zipfile.ZIP_DEFLATED)
    at = data.index(b"tiny/data/0", data.index(b"PK\x01\x02")) - 46 + 16
    (tmp_path / "m").write_bytes(data[:at] + bytes(4) + data[at + 4 :])
    checkpoint = open_checkpoint(tmp_path / "m")
    with pytest.raises(TTCompressError, match=r"embedding\.weight: does not match its checksum"):
        checkpoint.tensor("embedding.weight")


YAML = {
    "aliases of aliases": (
        "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40)),
        "more than 16 aliases",
    ),
    "depth": ("[" * 100_000, "nested too deeply"),
    "size": ("a: b\n" * 100_000, "is larger than 256,000 bytes"),
    "a tag that calls": ("version: !!python/object/apply:os.mkdir [owned]\n", "has no meaning"),
    "a number in base 60": ("version: 1" + ":10" * 20_000, "at most 18 digits"),
    "a number in base 16": ("version: 0x" + "f" * 50_000, "at most 18 digits"),
    "a number of 4,000 digits": ("version: " + "1" * 4000, "at most 18 digits"),
    "half a character": ('version: "\\ud800"', "half of a surrogate pair"),
    "half a character in a key": ('"\\ud800": 1', "half of a surrogate pair"),
}


@pytest.mark.parametrize("read", [load_recipe, read_manifest])
@pytest.mark.parametrize("kind", YAML)
def test_crafted_yaml(
    kind: str, read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, fact = YAML[kind]
    path = tmp_path / "it.yaml"
    path.write_text(content)
    began = time.process_time()
    with pytest.raises(TTCompressError, match=fact) as caught:
        read(path)
    assert time.process_time() - began < SECONDS
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("target", ["../../../etc/passwd", "/etc/passwd", "..", ".", "", "a\0b"])
def test_a_shard_elsewhere_is_not_looked_at(target: str, tmp_path: Path) -> None:
    index = tmp_path / "m.index.json"
    index.write_text(json.dumps({"weight_map": {"w": target}}))
    with pytest.raises(TTCompressError, match=r"outside its own folder|is missing") as caught:
        open_checkpoint(index)
    assert caught.value.exit_code == 3


def test_links_are_followed_where_they_are_read(tmp_path: Path) -> None:
    """As caches of models are: names that lead to files named after their hashes."""
    (tmp_path / "blobs").mkdir()
    save_file({"w": torch.ones(3, 2)}, tmp_path / "blobs" / "0123")
    (tmp_path / "part.safetensors").symlink_to(Path("blobs") / "0123")
    index = tmp_path / "m.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "part.safetensors"}}))
    assert open_checkpoint(index).tensor("w").sum() == 6
    assert open_checkpoint(tmp_path / "part.safetensors").tensor("w").sum() == 6


READERS = (open_checkpoint, load, open_model, load_recipe, read_manifest, read_baseline)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "dangling link", "link to itself", "folder"])
def test_what_is_no_file_is_not_waited_for(
    kind: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "it"
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "dangling link": lambda: path.symlink_to(tmp_path / "absent"),
        "link to itself": lambda: path.symlink_to(path),
        "folder": path.mkdir,
    }[kind]()
    with bounded(0), pytest.raises(TTCompressError) as caught:
        read(path)
    assert caught.value.exit_code in (1, 2)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_the_system_keeps(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "it").write_bytes(b"{}")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TTCompressError, match="it: cannot be read: Permission denied") as caught:
        read(tmp_path / "it")
    assert caught.value.exit_code == 1
