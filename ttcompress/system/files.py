"""Checks paths, reads parts of files, and writes files completely or not at all.

An output is written to a temporary file beside its target and then renamed. So a target that is a
symbolic link is replaced, and the file that it points to stays as it is.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from ttcompress.errors import CheckpointError, InputError, OutputError, OutputPathError, unreadable

if sys.platform != "win32":
    import fcntl

_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9]) *(\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices, whatever follows the first dot."""


@dataclass(frozen=True)
class FileBytes:
    """`size` bytes of a file, from byte `start` on, that are read on demand."""

    path: Path
    start: int
    size: int

    def read(self, start: int, stop: int) -> bytearray:
        """The bytes from `start` up to `stop`; the file is open only while they are read.

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
                f"ends early: expected {len(buffer)} bytes at {self.start + start}, got {got}. "
                "Copy or download the file again."
            )
        return buffer


def check_input(path: Path, wanted: str) -> None:
    """Refuse what is not a regular file: a pipe or a device may never end.

    Args:
        path: may lead there by symbolic links.
        wanted: what to give instead, such as "a compressed .safetensors file".

    Raises:
        InputError: the path does not exist, or is a folder, a pipe or a device.
        TTCompressError: the system does not allow the check.
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
        "is a folder" if stat.S_ISDIR(mode) else "is not a regular file" if mode else "no such file"
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
        raise OutputPathError(
            f"{path}: no file can be written there ({error}). Choose another -o."
        ) from error
    if path.is_dir():
        raise OutputPathError(f"{path}: is a folder. Give the name of a file in it.")
    if sys.platform == "win32" and _DEVICE.fullmatch(path.name):
        raise OutputPathError(
            f"{path}: Windows keeps this name for a device. Choose another name with -o."
        )
    if not path.parent.is_dir():
        raise OutputPathError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    if os.path.lexists(path) and not overwrite:  # even a broken link belongs to someone
        raise OutputPathError(f"{path}: already exists. Use --overwrite, or choose another -o.")


def check_folder(path: Path, overwrite: bool) -> None:
    """Refuse a path that shall be a folder of files, before any work is done for it.

    Raises:
        OutputPathError: it is a file, its parent is missing, or it holds something and `overwrite`
            is not given.
    """
    if not path.is_dir():
        check_output(path, overwrite=False)
    elif not overwrite and any(path.iterdir()):
        raise OutputPathError(f"{path}: is not empty. Use --overwrite, or choose another -o.")


def make_folder(path: Path, another: str) -> None:
    """Make a folder and those above it.

    Args:
        path: of the folder, which may exist.
        another: what to give for another one, such as "--folder".

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be made: {error.strerror or error}. Choose another {another}."
        ) from error


@contextmanager
def written_whole(path: Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Give a binary file that replaces `path` if the block succeeds, and is deleted otherwise.

    Temporary files that a killed writer of the same path left behind are removed first.

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
        # torch.save fails twice on a full disk: at the write, and as it closes what it wrote.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OutputError(_fact(path, cause)) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _create(path: Path) -> tuple[int, str]:
    """Create a locked temporary file beside `path`; return its descriptor and its name."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with suppress(OSError):  # without locks, nothing is removed either
            _lock(handle, wait=True)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # another writer removed it before it was locked


def _lock(handle: int, wait: bool) -> None:
    """Lock a file while this process lives, so that others know that it is being written."""
    if sys.platform != "win32":
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _clear_remains(path: Path) -> None:
    """Remove the temporary files that no living process has locked."""
    found = path.parent.glob(f".{glob.escape(path.name)}.*.part")
    for remains in filter(Path.is_file, found):  # opening a pipe would wait for its other end
        with suppress(OSError), remains.open("rb") as file:
            _lock(file.fileno(), wait=False)
            remains.unlink()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_stem(path: PurePath) -> str:
    """What a model is called in the names of files made from it.

    >>> model_stem(Path("runs/charlm.pt")), model_stem(Path("model.safetensors.index.json"))
    ('charlm', 'model')
    """
    name = path.name.removesuffix(".safetensors.index.json")
    return name if name != path.name else path.stem


def _fact(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"{path}: the disk is full; nothing was written. Free some space, or choose another -o."
        )
    return f"{path}: cannot be written: {error.strerror or error}. Choose another -o."


def _umask() -> int:
    """The permissions that a new file does not get by default (`mkstemp` gives others none)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
