"""A pickle enters, plain data leaves; nothing in the pickle is imported, called or evaluated.

A pickle is a program for a stack machine. Python's own machine calls what the program names; this
one cannot. A name becomes a `Global`, two strings. "Call this with these arguments" is looked up in
a table of builders by those strings; what is not in the table becomes a `PickledObject`, a record of what
the pickle said about an object. `pickletools.genops` takes the program apart and bounds every
length by what the stream holds.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, BinaryIO

from ttcompress.checkpoint.pickle.objects import (
    Buildable,
    Builder,
    Global,
    PickledObject,
    check_key,
    named,
)
from ttcompress.errors import CheckpointError

MAX_OPCODES = 20_000_000
"""About 3 million vocabulary entries; bounds the memory that a small hostile pickle can claim."""

COPIES, ALLOWANCE = 4, 16 * 2**20
"""Bytes that builders may copy: so many times those read, and an allowance for short pickles."""

COSTS = {"EMPTY_SET": 16, "FROZENSET": 16, "EMPTY_DICT": 4, "DICT": 4, "EMPTY_LIST": 4, "LIST": 4}
"""Instructions that make a few hundred bytes out of one count for several."""

_COPY_COST = 4
"""Of each element of a list or dictionary that is copied: in a set it takes some 60 bytes."""

_DAMAGE = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RecursionError,
)


@dataclass
class Spent:
    """Instructions so far, over all pickles that share it: one can hold others, again and again."""

    instructions: int = 0


class PickleReader:
    """The stack machine for one pickle.

    `builders` maps "module.name" to what may be built; `persistent` resolves the ids that stand for
    storages; `spent` counts. After `read`, `unloaded` names every class that was met and not built.
    """

    def __init__(
        self, builders: Mapping[str, Builder], persistent: Callable[[Any], Any], spent: Spent
    ) -> None:
        self.builders = builders
        self.persistent = persistent
        self.spent = spent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.unloaded: dict[str, None] = {}
        self.copied = 0

    def read(self, stream: BinaryIO) -> Any:
        """Read one pickle; the stream is left right behind it.

        Raises:
            CheckpointError: the pickle is damaged, hostile, or uses what no checkpoint uses.
        """
        try:
            for opcode, argument, at in pickletools.genops(stream):
                self.spent.instructions += COSTS.get(opcode.name, 1)
                if self.spent.instructions > MAX_OPCODES:
                    raise CheckpointError(
                        f"its pickle weighs over {MAX_OPCODES:,} instructions; no checkpoint needs "
                        "so many. Save the state dict alone."
                    )
                if self.copied > COPIES * (at or 0) + ALLOWANCE:
                    raise CheckpointError(
                        f"its pickle makes {self.copied:,} bytes of text out of {at:,}: refused as "
                        "a bomb. Save the state dict alone."
                    )
                ACTIONS[opcode.name](self, argument)
            return self.stack.pop()
        except _DAMAGE as error:
            raise CheckpointError(
                f"its pickle is damaged ({type(error).__name__}: {str(error)[:120]}). "
                "Copy or download the file again."
            ) from error

    def pop_marked(self) -> list[Any]:
        """Everything pushed since the last mark."""
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def weigh(self, values: Iterable[Any]) -> None:
        """Count what a builder copies of its arguments, which one name can stand for many times."""
        for value in values:
            if isinstance(value, bytes | bytearray | str):
                self.copied += len(value)
            elif isinstance(value, Sized):
                self.spent.instructions += _COPY_COST * len(value)

    def make(self, target: Any, args: Iterable[Any]) -> Any:
        """What the pickle would get by calling `target`: built by the table, or else a stub."""
        args = tuple(args)
        self.weigh(args)
        if isinstance(target, Global):
            builder = self.builders.get(str(target))
            if builder is not None:
                return builder(*args)
            self.unloaded[str(target)] = None
            return PickledObject(target, args)
        if isinstance(target, PickledObject):
            return PickledObject(target.cls, args)
        raise TypeError(f"{type(target).__name__} is called")


def _set_pairs(target: Any, flat: list[Any]) -> None:
    pairs = target.pairs if isinstance(target, PickledObject) else target
    if not isinstance(pairs, dict):
        raise TypeError(f"{type(target).__name__} is given keys")
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        pairs[check_key(key)] = value


def _extend(target: Any, items: list[Any]) -> None:
    target = target.items if isinstance(target, PickledObject) else target
    if isinstance(target, set):
        target.update(check_key(item) for item in items)
    elif isinstance(target, list):
        target.extend(items)
    else:
        raise TypeError(f"{type(target).__name__} is given items")


def _dictionary(flat: list[Any]) -> dict[Any, Any]:
    pairs: dict[Any, Any] = {}
    _set_pairs(pairs, flat)
    return pairs


Action = Callable[[PickleReader, Any], None]


def _push(build: Callable[[PickleReader, Any], Any]) -> Action:
    return lambda machine, argument: machine.stack.append(build(machine, argument))


def _pass(machine: PickleReader, argument: Any) -> None:
    """Framing and protocol numbers change nothing."""


def _mark(machine: PickleReader, argument: Any) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _pop(machine: PickleReader, argument: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_marked()


def _collect(build: Callable[[list[Any]], Any]) -> Action:
    def action(machine: PickleReader, argument: Any) -> None:
        items = machine.pop_marked()
        machine.stack.append(build(items))

    return action


def _tuple_of(count: int) -> Action:
    def action(machine: PickleReader, argument: Any) -> None:
        items = [machine.stack.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return action


def _into_top(fill: Callable[[Any, list[Any]], None], count: int | None) -> Action:
    """Give the object on top of the stack the last `count` values, or all since the mark."""

    def action(machine: PickleReader, argument: Any) -> None:
        if count is None:
            items = machine.pop_marked()
        else:
            items = [machine.stack.pop() for _ in range(count)][::-1]
        fill(machine.stack[-1], items)

    return action


def _put(machine: PickleReader, argument: Any) -> None:
    machine.memo[argument] = machine.stack[-1]


def _memoize(machine: PickleReader, argument: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _reduce(machine: PickleReader, argument: Any) -> None:
    args, target = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.make(target, args))


def _new_object_with_names(machine: PickleReader, argument: Any) -> None:
    named, args, target = (machine.stack.pop() for _ in range(3))
    made = machine.make(target, args)
    if named and isinstance(made, PickledObject):
        made.build(named)
    machine.stack.append(made)


def _object(machine: PickleReader, argument: Any) -> None:
    target, *args = machine.pop_marked()
    machine.stack.append(machine.make(target, args))


def _instance(machine: PickleReader, argument: str) -> None:
    args = machine.pop_marked()
    machine.stack.append(machine.make(named(*argument.split(" ", 1)), args))


def _stack_global(machine: PickleReader, argument: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(named(module, name))


def _build(machine: PickleReader, argument: Any) -> None:
    """State for an object that keeps none, such as the versions on a state dict, is left out."""
    state = machine.stack.pop()
    if isinstance(state, tuple):
        machine.weigh(state)
    if isinstance(target := machine.stack[-1], Buildable):
        target.build(state)


# fmt: off
_LITERALS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)
# fmt: on

# Not here, and so "damaged": extension codes and out-of-band buffers, which no saved file can use.
ACTIONS: dict[str, Action] = {
    **dict.fromkeys(_LITERALS, _push(lambda machine, argument: argument)),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _pass),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _push(lambda machine, at: machine.memo[at])),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
    "NONE": _push(lambda machine, argument: None),
    "NEWTRUE": _push(lambda machine, argument: True),
    "NEWFALSE": _push(lambda machine, argument: False),
    "EMPTY_LIST": _push(lambda machine, argument: []),
    "EMPTY_TUPLE": _push(lambda machine, argument: ()),
    "EMPTY_DICT": _push(lambda machine, argument: {}),
    "EMPTY_SET": _push(lambda machine, argument: set()),
    "DUP": _push(lambda machine, argument: machine.stack[-1]),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, argument: machine.pop_marked().clear(),
    "LIST": _collect(list),
    "TUPLE": _collect(tuple),
    "DICT": _collect(_dictionary),
    "FROZENSET": _collect(lambda items: frozenset(check_key(item) for item in items)),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _into_top(_extend, 1),
    "APPENDS": _into_top(_extend, None),
    "ADDITEMS": _into_top(_extend, None),
    "SETITEM": _into_top(_set_pairs, 2),
    "SETITEMS": _into_top(_set_pairs, None),
    "MEMOIZE": _memoize,
    "GLOBAL": _push(lambda machine, argument: named(*argument.split(" ", 1))),
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object,
    "NEWOBJ_EX": _new_object_with_names,
    "BUILD": _build,
    "PERSID": _push(lambda machine, argument: machine.persistent(argument)),
    "BINPERSID": _push(lambda machine, argument: machine.persistent(machine.stack.pop())),
}
