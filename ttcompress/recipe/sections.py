"""Sections of keys: frozen dataclasses that declare each of their keys once.

A field made by `declare` says how its value is written (a `Kind`), what it is for, and which option
of the command line replaces it. Everything else follows from that: `read_document` reads a section
from a YAML document and finds every problem in it, `reference.py` writes the JSON Schema and the
reference, `overrides.py` and `cli/arguments.py` make the options.

    class Recipe(Section):
        seed: int = declare(whole(0), "Seed of all random numbers.", "--seed", default=0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Final, TypeVar, dataclass_transform

from ttcompress.errors import RecipeError
from ttcompress.recipe.problems import Document, KeyPath, Problem, render
from ttcompress.recipe.wording import describe, suggest

Json = dict[str, Any]
Values = Mapping[str, Any]
"""Keys of a section that have been read; a wrong one is absent."""

WRONG: Final = object()
"""Stands for a value that could not be read; the problem has been noted."""


@dataclass(frozen=True)
class Place:
    """Where a value stands, the keys before it, and the problems found so far."""

    path: KeyPath
    around: Values
    problems: list[Problem]

    def wrong(self, message: str) -> object:
        """Note a problem here."""
        self.problems.append(Problem(self.path, message))
        return WRONG

    def below(self, part: str | int, around: Values) -> Place:
        """The place of a key or an item of the value here."""
        return Place((*self.path, part), around, self.problems)


@dataclass(frozen=True)
class Kind:
    """How a value is written.

    `read` gives the Python value, or notes a problem at its place and gives `WRONG`. `words` are
    what the reference calls such a value, with its unit. `schema` is JSON Schema that holds for
    whatever can be read, and `option_type` what the command line reads an option as. `section` is
    set where the value is one.
    """

    read: Callable[[Any, Place], Any]
    words: str
    schema: Json
    option_type: type = str
    section: type[Section] | None = None


@dataclass(frozen=True)
class Key:
    """One key of a section; see `declare`."""

    kind: Kind
    help: str
    option: str
    default: Any
    check: Callable[[Any, Values, Values], Any] | None
    missing: str
    rest: bool

    @property
    def schema(self) -> Json:
        """JSON Schema of the value, with help and default."""
        default = getattr(self.default, "written", self.default)  # a drop as text
        shown = {"default": default} if isinstance(default, str | int | float) else {}
        return self.kind.schema | {"description": self.help} | shown


def declare(
    kind: Kind,
    help: str,
    option: str = "",
    *,
    default: Any = None,
    check: Callable[[Any, Values, Values], Any] | None = None,
    missing: str = "",
    rest: bool = False,
) -> Any:
    """Declare a key as a field of a `Section`.

    Args:
        kind: how its value is written.
        help: what it is for, in a sentence.
        option: the option that replaces it, with its metavar: `--size SIZE`.
        default: its value where it is left out.
        check: called with the value (or the default), the keys before it, and those before its
            section; returns the value to keep, or raises `RecipeError`.
        missing: for a key that must be there: what to write.
        rest: the field holds every key that the section does not know; it is not a key itself.
    """
    declared = Key(kind, help, option, default, check, missing, rest)
    return field(default=MISSING if missing else default, metadata={"key": declared})


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Section:
    """A group of keys. One made in Python is checked in the same way as one in a file."""

    KEYS: ClassVar[Mapping[str, Key]] = {}

    def __init_subclass__(cls) -> None:
        made: Any = dataclass(frozen=True, kw_only=True)(cls)
        cls.KEYS = {field.name: field.metadata["key"] for field in fields(made) if field.metadata}

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for name, value in _read_keys(type(self), vars(self), Place((), {}, problems)).items():
            object.__setattr__(self, name, value)
        if problems:
            raise ValueError(render(type(self).__name__, problems))


S = TypeVar("S", bound=Section)


def read_document(
    section: type[S],
    document: Document,
    place: str,
    example: str,
    options: Mapping[KeyPath, str] | None = None,
) -> S:
    """The section that a document holds.

    Args:
        section: its class.
        document: what was read, with the problems met so far.
        place: the document's name in the error: its file, or the options given.
        example: the smallest valid document, shown to the user.
        options: the option that a key's value came from, for the error to name.

    Raises:
        RecipeError: every problem, each with its key and, from a file, its line.
    """
    problems, made = [*document.problems], None
    if isinstance(document.value, Mapping):
        made = _read_section(section, document.value, Place((), {}, problems))
    elif not problems:
        found = f"expected keys, got {describe(document.value)}."
        fact = "the document is empty." if document.value is None else found
        problems.append(Problem((), f"{fact}\n{example}"))
    if problems:
        raise RecipeError(render(place, problems, document.lines, options))
    assert isinstance(made, section)
    return made


def _read_section(section: type[S], given: Mapping[str, Any], place: Place) -> S | object:
    known = [name for name, key in section.KEYS.items() if not key.rest]
    strange = {name: value for name, value in given.items() if name not in known}
    for name, key in section.KEYS.items():
        if key.rest:
            given, strange = {**given, name: strange}, {}
    for name in strange:
        cure = suggest(name, known) or f" Known keys: {', '.join(known)}."
        place.below(str(name), {}).wrong(f"unknown key.{cure}")
    before = len(place.problems)
    values = _read_keys(section, given, place)
    return section(**values) if len(place.problems) == before else WRONG


def _read_keys(section: type[Section], given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The values of all keys that can be read; None is a key left out."""
    values: dict[str, Any] = {}
    for name, key in section.KEYS.items():
        here = place.below(name, values)
        if key.rest:
            here = Place(place.path, values, place.problems)
        if (value := given.get(name)) is not None:
            value = key.kind.read(value, here)
        elif key.missing:
            value = here.wrong(f"missing. {key.missing}")
        else:
            value = key.default
        if value is not WRONG and key.check is not None:
            try:
                value = key.check(value, values, place.around)
            except RecipeError as error:
                value = here.wrong(str(error))
        if value is not WRONG:
            values[name] = value
    return values


