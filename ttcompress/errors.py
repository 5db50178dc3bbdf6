"""Every error a user of ttcompress can meet.

    TTCompressError
      RecipeError          the recipe (an option, a manifest) is wrong; lists every problem
        PlanError          recipe and model do not fit each other, or the budget is out of reach
        TaskError          a user's task raised an exception; names its file and line
      OutputError          the output cannot be written where it was asked for
        OutputPathError    it exists already, or its folder does not
      CheckpointError      the checkpoint cannot be read, or holds nothing to compress
        DecompositionError a weight cannot be decomposed (NaN, infinity, overflow); names the weight
      ArtifactError        a compressed file is damaged, or of another format version
      MissingExtraError    a feature needs an optional dependency that is not installed
      TrainingError        fine-tuning went wrong (the loss is not finite); names the step
      InputError           a path that does not exist, or a folder where a file is needed
      OutOfMemoryError     the machine has too little memory; names what was too large

A message says where, what is wrong with both numbers, and what to do. Inner code raises the bare
fact; the layer that knows the file or the weight adds it with `at`. Each class has the exit code of
the command line, so that Python and the shell agree.

    try:
        ttcompress.compress("model.pt", recipe)
    except ttcompress.TTCompressError as error:
        print(error, "->", error.exit_code)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Self

BROKEN_LIMIT, PARTLY_FAILED = 4, 5
"""Exit codes without an error: a limit was broken, or some jobs of a batch failed."""


class TTCompressError(Exception):
    """Base of every error that is not a defect in ttcompress."""

    exit_code: ClassVar[int] = 1

    def at(self, place: str) -> Self:
        """The same error with its place in front: `lstm.weight_hh_l0: holds NaN`."""
        return type(self)(f"{place}: {self}")


class InputError(TTCompressError):
    """A path does not exist, or is a folder where a file is needed."""

    exit_code = 2


class RecipeError(TTCompressError):
    """The recipe or an option is wrong; the message holds every problem found."""

    exit_code = 2


class PlanError(RecipeError):
    """Recipe and model do not fit: a dead rule, wrong modes, a budget out of reach."""


class TaskError(RecipeError):
    """A user's task raised an exception, the cause of this one; names its file and line."""


class MissingExtraError(TTCompressError):
    """A feature needs an extra of the package that is not installed; the message names it."""

    exit_code = 2


class OutputError(TTCompressError):
    """The output could not be written (disk full, no permission); nothing was left behind."""


class OutputPathError(OutputError):
    """The output exists and `--overwrite` was not given, or its folder is missing."""

    exit_code = 2


class CheckpointError(TTCompressError):
    """The checkpoint is damaged, unsafe, of an unknown kind, or without weights."""

    exit_code = 3


class DecompositionError(CheckpointError):
    """A weight cannot be decomposed: it holds NaN or infinity, or overflows its store."""


class TrainingError(TTCompressError):
    """Fine-tuning cannot continue: the loss is not finite; the message names the step."""


class ArtifactError(TTCompressError):
    """A compressed file is damaged, is not a ttcompress artifact, or has a newer format version."""

    exit_code = 3


class OutOfMemoryError(TTCompressError):
    """The machine has too little memory for what the message names."""


def check_ordinary(path: str | Path, cure: str) -> None:
    """Refuse a pipe or a device, which may never end; a missing file is left to its reader.

    Raises:
        InputError: it exists, but is not a regular file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: is not a regular file. {cure}")


def unreadable(path: str | Path, error: OSError) -> TTCompressError:
    """The error for a file that the system does not let us read."""
    return TTCompressError(
        f"{path}: cannot be read: {error.strerror or error}. Check its permissions and the disk."
    )
