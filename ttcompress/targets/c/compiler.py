"""Finds a C compiler and builds libraries with it: `find_compiler`, `compile_files`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ttcompress.errors import MissingExtraError, TTCompressError

FAST = ("-O3", "-march=native", "-ffp-contract=fast")
"""Flags for this machine."""

QUICK = ("-O1", *FAST[1:])
"""The same instructions, compiled in half the time: for a check."""

NO_COMPILER = "no cc, gcc or clang here, or not what CC names"

SECONDS = 600
"""A compiler that takes longer is stopped."""


def find_compiler() -> tuple[str, ...] | None:
    """The command of a C compiler: what `CC` names, else the first of Python's own, cc, gcc and
    clang that is there; None without.
    """
    if named := shlex.split(os.environ.get("CC", "")):
        return tuple(named) if shutil.which(named[0]) else None
    own = shlex.split(sysconfig.get_config_var("CC") or "")[:1]  # without Python's flags
    for command in (*own, "cc", "gcc", "clang"):
        if shutil.which(command):
            return (command,)
    return None


def require_compiler(what: str) -> tuple[str, ...]:
    """The command of a C compiler, which `what` needs.

    Raises:
        MissingExtraError: there is none.
    """
    if (found := find_compiler()) is None:
        raise MissingExtraError(
            f"{what} needs a C compiler, but there is {NO_COMPILER}. Install one, or give its "
            "command in the environment variable CC."
        )
    return found


def compile_files(
    files: Mapping[str, bytes],
    sources: Sequence[str],
    output: Path,
    flags: Sequence[str] = FAST,
    *,
    link: Sequence[str] = (),
) -> None:
    """Compile sources of `files` into a program or, with `-shared` in `link`, a library.

    Raises:
        MissingExtraError: there is no compiler.
        TTCompressError: it refuses the code, or takes too long.
    """
    command = require_compiler("building C code")
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        tried = [tuple(flags), tuple(f for f in flags if not f.startswith("-march="))]
        for chosen in dict.fromkeys(tried):  # not every compiler knows -march=native
            made = _compile((*command, "-std=c99", *chosen, *sources, *link), folder, output)
            if not made:
                return
    first = next((line for line in made.splitlines() if "error" in line), made.strip()[-300:])
    raise TTCompressError(f"{command[0]} does not compile the C code: {first}")


def _compile(command: Sequence[str], folder: str, output: Path) -> str:
    """Run a compiler in a folder; return what it says if it fails, else nothing."""
    try:
        done = subprocess.run(
            [*command, "-o", str(output.absolute())],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"error: not done after {SECONDS} seconds"
    return (done.stderr or f"error: exit code {done.returncode}") if done.returncode else ""