def value(parse: Callable[[Any], Any], words: str, schema: Json, option_type: type = str) -> Kind:
    """A single value; `parse` raises `RecipeError` with the fact and the cure."""

    def read(value: Any, place: Place) -> Any:
        try:
            return parse(value)
        except RecipeError as error:
            return place.wrong(str(error))

    return Kind(read, words, schema, option_type)


def list_of(item: Kind, words: str = "a list") -> Kind:
    """A list of values of one kind."""

    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, list | tuple):
            return place.wrong(f"expected {words}, got {describe(value)}.")
        items = [item.read(one, place.below(k, place.around)) for k, one in enumerate(value)]
        return WRONG if any(one is WRONG for one in items) else tuple(items)

    return Kind(read, words, {"type": "array", "items": item.schema}, section=item.section)


def section_of(
    section: type[Section],
    short: str = "",
    switch: bool = False,
    wrong: str = "expected keys with values, got {}.",
) -> Kind:
    """The keys of a section.

    Text alone is the value of the key `short`. If the section is a `switch`, `true` stands for all
    of its defaults and `false` for no section. `wrong` is the message for anything else.
    """

    def read(value: Any, place: Place) -> Any:
        if switch and isinstance(value, bool):
            return section() if value else None
        if short and isinstance(value, str):
            value = {short: value}
        if isinstance(value, section):
            return value
        if not isinstance(value, Mapping):
            return place.wrong(wrong.format(describe(value)))
        return _read_section(section, value, place)

    keys = section.KEYS.items()
    schema: Json = {
        "type": "object",
        "properties": {name: key.schema for name, key in keys if not key.rest},
        "required": [name for name, key in keys if key.missing],
        "additionalProperties": next((key.schema for _, key in keys if key.rest), False),
    }
    if short:
        schema = {"anyOf": [section.KEYS[short].kind.schema, schema]}
    if switch:
        schema = {"anyOf": [{"type": "boolean"}, schema]}
    words = "keys" + f", or its {short} alone" * bool(short) + ", or `true` or `false`" * switch
    return Kind(read, words, schema, bool if switch else str, section)
