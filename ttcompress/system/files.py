"""Checks paths, reads parts of files, and writes files whole or not at all.

An output is a temporary file beside its target, then a rename. So a target that is a symbolic link
is replaced, and what it leads to, which may lie anywhere, stays as it is.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ttcompress.errors import CheckpointError, InputError, OutputError, OutputPathError, unreadable

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class FileBytes:
    """`size` bytes of a file, from byte `start` on, that are read on demand."""

    path: Path
    start: int
    size: int

    def read(self, start: int, stop: int) -> bytearray:
        """The bytes from `start` up to `stop`; the file is open only meanwhile.

        Raises:
            CheckpointError: the file ends before the part does.
            OSError: the file cannot be read.
        """
        buffer = bytearray(stop - start)
        with self.path.open("rb") as file:
            file.seek(self.start + start)
            got = file.readinto(buffer)
        if got != len(buffer):
            raise CheckpointError(
                f"ends early: {len(buffer)} bytes expected at {self.start + start}, {got} there. "
                "Copy or download the file again."
            )
        return buffer


def check_input(path: Path, wanted: str) -> None:
    """Refuse what is no file: a pipe or a device may never end.

    Args:
        path: may lead there by symbolic links.
        wanted: what to give instead, as "a compressed .safetensors file".

    Raises:
        InputError: nothing is there, or it is a folder, a pipe or a device.
        TTCompressError: what is there cannot be looked at.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, ValueError):  # or a name with a NUL in it
        mode = 0
    except OSError as error:
        raise unreadable(path, error) from error
    if stat.S_ISREG(mode):
        return
    fact = (
        "is a folder" if stat.S_ISDIR(mode) else "is no ordinary file" if mode else "no such file"
    )
    raise InputError(f"{path}: {fact}. Give the path of {wanted}; you are in {Path.cwd()}.")


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a path before any work is done for it.

    Raises:
        OutputPathError: it is a folder, its folder is missing, or it exists without `overwrite`.
    """
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, a NUL in it, a file as its folder
        raise OutputPathError(f"{path}: no file can be there ({error}). Use another -o.") from error
    if path.is_dir():
        raise OutputPathError(f"{path}: is a folder. Give the name of a file in it.")
    if not path.parent.is_dir():
        raise OutputPathError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    if os.path.lexists(path) and not overwrite:  # a link that leads nowhere is someone's too
        raise OutputPathError(f"{path}: exists already. Use --overwrite, or another -o.")


@contextmanager
def written_whole(path: Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and vanishes if not.

    What a killed writer of the same path left is cleared away first.

    Raises:
        OutputPathError: see `check_output`.
        OutputError: the disk is full or the folder is not writable.
    """
    check_output(path, overwrite)
    try:
        _clear_remains(path)
        handle, name = _create(path)
    except OSError as error:
        raise OutputError(_fact(path, error)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except (OSError, RuntimeError) as error:
        # torch.save meets a full disk twice: as the write fails, and as it closes what it wrote.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OutputError(_fact(path, cause)) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _create(path: Path) -> tuple[int, str]:
    """A temporary file beside `path` that others know to be in use: its descriptor and its name."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with suppress(OSError):  # where locks are unknown, nothing is cleared away either
            _lock(handle, wait=True)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # another writer of `path` took it for a remain before it was held


def _lock(handle: int, wait: bool) -> None:
    """Hold a file as long as this process lives: so others know that it is being written."""
    if sys.platform != "win32":
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _clear_remains(path: Path) -> None:
    """Remove the temporary files that no living process holds."""
    found = path.parent.glob(f".{glob.escape(path.name)}.*.part")
    for remains in filter(Path.is_file, found):  # opening a pipe would wait for its other end
        with suppress(OSError), remains.open("rb") as file:
            _lock(file.fileno(), wait=False)
            remains.unlink()


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_stem(path: Path) -> str:
    """What a model is called in the names of files made from it.

    >>> model_stem(Path("runs/charlm.pt")), model_stem(Path("model.safetensors.index.json"))
    ('charlm', 'model')
    """
    name = path.name.removesuffix(".safetensors.index.json")
    return name if name != path.name else path.stem


def _fact(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path}: the disk is full; nothing was written. Free some space, or use another -o."
    return f"{path}: cannot be written: {error.strerror or error}. Use another -o."


def _umask() -> int:
    """The permissions that an ordinary new file would not get (`mkstemp` gives none to others)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
