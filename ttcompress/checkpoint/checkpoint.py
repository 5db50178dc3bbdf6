"""Opens a model (`open_checkpoint`); the `Checkpoint` reads its tensors one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import torch

from ttcompress.checkpoint.assembly import assemble
from ttcompress.checkpoint.carried import Json
from ttcompress.checkpoint.containers import Source, read_container
from ttcompress.checkpoint.containers.memory import InMemory, describe, read_memory
from ttcompress.checkpoint.names import names_inside
from ttcompress.checkpoint.tensors import Bytes, StoredTensor, read_tensor
from ttcompress.errors import CheckpointError, InputError, unreadable
from ttcompress.hub import local_file
from ttcompress.model.report import LeftOut
from ttcompress.model.weights import OtherTensor, RecurrentStack, Weight
from ttcompress.system.memory import within_memory
from ttcompress.system.stamps import Stamp, check_unchanged

ModelSource = str | Path | InMemory
"""What a model can be given as: a file, an address on the hub, a module, or a state dict."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, described, with its tensors not yet read.

    Attributes:
        label: the file's path, or what is in memory: "LSTM in memory".
        container: what the file is, e.g. "torch zip".
        sha256: of the file; of a sharded model, over the index and then every shard; of a model in
            memory, over its tensors.
        bytes: size of the file or files, or of the tensors in memory.
        weights: every 2-D floating-point tensor of the state dict, in the file's order, under the
            model's own names; those that no layer is known to use have the role "matrix".
        others: every other tensor, in the state dict or outside; kept as it is.
        stacks: the recurrent layers.
        source_paths: each name's place in the source, e.g. "state_dict.module.lstm.weight_ih_l0".
        carried: typed JSON of the whole content; `rebuild` decodes it.
        left_out: what of the file is in none of these, such as another model.
        notes: what the user should know.
    """

    label: str
    container: str
    sha256: str
    bytes: int
    weights: tuple[Weight, ...]
    others: tuple[OtherTensor, ...]
    stacks: tuple[RecurrentStack, ...]
    source_paths: Mapping[str, str]
    carried: Json
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    _stored: Mapping[str, StoredTensor] = field(repr=False)
    _storages: Mapping[str, Bytes] = field(repr=False)
    _stamps: Mapping[Path, Stamp] = field(repr=False)

    @property
    def tied_shapes(self) -> dict[tuple[str, ...], tuple[int, ...]]:
        """Every tensor once, as all of its names and its shape."""
        weights: dict[tuple[str, ...], tuple[int, ...]] = {w.names: w.shape for w in self.weights}
        return weights | {other.names: other.shape for other in self.others}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor of the state dict under all of its names, and none from outside it."""
        return {name: self.tensor(name) for name in names_inside(self.source_paths)}

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor, by any of its names, into new CPU memory in the source's number type.

        Raises:
            CheckpointError: no tensor has the name, or its bytes are damaged.
            OutOfMemoryError: it does not fit into memory.
            TTCompressError: the file is gone, unreadable, or has changed since it was hashed.
        """
        stored = self._stored.get(name)
        if stored is None:
            near = get_close_matches(name, self._stored, n=1)
            cure = f"Did you mean {near[0]}?" if near else "`ttcompress inspect` lists them."
            raise CheckpointError(f"{self.label}: has no tensor named {name}. {cure}")
        place = f"{self.label}: {name}"
        try:
            with within_memory(f"{place} ({stored.bytes:,} bytes)"):
                try:
                    return read_tensor(stored, self._storages)
                finally:
                    check_unchanged(self._stamps)  # the reason of whatever else went wrong
        except CheckpointError as error:
            raise error.at(place) from error
        except OSError as error:
            raise unreadable(self.label, error) from error


def open_checkpoint(model: ModelSource, key: str | None = None) -> Checkpoint:
    """Describe a model without reading its tensors or running anything in its file.

    Args:
        model: a file of torch (any version), TorchScript or safetensors, a pickle, or the
            `.index.json` of a sharded model: its content decides, not its name. Or a model on the
            hub, `hf://user/name`; or a module or a state dict in memory.
        key: which state dict to take where there are several, such as "generator"; some are
            "generator,critic", and "all" takes every one. Names then begin with their keys.

    Raises:
        InputError: there is no such file.
        CheckpointError: the file is unknown, damaged, unsafe, ambiguous, or without weights.
        TTCompressError: the file cannot be read.
    """
    label = str(model) if isinstance(model, str | Path) else describe(model)
    try:
        source = _read(model)
        assembly = assemble(source, key)
        sha256 = _hash(source.stamps) if source.hash is None else source.hash()
        check_unchanged(source.stamps)
    except CheckpointError as error:
        raise error.at(label) from error
    except OSError as error:
        raise unreadable(label, error) from error
    sizes = [stamp.size for stamp in source.stamps.values()]
    return Checkpoint(
        label=label,
        container=source.container,
        sha256=sha256,
        bytes=sum(sizes or (held.size for held in source.storages.values())),
        weights=assembly.weights,
        others=assembly.others,
        stacks=assembly.stacks,
        source_paths=assembly.source_paths,
        carried=assembly.carried,
        left_out=assembly.left_out,
        notes=assembly.notes,
        _stored=assembly.stored,
        _storages=assembly.storages,
        _stamps=source.stamps,
    )


def _read(model: ModelSource) -> Source:
    if not isinstance(model, str | Path):
        return read_memory(model)
    path = local_file(model)
    _check_path(path)
    return read_container(path)


def _check_path(path: Path) -> None:
    if path.is_dir():
        cure = "Give a checkpoint file."
        for ending in (".index.json", ".safetensors", ".pt", ".pth", ".ckpt", ".bin"):
            if found := sorted(p.name for p in path.iterdir() if p.name.endswith(ending)):
                cure = f"Give a file in it, such as {path / found[0]}."
                break
        raise InputError(f"{path}: is a folder. {cure}")
    if not path.exists():
        raise InputError(f"{path}: no such file. Check the path; you are in {Path.cwd()}.")
    if not path.is_file():
        raise InputError(f"{path}: is not a regular file. Give a checkpoint file.")


def _hash(files: Iterable[Path]) -> str:
    """SHA-256 over the files one after another."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
