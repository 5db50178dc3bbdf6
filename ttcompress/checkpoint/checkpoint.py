"""Opens a model file (`open_checkpoint`); the `Checkpoint` reads its tensors one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import torch

from ttcompress.checkpoint.assembly import assemble
from ttcompress.checkpoint.carried import Json
from ttcompress.checkpoint.containers import read_container
from ttcompress.checkpoint.names import names_inside
from ttcompress.checkpoint.tensors import Bytes, StoredTensor, read_tensor
from ttcompress.errors import CheckpointError, InputError, unreadable
from ttcompress.model.report import LeftOut
from ttcompress.model.weights import OtherTensor, RecurrentStack, Weight
from ttcompress.system.memory import within_memory
from ttcompress.system.stamps import Stamp, check_unchanged


@dataclass(frozen=True)
class Checkpoint:
    """A trained model's file, described, with its tensors not yet read.

    Attributes:
        container: what the file is, e.g. "torch zip".
        sha256: of the file; of a sharded model, over the index and then every shard.
        bytes: size of the file or files.
        weights: every 2-D floating-point tensor of the state dict, in the file's order, under the
            model's own names; those that no layer is known to use have the role "matrix".
        others: every other tensor, in the state dict or outside; kept as it is.
        stacks: the recurrent layers.
        source_paths: each name's place in the source, e.g. "state_dict.module.lstm.weight_ih_l0".
        carried: typed JSON of the whole content; `rebuild` decodes it.
        left_out: what of the file is in none of these, such as another model.
        notes: what the user should know.
    """

    path: Path
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
            raise CheckpointError(f"{self.path}: has no tensor named {name}. {cure}")
        place = f"{self.path}: {name}"
        try:
            with within_memory(f"{place} ({stored.bytes:,} bytes)"):
                try:
                    return read_tensor(stored, self._storages)
                finally:
                    check_unchanged(self._stamps)  # the reason of whatever else went wrong
        except CheckpointError as error:
            raise error.at(place) from error
        except OSError as error:
            raise unreadable(self.path, error) from error


def open_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Describe a model file without reading its tensors or running anything in it.

    Args:
        path: a file of torch (any version), TorchScript or safetensors, a pickle, or the
            `.index.json` of a sharded model. Its content decides, not its name.
        key: which state dict to take where there are several, such as "generator"; some are
            "generator,critic", and "all" takes every one. Names then begin with their keys.

    Raises:
        InputError: there is no such file.
        CheckpointError: the file is unknown, damaged, unsafe, ambiguous, or without weights.
        TTCompressError: the file cannot be read.
    """
    path = Path(path)
    try:
        _check_path(path)
        source = read_container(path)
        assembly = assemble(source, key)
        sha256 = _hash(source.stamps)
        check_unchanged(source.stamps)
    except CheckpointError as error:
        raise error.at(str(path)) from error
    except OSError as error:
        raise unreadable(path, error) from error
    return Checkpoint(
        path=path,
        container=source.container,
        sha256=sha256,
        bytes=sum(stamp.size for stamp in source.stamps.values()),
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
