"""The target C: whole models of the common structure and recurrent stacks, as C99 source files.

Weights are float32, or rounded to 8 or 4 bits with scales; `kernel.c` says how. Outputs are
compared with torch's by a library built of the same files, where there is a compiler.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from ttcompress.errors import RecipeError
from ttcompress.model.weights import Kind
from ttcompress.stores import STORES
from ttcompress.targets.target import Arrays, Part, Written

if TYPE_CHECKING:
    from ttcompress.targets.calls import Call


class C:
    """A `Target` whose files go into a folder."""

    name = "c"
    title = "C"
    folder = True
    finds_models = True
    whole_models = True
    kinds: frozenset[Kind] = frozenset(get_args(Kind))
    stores: Collection[str] = STORES  # a live view: also stores registered later
    roundings: tuple[str, ...] = ("int8", "int4")

    def with_options(self, options: Mapping[str, Any]) -> C:
        """It has none."""
        raise RecipeError(f"{next(iter(options))}: only ONNX has this option. Omit it.")

    def require(self) -> None:
        """Nothing is needed to write C."""

    def write(
        self, part: Part, facts: Mapping[str, str], quantize: str | None, name: str
    ) -> Written:
        """Write source files, a test and a page that explains them."""
        from ttcompress.targets.c.build import write_part  # imports torch
        from ttcompress.targets.c.writing import identifier  # numpy, which --help does not need

        return write_part(part, facts, quantize, identifier(name))

    def cannot_run(self) -> str:
        """Why nothing can be compiled here; empty if it can."""
        from ttcompress.targets.c.compiler import NO_COMPILER, find_compiler  # not for --help

        return "" if find_compiler() else f"there is {NO_COMPILER}"

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterator[Arrays]:
        """Compile and run the generated test, then the model on the inputs of each case."""
        from ttcompress.targets.c.build import run_files  # imports torch

        return run_files(written, call, cases)
