"""Defines a target: a runtime for which a compressed model, or one of its layers, is written.

A target is a folder with a class that has these members, and one line in `registry`. It writes
files in memory and runs them; the export workflow checks their outputs, in the same way for every
target. Nothing here imports torch, because the command line lists targets in its help.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ttcompress.model.weights import Kind, RecurrentStack

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from ttcompress.targets.calls import Call
    from ttcompress.trains.stored import StoredWeight

Arrays = Sequence["NDArray[Any]"]
"""The inputs of one call, or its outputs, in the order of their names."""


@dataclass(frozen=True, eq=False)
class Part:
    """A recurrent stack or the whole model, which is written by itself.

    Attributes:
        name: the path of the stack in the model, "" for the whole model.
        module: runs it in torch, with trains and in float32; a target must not modify it.
        call: how the module is called.
        weights: its compressed weights as stored, each with the names it would have in the state
            dict of a dense module; several if it is tied.
        stack: the geometry; None for the whole model.
    """

    name: str
    module: nn.Module
    call: Call
    weights: tuple[tuple[tuple[str, ...], StoredWeight], ...]
    stack: RecurrentStack | None = None


@dataclass(frozen=True)
class Written:
    """A part as files in memory.

    Attributes:
        files: content by suffix; "" is the file that the user names, ".h" the same path with this
            suffix instead. Of a target that writes folders, content by the name in the folder.
        holds: how many constant values there are in each type, the most first.
        memory: bytes by kind of memory ("flash", "ram"), of targets for which these differ.
        errors: what rounding lost of each weight by its name, relative to its Frobenius norm, of
            targets that round weights again.
        notes: sentences on what was chosen, such as how each layer runs.
    """

    files: Mapping[str, bytes]
    holds: Mapping[str, int]
    memory: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Target(Protocol):
    """A runtime to export to.

    Attributes:
        name: the name for `--as`.
        title: what messages call what it writes.
        folder: whether the user names a folder, and not a file.
        finds_models: whether a model of the common structure is written whole without a task.
        whole_models: whether it takes whole models, and not only recurrent stacks.
        kinds: the kinds of recurrent stacks that it takes.
        stores: the names of the stores that it takes weights in.
        roundings: values of `quantize`: types that products can run in, with rounded inputs.
    """

    name: str
    title: str
    folder: bool
    finds_models: bool
    whole_models: bool
    kinds: frozenset[Kind]
    stores: Collection[str]
    roundings: tuple[str, ...]

    def with_options(self, options: Mapping[str, Any]) -> Target:
        """The target with options of `export` that not every target has: "opset", "layers".

        Raises:
            RecipeError: it has no such option, or not this value of it.
        """

    def require(self) -> None:
        """Check that the packages for `write` and `run` are installed.

        Raises:
            MissingExtraError: a package is not installed.
        """

    def write(
        self, part: Part, facts: Mapping[str, str], quantize: str | None, name: str
    ) -> Written:
        """Write a part.

        Args:
            part: one that the target takes.
            facts: where the files come from, to be noted in them.
            quantize: one of `roundings`, or None.
            name: what the user calls it, any text.

        Raises:
            TTCompressError: the part cannot be written.
        """

    def cannot_run(self) -> str:
        """Why files cannot be run on this machine, and so not be checked; empty if they can."""

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterable[Arrays]:
        """Run the files on the inputs of each case, given in the order of the call.

        Raises:
            Exception: of any kind, if they do not run.
        """
