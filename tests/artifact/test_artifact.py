"""The artifact: what is written is what is read, byte for byte, and damage is named."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint.recurrent import foreign_layers
from ttcompress.errors import ArtifactError, InputError, OutputError, OutputPathError
from ttcompress.model.weights import RecurrentStack
from ttcompress.system.safetensors import file_size, write_safetensors
from ttcompress.workflows.compress import compress

RULES = [
    {"weights": "lstm.weight_ih_l0", "format": "mpo", "store": "int4"},
    {"weights": "recurrent", "store": "float16"},
    {"weights": "embedding", "format": "dense", "store": "int8"},
]
RECIPE = {"version": 1, "budget": {"rank": 2}, "rules": RULES, "default": "keep"}


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with nesting, ties, half precision, an optimizer and a vocabulary."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    embedding = normal(40, 16)
    state = OrderedDict(
        {
            "module.embedding.weight": embedding,
            "module.lstm.weight_ih_l0": normal(64, 16),
            "module.lstm.weight_hh_l0": normal(64, 16),
            "module.lstm.bias_ih_l0": normal(64),
            "module.lstm.bias_hh_l0": normal(64),
            "module.head.weight": embedding,
            "module.head.bias": normal(40).half(),
            "module.steps": torch.tensor(3),
        }
    )
    content = {
        "state_dict": state,
        "vocabulary": {7: "seven", "pair": (1, 2.5)},
        "optimizer": {"state": {0: {"exp_avg": normal(64, 16)}}, "param_groups": [{"lr": 0.1}]},
    }
    path = tmp_path_factory.mktemp("nested") / "model.pt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def model(nested: Path) -> CompressedModel:
    return compress(nested, RECIPE)


@pytest.fixture(scope="module")
def saved(model: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    model.save(path)
    return path


def test_a_loaded_model_is_the_saved_one(model: CompressedModel, saved: Path) -> None:
    loaded = load(saved)
    assert [stored.weight for stored in loaded.weights] == [w.weight for w in model.weights]
    assert [stored.layout for stored in loaded.weights] == [w.layout for w in model.weights]
    assert (loaded.report, loaded.ties, loaded.stacks) == (model.report, model.ties, model.stacks)
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_saving_what_was_loaded_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_its_size_is_known_before_it_is_written(model: CompressedModel, saved: Path) -> None:
    assert model.file_bytes == saved.stat().st_size


def test_another_process_writes_the_same_bytes(nested: Path, saved: Path, tmp_path: Path) -> None:
    script = (
        "import json, sys; from ttcompress.workflows.compress import compress;"
        "compress(sys.argv[1], json.loads(sys.argv[2])).save(sys.argv[3])"
    )
    again = tmp_path / "again"
    arguments = [sys.executable, "-c", script, str(nested), json.dumps(RECIPE), str(again)]
    subprocess.run(arguments, check=True, env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"})
    assert again.read_bytes() == saved.read_bytes()


def test_an_infinite_error_is_null_in_json_and_infinite_again(tmp_path: Path) -> None:
    torch.save(nn.LSTM(8, 16).state_dict(), tmp_path / "m.pt")
    model = compress(tmp_path / "m.pt", {"version": 1, "budget": {"factor": 8}})
    first, *rest = model.report.weights
    lost = replace(first, gate_errors=(inf, 0.1, 0.2, 0.3), worst_row_error=inf)
    model = replace(model, report=replace(model.report, weights=(lost, *rest)))
    model.save(tmp_path / "small.safetensors")
    text = header_of((tmp_path / "small.safetensors").read_bytes())
    assert b"Infinity" not in text and b"null" in text
    assert load(tmp_path / "small.safetensors").report == model.report


VERSION_1 = Path(__file__).with_name("version1.safetensors")


def test_a_file_of_version_1_is_read_as_it_was_meant() -> None:
    """Its integer codes have no zero, and its report does not know the worst rows."""
    model, tensors = load(VERSION_1), load_file(VERSION_1)
    assert all(isnan(weight.worst_row_error) for weight in model.report.weights)
    assert "worst_row_error" not in model.report.as_json()["weights"][0]
    planes = np.unpackbits(tensors["embedding.weight.dense.planes"], axis=1, bitorder="little")
    codes = (planes[:, :24] << np.arange(3, dtype=np.uint8)[:, None]).sum(0)
    steps = (
        tensors["embedding.weight.dense.scales"].float() * tensors["embedding.weight.dense.factor"]
    )
    assert torch.equal(
        model.tensor("embedding.weight"), ((torch.tensor(codes) - 3.5) * steps).reshape(6, 4)
    )
    assert bool(model.tensor("embedding.weight")[0].all())
    assert model.tensor("lstm.weight_ih_l0").shape == (32, 4)


def test_zero_rows_and_columns_are_read_again(tmp_path: Path) -> None:
    tensors = nn.LSTM(8, 16).state_dict()
    tensors["weight_hh_l0"][[3, 40]], tensors["weight_hh_l0"][:, 5] = 0.0, 0.0
    torch.save(tensors, tmp_path / "m.pt")
    compress(tmp_path / "m.pt", {"version": 1, "format": "mpo", "budget": {"rank": 3}}).save(
        tmp_path / "a.safetensors"
    )
    (stored,) = (w for w in load(tmp_path / "a.safetensors").weights if "hh" in w.weight.name)
    assert (stored.zero_rows, stored.zero_columns) == ((3, 40), (5,))
    assert not stored.dense()[[3, 40]].any() and not stored.dense()[:, 5].any()


def test_other_programs_see_cores_and_kept_tensors(saved: Path) -> None:
    tensors = load_file(saved)
    assert set(tensors) == {
        *(f"lstm.weight_ih_l0.cores.{k}.{part}" for k in (0, 1) for part in PARTS),
        *(f"lstm.weight_hh_l0.cores.{k}" for k in (0, 1)),
        *(f"embedding.weight.dense.{part}" for part in PARTS),
        *("lstm.bias_ih_l0", "lstm.bias_hh_l0", "head.bias", "steps"),
    }
    assert tensors["lstm.weight_hh_l0.cores.0"].dtype == torch.float16
    assert tensors["head.bias"].dtype == torch.float16


PARTS = ("planes", "scales", "factor")


def test_the_header_has_one_order(saved: Path) -> None:
    entries = json.loads(header_of(saved.read_bytes()))
    metadata = entries.pop("__metadata__")
    assert list(metadata) == ["format", "ttcompress"] and metadata["format"] == "pt"
    offsets = [entry["data_offsets"] for entry in entries.values()]
    assert [begin for begin, _ in offsets] == [0, *(end for _, end in offsets[:-1])]
    sizes = {"I64": 8, "F32": 4, "F16": 2, "U8": 1}
    order = [(-sizes[entry["dtype"]], name) for name, entry in entries.items()]
    assert order == sorted(order)
    document = json.loads(metadata["ttcompress"])
    assert document["format_version"] == 3


def test_every_dtype_is_written_as_the_library_reads_it(tmp_path: Path) -> None:
    names = (
        "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 uint16 "
        "uint32 uint64 float8_e4m3fn float8_e5m2"
    )
    ones = torch.tensor([[1, 0, 1]])
    tensors = {name: ones.to(getattr(torch, name)) for name in names.split()}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "view": ones.T[::2]}
    with (tmp_path / "all").open("wb") as file:
        write_safetensors(file, tensors, {"note": "é"})
    assert (tmp_path / "all").stat().st_size == file_size(tensors, {"note": "é"})
    again = load_file(tmp_path / "all")
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
        assert again[name].tolist() == tensor.tolist() if "8_e" not in name else True


def test_a_tensor_asked_for_by_itself_is_that_of_the_state_dict(model: CompressedModel) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(model.tensor(name), tensor)
    with pytest.raises(KeyError, match="absent"):
        model.tensor("absent")


def test_tied_names_share_one_tensor(saved: Path) -> None:
    state = load(saved).state_dict()
    assert state["head.weight"] is state["embedding.weight"]
    assert load(saved).ties == {"embedding.weight": ("embedding.weight", "head.weight")}


def test_what_is_restored_has_the_source_s_nesting(nested: Path, saved: Path) -> None:
    source = torch.load(nested, weights_only=True)
    restored = load(saved).restored()
    assert restored["vocabulary"] == {7: "seven", "pair": (1, 2.5)}
    assert "param_groups" not in str(restored.get("optimizer", ""))
    assert restored["state_dict"].keys() == source["state_dict"].keys()
    for name, tensor in source["state_dict"].items():
        found = restored["state_dict"][name]
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
    for kept in ("lstm.bias_ih_l0", "head.bias", "steps"):
        key = f"module.{kept}"
        assert torch.equal(restored["state_dict"][key], source["state_dict"][key])


def test_an_existing_file_is_safe(model: CompressedModel, saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(OutputPathError, match="already exists"):
        model.save(saved)
    assert saved.read_bytes() == before


def header_of(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length]


Edit = Callable[[dict[str, Any], dict[str, Tensor]], object]


def drop(key: str) -> Edit:
    return lambda document, tensors: tensors.pop(key)


def put(key: str, tensor: Tensor) -> Edit:
    return lambda document, tensors: tensors.update({key: tensor})


def plan_entry(**changes: Any) -> Edit:
    return lambda document, tensors: document["plan"][1].update(changes)


DAMAGES: dict[str, tuple[Edit, str]] = {
    "no planes": (drop("lstm.weight_ih_l0.cores.0.planes"), "planes"),
    "no scales": (drop("embedding.weight.dense.scales"), "scales"),
    "no factor": (drop("embedding.weight.dense.factor"), "factor"),
    "no core": (drop("lstm.weight_hh_l0.cores.1"), r"cores\.1"),
    "short planes": (put("embedding.weight.dense.planes", torch.zeros(8, 79).byte()), "planes"),
    "wrong dtype": (put("lstm.weight_hh_l0.cores.0", torch.zeros(1, 64, 2)), "float16"),
    "core that does not chain": (
        put("lstm.weight_hh_l0.cores.1", torch.zeros(3, 16, 1).half()),
        r"cores\.1 is \(3, 16, 1\)",
    ),
    "other ranks": (plan_entry(ranks=[9]), "needs"),
    "too many ranks": (plan_entry(ranks=[2, 2]), "do not match"),
    "unknown store": (plan_entry(store="int9"), "int9"),
    "other modes": (
        plan_entry(layout={"format": "mps", "row_modes": [8], "column_modes": [16]}),
        r"modes make \(8, 16\)",
    ),
    "no plan": (lambda document, tensors: document.pop("plan"), "plan"),
    "no report": (lambda document, tensors: document.pop("report"), "report"),
    "plan is not a list": (lambda document, tensors: document.update(plan=3), "do not match"),
    "other version": (
        lambda document, tensors: document.update(format_version=4),
        "format version 4, but this ttcompress reads versions 1 to 3",
    ),
    "version 0": (lambda document, tensors: document.update(format_version=0), "version 0"),
    "a row beyond the last": (plan_entry(zero_rows=[64]), "increasing numbers below 64"),
    "a column before the first": (plan_entry(zero_columns=[-1]), "increasing numbers below 16"),
    "the same row twice": (plan_entry(zero_rows=[3, 3]), "increasing numbers below 64"),
    "no version": (lambda document, tensors: document.pop("format_version"), "version None"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_content_that_does_not_fit_is_refused(damage: str, saved: Path, tmp_path: Path) -> None:
    edit, fact = DAMAGES[damage]
    metadata = json.loads(header_of(saved.read_bytes()))["__metadata__"]
    document, tensors = json.loads(metadata["ttcompress"]), load_file(saved)
    edit(document, tensors)
    damaged = tmp_path / "damaged.safetensors"
    save_file(tensors, damaged, metadata | {"ttcompress": json.dumps(document)})
    with pytest.raises(ArtifactError, match=fact) as caught:
        load(damaged)
    assert str(caught.value).startswith(f"{damaged}: ")


def test_a_header_longer_than_readers_take_is_not_written(
    model: CompressedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttcompress.system.safetensors.MAX_HEADER", 5000)
    with pytest.raises(OutputError, match=r"take [\d,]+ bytes, but .* at most 5,000\. Keep"):
        model.save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_cores_that_would_rebuild_to_terabytes_are_named(saved: Path, tmp_path: Path) -> None:
    side = 1 << 20
    metadata = json.loads(header_of(saved.read_bytes()))["__metadata__"]
    document, tensors = json.loads(metadata["ttcompress"]), load_file(saved)
    (entry,) = (e for e in document["plan"] if e["weight"]["name"] == "lstm.weight_hh_l0")
    assert entry["store"] == "float16"
    entry |= {
        "ranks": [1],
        "layout": {"format": "mps", "row_modes": [side], "column_modes": [side]},
    }
    entry["weight"] |= {"shape": [side, side], "gates": 1}
    document["stacks"] = []
    for k, shape in enumerate(((1, side, 1), (1, side, 1))):
        tensors[f"lstm.weight_hh_l0.cores.{k}"] = torch.zeros(shape).half()
    save_file(tensors, tmp_path / "x", metadata | {"ttcompress": json.dumps(document)})
    with pytest.raises(ArtifactError, match=r"hh_l0: rebuilding it takes 8,796,093,022,208 bytes"):
        load(tmp_path / "x").restored()


@pytest.mark.parametrize("length", [0, 4, 8, 100, 5000, -1])
def test_a_truncated_file_is_refused(length: int, saved: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        load(damaged)


def test_any_flipped_bit_of_the_header_is_refused_or_harmless(saved: Path, tmp_path: Path) -> None:
    """Never another exception than ArtifactError, whatever the bit."""
    content, refused = saved.read_bytes(), 0
    damaged = tmp_path / "damaged.safetensors"
    for position in range(0, 8 + len(header_of(content)), 61):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 7
        damaged.write_bytes(flipped)
        try:
            load(damaged)
        except ArtifactError:
            refused += 1
    assert refused > 20


def test_other_files_are_no_artifacts(nested: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ArtifactError, match="not an artifact of ttcompress"):
        load(tmp_path / "plain.safetensors")
    with pytest.raises(ArtifactError, match="not a readable safetensors"):
        load(nested)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "missing")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)


def test_a_file_that_takes_another_cell_for_torchs_is_read_without_that_layer(tmp_path) -> None:
    state = {f"{name}.{k}": v for name in "ab" for k, v in nn.LSTMCell(4, 8).state_dict().items()}
    torch.save({**state, "a.weight_ci": torch.ones(8)}, tmp_path / "model.pt")
    model = compress(tmp_path / "model.pt", {"version": 1, "budget": {"rank": 2}})
    stacks = tuple(RecurrentStack(f"{name}.", "lstm", 4, 8, cell=True) for name in "ab")
    assert model.stacks == stacks[1:]
    replace(model, stacks=stacks).save(tmp_path / "old.safetensors")  # as version 0.1 wrote it
    read = load(tmp_path / "old.safetensors")
    assert read.stacks == stacks[1:]
    assert foreign_layers(read) == ("a.weight_* (it also has weight_ci)",)
