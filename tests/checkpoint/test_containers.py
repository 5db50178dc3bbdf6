"""Every container: the same model must come back from all of them, to the bit."""

import hashlib
import io
import json
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ttcompress.checkpoint import Checkpoint, open_checkpoint, rebuild
from ttcompress.checkpoint.containers import Source, registry
from ttcompress.checkpoint.tensors import StoredTensor
from ttcompress.errors import CheckpointError
from ttcompress.system.files import FileBytes


def clones(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def save_zip(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path)


def save_legacy(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def save_module(model: nn.Module, path: Path) -> None:
    torch.save(model, path)


def save_legacy_module(model: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(model, path, _use_new_zipfile_serialization=False)


def save_script(model: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(path)


def save_pickle(model: nn.Module, path: Path) -> None:
    path.write_bytes(pickle.dumps(model.state_dict()))


def save_arrays(model: nn.Module, path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path.write_bytes(pickle.dumps(arrays))


def save_safetensors(model: nn.Module, path: Path) -> None:
    save_file(clones(model), path)


def save_sharded(model: nn.Module, path: Path) -> None:
    write_shards(model, path, save_file)


def save_sharded_torch(model: nn.Module, path: Path) -> None:
    write_shards(model, path, torch.save)


def write_shards(model: nn.Module, path: Path, save: Callable[..., None]) -> None:
    tensors = clones(model)
    names = [f"shard-{k % 2}.bin" for k in range(len(tensors))]
    for shard in set(names):
        chosen = [name for name, at in zip(tensors, names, strict=True) if at == shard]
        save({name: tensors[name] for name in chosen}, path.parent / shard)
    weight_map = dict(zip(tensors, names, strict=True))
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def save_compressed(model: nn.Module, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    with (
        zipfile.ZipFile(buffer) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name.replace("archive/", "another root/"), old.read(name))


CONTAINERS = {
    "torch zip": save_zip,
    "torch zip, compressed": save_compressed,
    "torch zip, module": save_module,
    "torch legacy": save_legacy,
    "torch legacy, module": save_legacy_module,
    "torchscript": save_script,
    "pickle": save_pickle,
    "pickle, arrays": save_arrays,
    "safetensors": save_safetensors,
    "safetensors sharded": save_sharded,
    "torch zip sharded": save_sharded_torch,
}


@pytest.fixture(params=CONTAINERS)
def saved(
    request: pytest.FixtureRequest, tagger: nn.Module, tmp_path: Path
) -> tuple[str, Checkpoint]:
    path = tmp_path / "model.any"
    CONTAINERS[request.param](tagger, path)
    return request.param.partition(",")[0], open_checkpoint(path)


def test_every_container_gives_every_tensor(
    saved: tuple[str, Checkpoint], state: dict[str, Any]
) -> None:
    container, checkpoint = saved
    assert checkpoint.container == container
    held = [*checkpoint.weights, *checkpoint.others]
    assert {one.name for one in held} == set(state)
    for one in held:
        tensor = checkpoint.tensor(one.name)
        assert tensor.dtype == state[one.name].dtype
        assert tensor.is_contiguous() and tensor.shape == one.shape
        assert torch.equal(tensor, state[one.name])


def test_every_container_gives_roles_and_layers(saved: tuple[str, Checkpoint]) -> None:
    _, checkpoint = saved
    roles = {weight.name: weight.role for weight in checkpoint.weights}
    assert roles.pop("encoder.weight") == "embedding"
    assert roles.pop("decoder.weight") == "linear"
    assert len(roles) == 8 and set(roles.values()) == {"recurrent"}
    (stack,) = checkpoint.stacks
    assert (stack.kind, stack.prefix, stack.input_size, stack.hidden_size) == (
        "lstm",
        "lstm.",
        6,
        5,
    )
    assert stack.num_layers == 2 and stack.bidirectional and stack.bias


def test_every_container_rebuilds_a_state_dict_that_loads(
    saved: tuple[str, Checkpoint], tagger: nn.Module
) -> None:
    _, checkpoint = saved
    carried = json.loads(json.dumps(checkpoint.carried))
    held = [*checkpoint.weights, *checkpoint.others]
    tensors = {one.name: checkpoint.tensor(one.name) for one in held}
    rebuilt = rebuild(carried, tensors)
    as_tensors = {name: torch.as_tensor(value) for name, value in rebuilt.items()}
    tagger.load_state_dict(as_tensors, strict=True)


def test_the_digest_is_of_the_file(tagger: nn.Module, tmp_path: Path) -> None:
    save_zip(tagger, tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.sha256 == hashlib.sha256(data).hexdigest()
    assert checkpoint.bytes == len(data)


def test_the_digest_of_shards_covers_all_files(tagger: nn.Module, tmp_path: Path) -> None:
    save_sharded(tagger, tmp_path / "m.index.json")
    parts = [tmp_path / name for name in ("m.index.json", "shard-0.bin", "shard-1.bin")]
    data = b"".join(part.read_bytes() for part in parts)
    checkpoint = open_checkpoint(parts[0])
    assert (checkpoint.sha256, checkpoint.bytes) == (hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize("container", [name for name in CONTAINERS if "sharded" not in name])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(
    container: str, part: float, tagger: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    CONTAINERS[container](tagger, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        open_checkpoint(path)


def test_classes_that_are_gone_are_not_missed(tmp_path: Path) -> None:
    class Gone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

    module = sys.modules[__name__]
    Gone.__qualname__ = "Gone"
    module.Gone = Gone  # type: ignore[attr-defined]
    original = Gone()
    torch.save({"model": original, "epoch": 7}, tmp_path / "m")
    del module.Gone  # type: ignore[attr-defined]
    checkpoint = open_checkpoint(tmp_path / "m")
    assert torch.equal(checkpoint.tensor("cell.weight_ih"), original.cell.weight_ih)
    assert checkpoint.source_paths["cell.weight_ih"] == "model.cell.weight_ih"
    assert any("Gone" in note for note in checkpoint.notes)


def test_a_tar_of_the_first_torch_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(CheckpointError, match="tar"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("first", [0x50, 0x7B, 0x80])
def test_a_safetensors_header_may_have_the_length_that_another_kind_begins_with(
    first: int, tmp_path: Path
) -> None:
    entry = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    text = json.dumps(entry).encode().ljust(256 + first)
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    assert open_checkpoint(tmp_path / "m").container == "safetensors"


def read_toy(path: Path) -> Source:
    """A file of another kind: three letters, then one matrix of 2 x 3 numbers."""
    stored = StoredTensor("all", torch.float32, 0, (2, 3), (3, 1))
    return Source("toy", {"w": stored}, {"all": FileBytes(path, 3, 24)})


def test_a_new_container_is_one_reader_in_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.arange(6, dtype=torch.float32).view(2, 3)
    (tmp_path / "toy").write_bytes(b"TOY" + values.numpy().tobytes())
    with pytest.raises(CheckpointError, match="is not a known kind of file"):
        open_checkpoint(tmp_path / "toy")
    toy = SimpleNamespace(owns=lambda head: head.startswith(b"TOY"), read=read_toy)
    monkeypatch.setattr(registry, "CONTAINERS", (*registry.CONTAINERS, toy))
    assert torch.equal(open_checkpoint(tmp_path / "toy").tensor("w"), values)
    index = tmp_path / "m.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "toy"}}))
    checkpoint = open_checkpoint(index)
    assert checkpoint.container == "toy sharded" and torch.equal(checkpoint.tensor("w"), values)
