"""Reads the files a user gives a task, to train on and to measure on, and checks its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

from ttcompress.errors import InputError, RecipeError, unreadable
from ttcompress.system.files import check_input

TRAINED_SHARE = 0.9


class Items(Protocol):
    """Data that can be split: a list, or anything that has slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Self: ...


Data = TypeVar("Data", bound=Items)


@dataclass(frozen=True)
class DataFiles:
    """A task's data: one file that is split in two, or one file for each part.

    Attributes:
        task: for messages.
        option: the name of the option that `whole` came from.
        whole: the first 90 % of its items are trained on, the last 10 % held out.
        train: a file to train on.
        valid: a file to measure on.
    """

    task: str
    option: str
    whole: str | None
    train: str | None
    valid: str | None

    def __post_init__(self) -> None:
        if self.whole is None and self.valid is None:
            raise RecipeError(
                f"task {self.task}: no data to measure on. Give `{self.option}: FILE` (its "
                "last tenth is held out), or `train: FILE` and `valid: FILE`."
            )
        if self.whole is not None and (self.train or self.valid):
            raise RecipeError(
                f"task {self.task}: {self.option} and {'train' if self.train else 'valid'} are "
                f"both given. Give either {self.option}, or train and valid."
            )

    def read_train(self, read: Callable[[str], Data]) -> Data:
        """The items to train on.

        Raises:
            RecipeError: only a file to measure on was given, or there is nothing to train on.
        """
        path = self.whole or self.train
        if path is None:
            raise RecipeError(
                f"task {self.task}: there is no data to train on, only valid. Give `train: FILE`."
            )
        items = read(path)
        return items[: _cut(items)] if self.whole else items

    def read_held_out(self, read: Callable[[str], Data]) -> Data:
        """The items to measure on."""
        if self.whole is None:
            return read(str(self.valid))
        items = read(self.whole)
        return items[_cut(items) :]


def read_text(path: str | Path, task: str) -> str:
    """The text of a file in UTF-8, with plain line ends.

    Raises:
        InputError: there is no such file.
        RecipeError: it is empty, or not UTF-8.
        TTCompressError: it cannot be read.
    """
    path = Path(path)
    try:
        check_input(path, "a file with data")
        text = path.read_text(encoding="utf-8-sig")
    except InputError as error:
        raise error.at(f"task {task}") from error
    except OSError as error:
        raise unreadable(path, error).at(f"task {task}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"task {task}: {path}: is not UTF-8 text (at byte {error.start}). Convert it to UTF-8."
        ) from error
    if not text.strip():
        raise RecipeError(f"task {task}: {path}: is empty. Give a file with data in it.")
    return text


def check_positive(task: str, **options: object) -> None:
    """Check counts that a user gave.

    Raises:
        RecipeError: one is not a whole number above zero.
    """
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RecipeError(
                f"task {task}: {name}: expected a whole number of at least 1, got {value!r}. "
                f"Write, for example, `{name}: 32`."
            )


def check_choice(task: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check a word that a user gave.

    Raises:
        RecipeError: it is not one of the choices.
    """
    if value not in choices:
        raise RecipeError(
            f"task {task}: {name}: expected one of {', '.join(choices)}, got {value!r}."
        )


def _cut(items: Items) -> int:
    return int(TRAINED_SHARE * len(items))
