"""Reads a pickle as plain data; nothing in it is imported, called or evaluated.

A pickle is a program for a stack machine. Python's own machine calls what the program names; this
one cannot. A name becomes a `Global`, two strings. "Call this with these arguments" is looked up in
a table of builders by those strings; what is not in the table becomes a `PickledObject`, which only
records what the pickle said about an object. `pickletools.genops` decodes the program and checks
every length against what the stream holds.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ttcompress.checkpoint.pickle.objects import DAMAGE, Builder, Global, PickledObject, check_key
from ttcompress.errors import CheckpointError

MAX_OPCODES = 20_000_000
"""About 3 million vocabulary entries; bounds the memory that a small hostile pickle can claim."""

COPIES, ALLOWANCE = 4, 16 * 2**20
"""Bytes that builders may copy: this many times those read, plus an allowance for short pickles."""

COSTS = {"EMPTY_SET": 16, "FROZENSET": 16, "EMPTY_DICT": 4, "DICT": 4, "EMPTY_LIST": 4, "LIST": 4}
"""Instructions that turn one byte into a few hundred count as several."""

_COPY_COST = 4
"""The cost of each element of a list or dictionary copied: in a set it takes some 60 bytes."""


@dataclass
class InstructionCount:
    """Instructions so far, over all pickles that share it: one can hold others, again and again."""

    instructions: int = 0


@dataclass
class PickleReader:
    """The stack machine for one pickle.

    `builders` maps "module.name" to what may be built; `persistent` resolves the ids that stand for
    storages; `spent` counts. After `read`, `unloaded` names every class that was met but not built.
    """

    builders: Mapping[str, Builder]
    persistent: Callable[[Any], Any]
    spent: InstructionCount
    stack: list[Any] = field(default_factory=list)
    marked: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    unloaded: dict[str, None] = field(default_factory=dict)
    copied: int = 0

    def read(self, stream: BinaryIO) -> Any:
        """Read one pickle and leave the stream right after it.

        Raises:
            CheckpointError: the pickle is damaged, hostile, or does what no checkpoint does.
        """
        try:
            for opcode, argument, at in pickletools.genops(stream):
                self.spent.instructions += COSTS.get(opcode.name, 1)
                if self.spent.instructions > MAX_OPCODES:
                    raise CheckpointError(
                        f"its pickle takes over {MAX_OPCODES:,} instructions, more than any "
                        "checkpoint needs. Save only the state dict."
                    )
                if self.copied > COPIES * (at or 0) + ALLOWANCE:
                    raise CheckpointError(
                        f"its pickle expands {at:,} bytes to {self.copied:,}: refused as a pickle "
                        "bomb. Save only the state dict."
                    )
                if push := PUSHES.get(opcode.name):
                    value = push(self, argument)
                    self.stack.append(value)  # only now: a push that pops a mark swaps the stack
                else:
                    CHANGES[opcode.name](self, argument)
            return self.stack.pop()
        except (*DAMAGE, MemoryError) as error:
            raise CheckpointError(
                f"its pickle is damaged ({type(error).__name__}: {str(error)[:120]}). "
                "Copy or download the file again."
            ) from error

    def mark(self) -> None:
        """Begin a run of values that a later instruction takes all at once."""
        self.marked.append(self.stack)
        self.stack = []

    def pop_marked(self) -> list[Any]:
        """Everything pushed since the last mark."""
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        """The last `count` values, in the order they were pushed."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def call(self, target: Any, args: Iterable[Any]) -> Any:
        """What calling `target` gives the pickle: a value built by the table, or an object."""
        args = tuple(args)
        self._weigh(args)
        if isinstance(target, PickledObject):
            return PickledObject(target.cls, args)
        if not isinstance(target, Global):
            raise TypeError(f"{type(target).__name__} cannot be called")
        if builder := self.builders.get(str(target)):
            return builder(*args)
        self.unloaded[str(target)] = None
        return PickledObject(target, args)

    def call_marked(self) -> Any:
        """Like `call`, with the target and the arguments pushed since the last mark."""
        target, *args = self.pop_marked()
        return self.call(target, args)

    def call_with_names(self, target: Any, args: Iterable[Any], named: Any) -> Any:
        """Like `call`; keyword arguments become attributes."""
        made = self.call(target, args)
        if named and isinstance(made, PickledObject):
            made.build(named)
        return made

    def build(self, state: Any) -> None:
        """Complete the object on top of the stack.

        State of an object that keeps none, such as the versions of a state dict, is dropped.
        """
        if isinstance(state, tuple):
            self._weigh(state)
        if build := getattr(self.stack[-1], "build", None):
            build(state)

    def _weigh(self, values: Iterable[Any]) -> None:
        """Count what a builder copies: one name can stand for the same argument many times."""
        for value in values:
            if isinstance(value, bytes | bytearray | str):
                self.copied += len(value)
            elif isinstance(value, Sized):
                self.spent.instructions += _COPY_COST * len(value)


