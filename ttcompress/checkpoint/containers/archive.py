"""The error for a zip archive around model files: which of them to unpack."""

from __future__ import annotations

import errno
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ttcompress.checkpoint.containers.foreign import ACCEPTED, explain_foreign_zip
from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.containers.torch_zip import Entries, ForeignZip
from ttcompress.checkpoint.recurrent import is_recurrent_name
from ttcompress.checkpoint.tensors import StoredTensor
from ttcompress.checkpoint.tree import Tree
from ttcompress.errors import CheckpointError
from ttcompress.system.text import clip

Read = Callable[[Path], Source]

ENDINGS = (".pt", ".pth", ".ckpt", ".th", ".tar", ".bin", ".pkl", ".safetensors")
"""Of files that are often models."""

MAX_LOOKED_INTO, MAX_MEMBER = 16, 2**28
"""Members of an archive that are opened, the largest first, and bytes of each."""


@dataclass(frozen=True)
class _Member:
    """A file in the archive: the bytes of its weights, and whether a recurrent layer has some."""

    name: str
    bytes: int
    recurrent: bool

    def describe(self) -> str:
        """Its name and the size of its weights."""
        return f"{clip(self.name)} ({self.bytes / 1e6:.1f} MB of weights)"


def explain_archive(path: Path, entries: Entries, read: Read) -> CheckpointError:
    """The error for a zip archive without a `data.pkl`: its models, those with most weights first.

    Optimizer state is no weight, however large it is.

    Args:
        path: the archive.
        entries: its directory.
        read: reads the structure of a member once that is unpacked, but not of another archive.
    """
    if known := explain_foreign_zip(path, entries):
        return known
    candidates = [entry for name, entry in entries.items() if name.endswith(ENDINGS)]
    if not candidates:
        return CheckpointError(
            f"is a zip archive without a data.pkl, so not a checkpoint. {ACCEPTED}"
        )
    candidates.sort(key=lambda entry: (-entry.file_size, entry.filename))
    members = [_look_into(path, entry, read) for entry in candidates[:MAX_LOOKED_INTO]]
    models = sorted(filter(None, members), key=lambda m: (not m.recurrent, -m.bytes, m.name))
    names = ", ".join(clip(entry.filename) for entry in candidates[:MAX_LOOKED_INTO])
    if not models:
        return CheckpointError(
            f"is a zip archive around {names}, but no weights can be read from any of them. "
            "Give the file that the trained model was saved to."
        )
    first, *others = models
    fact = "" if first.recurrent else "no recurrent layer in any of them; "
    more = f" Others with weights: {', '.join(one.describe() for one in others)}." if others else ""
    return CheckpointError(
        f"is a zip archive around several files; {fact}most weights are in {first.describe()}. "
        f"Unpack it with `python -m zipfile -e {path.name} .` and give {first.name}.{more}"
    )


def _look_into(path: Path, entry: zipfile.ZipInfo, read: Read) -> _Member | None:
    """Survey a member, unpacked for as long as that takes; None where it holds no weights."""
    if entry.file_size > MAX_MEMBER:
        return _Member(entry.filename, entry.file_size, recurrent=True)
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder) / "member"
        try:
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(entry) as packed,
                unpacked.open("wb") as file,
            ):
                shutil.copyfileobj(packed, file)
            tree = Tree(read(unpacked).root)
            found = tree.survey()
            tree.left_out = {id(branch.value) for branch in found.optimizers}
            weights = [
                (place[-1], leaf)
                for branch in found.state_dicts
                for place, leaf in tree.tensors(branch.value)
                if place and isinstance(leaf, StoredTensor) and leaf.is_weight
            ]
        except (
            CheckpointError,
            ForeignZip,
            zipfile.BadZipFile,
            zlib.error,
            RuntimeError,
            EOFError,
        ):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # the directory of the archive points nowhere
                return None
            raise
    if not weights:
        return None
    size = sum(leaf.bytes for _, leaf in weights)
    recurrent = any(is_recurrent_name(name) for name, _ in weights)
    return _Member(entry.filename, size, recurrent)
