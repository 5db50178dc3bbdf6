"""What a target is: something that a compressed model, or a recurrent layer of it, is written for.

A target is one folder with a class that has these members, and one line in `registry`. It writes
files in memory and runs them; whether their outputs are right is checked by whoever exports, in the
same way for every target. Nothing here imports torch: the command line names targets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    """What becomes a file by itself: a recurrent stack, or the whole model.

    Attributes:
        name: the path of the stack in the model, "" for the whole model.
        module: runs it in torch, with trains and in float32; a target leaves it as it is.
        call: how the module is called.
        weights: the compressed weights in it as they are stored, each with its names in the
            module's state dict, were it dense; several where it is tied.
        stack: the geometry, None for the whole model.
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
        files: their content by suffix; "" is the file that the user names, and ".h" one beside it
            with this suffix in place of its own.
        holds: how many constant values there are in each type, the most first.
    """

    files: Mapping[str, bytes]
    holds: Mapping[str, int]


class Target(Protocol):
    """Something to export to.

    Attributes:
        name: as `--as` takes it.
        whole_models: whether it takes whole models, beside recurrent stacks by themselves.
        kinds: the kinds of recurrent stacks that it takes by themselves.
        stores: the names of the stores that it takes weights in.
        roundings: what `quantize` may be: types that products can run in, inputs rounded too.
    """

    name: str
    whole_models: bool
    kinds: frozenset[Kind]
    stores: Collection[str]
    roundings: tuple[str, ...]

    def require(self) -> None:
        """Refuse to go on without what `write` and `run` need.

        Raises:
            MissingExtraError: a package is not installed.
        """

    def write(self, part: Part, facts: Mapping[str, str], quantize: str | None) -> Written:
        """Write a part.

        Args:
            part: one that the target takes.
            facts: what the files should say of where they come from.
            quantize: one of `roundings`, or None.

        Raises:
            TTCompressError: the part cannot be written.
        """

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterable[Arrays]:
        """Run what was written on the inputs of each case, in the order of the call.

        Raises:
            Exception: of any kind, where it does not run.
        """