def _set_pairs(target: Any, flat: list[Any]) -> Any:
    pairs = target.pairs if isinstance(target, PickledObject) else target
    if not isinstance(pairs, dict):
        raise TypeError(f"{type(target).__name__} cannot hold keys")
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        pairs[check_key(key)] = value
    return pairs


def _extend(target: Any, items: list[Any]) -> None:
    target = target.items if isinstance(target, PickledObject) else target
    if isinstance(target, set):
        target.update(map(check_key, items))
    elif isinstance(target, list):
        target.extend(items)
    else:
        raise TypeError(f"{type(target).__name__} cannot hold items")


def _fill(machine: PickleReader, fill: Callable[[Any, list[Any]], Any], count: int | None) -> None:
    """Give the object on top of the stack the last `count` values, or all since the mark."""
    items = machine.pop_marked() if count is None else machine.pop(count)
    fill(machine.stack[-1], items)


Action = Callable[[PickleReader, Any], Any]


def _each(names: str, action: Action) -> dict[str, Action]:
    return dict.fromkeys(names.split(), action)


# Extension codes and out-of-band buffers are in neither table, and so "damaged": no saved file can
# use them.
PUSHES: dict[str, Action] = {
    **_each("INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT", lambda m, value: value),
    **_each("STRING BINSTRING SHORT_BINSTRING", lambda m, value: value),
    **_each("UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8", lambda m, value: value),
    **_each("BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8", lambda m, value: value),
    **_each("GET BINGET LONG_BINGET", lambda m, index: m.memo[index]),
    "NONE": lambda m, _: None,
    "NEWTRUE": lambda m, _: True,
    "NEWFALSE": lambda m, _: False,
    "EMPTY_LIST": lambda m, _: [],
    "EMPTY_TUPLE": lambda m, _: (),
    "EMPTY_DICT": lambda m, _: {},
    "EMPTY_SET": lambda m, _: set(),
    "DUP": lambda m, _: m.stack[-1],
    "LIST": lambda m, _: m.pop_marked(),
    "TUPLE": lambda m, _: tuple(m.pop_marked()),
    "TUPLE1": lambda m, _: tuple(m.pop(1)),
    "TUPLE2": lambda m, _: tuple(m.pop(2)),
    "TUPLE3": lambda m, _: tuple(m.pop(3)),
    "DICT": lambda m, _: _set_pairs({}, m.pop_marked()),
    "FROZENSET": lambda m, _: frozenset(map(check_key, m.pop_marked())),
    "GLOBAL": lambda m, text: Global(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: Global(*m.pop(2)),
    **_each("REDUCE NEWOBJ", lambda m, _: m.call(*m.pop(2))),
    "NEWOBJ_EX": lambda m, _: m.call_with_names(*m.pop(3)),
    "OBJ": lambda m, _: m.call_marked(),
    "INST": lambda m, text: m.call(Global(*text.split(" ", 1)), m.pop_marked()),
    "PERSID": lambda m, identity: m.persistent(identity),
    "BINPERSID": lambda m, _: m.persistent(m.stack.pop()),
}
"""What each instruction puts on the stack of the machine `m`."""

CHANGES: dict[str, Action] = {
    **_each("PROTO FRAME STOP", lambda m, _: None),
    **_each("PUT BINPUT LONG_BINPUT", lambda m, index: m.memo.update({index: m.stack[-1]})),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.stack[-1]}),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop() if m.stack else m.pop_marked(),
    "POP_MARK": lambda m, _: m.pop_marked(),
    "APPEND": lambda m, _: _fill(m, _extend, 1),
    **_each("APPENDS ADDITEMS", lambda m, _: _fill(m, _extend, None)),
    "SETITEM": lambda m, _: _fill(m, _set_pairs, 2),
    "SETITEMS": lambda m, _: _fill(m, _set_pairs, None),
    "BUILD": lambda m, _: m.build(m.stack.pop()),
}
"""What each of the other instructions does."""
