"""A reader of single values comes in; what pydantic calls with a key's value goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator

from ttcompress.errors import RecipeError
from ttcompress.recipe.units import number_that, parse_count

# Every default is validated too: it is how a key that is absent is compared with its neighbours.
CONFIG = ConfigDict(validate_default=True, arbitrary_types_allowed=True)


def reader(parse: Callable[[Any], object], *, required: bool = False) -> PlainValidator:
    """A reader of `units` for pydantic: ValueError is a problem; None, unless `required`, absence.

    An item of a list is never absent.
    """

    def validate(value: object) -> object:
        try:
            return None if value is None and not required else parse(value)
        except RecipeError as error:
            raise ValueError(str(error)) from error

    return PlainValidator(validate)


def number(holds: Callable[[float], bool], fact: str, cure: str) -> PlainValidator:
    """A reader of numbers for which something holds: see `number_that`."""
    return reader(number_that(holds, fact, cure))


Count = Annotated[int | None, reader(parse_count)]
