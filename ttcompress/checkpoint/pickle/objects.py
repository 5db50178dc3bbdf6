"""Stand-ins for the classes and objects in a pickle: names and plain attributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ttcompress.errors import CheckpointError
from ttcompress.system.text import clip

MAX_KEY_PARTS = 64
"""Values in a tuple used as a key: every use of the key hashes all of them, recursing in C."""

MAX_INTEGER_BITS = 10_000
"""Of an integer; hashing takes time in proportion, and Python prints no more than some 14,000."""

DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
"""What code that trusts its input raises on damaged content."""

Builder = Callable[..., Any]
"""Makes a value from the arguments that a pickle gives to a name."""

# fmt: off
_DANGEROUS_MODULES = frozenset({
    "os", "posix", "nt", "subprocess", "commands", "sys", "shutil", "socket", "pty", "ctypes",
    "pip", "importlib", "runpy", "code", "codeop", "pdb", "bdb", "webbrowser", "marshal",
    "pickle", "timeit",
})
_DANGEROUS_BUILTINS = frozenset({
    "eval", "exec", "execfile", "compile", "__import__", "open", "input", "breakpoint", "globals",
    "locals", "apply",
})
# fmt: on


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle names. It stays a name.

    Raises:
        CheckpointError: it names something that only an attack needs.
    """

    module: str
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.module, str) or not isinstance(self.name, str):
            raise TypeError("a global that is not named by two strings")
        builtin = self.module in ("builtins", "__builtin__") and self.name in _DANGEROUS_BUILTINS
        if builtin or self.module.partition(".")[0] in _DANGEROUS_MODULES:
            raise CheckpointError(
                f"asks to call `{clip(str(self))}`, which no model needs. Nothing was run. "
                "Never open this file with torch.load; get the model from a source you trust."
            )

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class PickledObject:
    """An object of a class that is never loaded: only what the pickle said about it."""

    cls: Global
    args: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: dict[Any, Any] = field(default_factory=dict)

    def build(self, state: Any) -> None:
        """Record the state; (attributes, slots) become one dictionary."""
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            first = state[0] if isinstance(state[0], dict) else {}
            state = {**first, **state[1]}
        self.state = state

    @property
    def attributes(self) -> dict[Any, Any]:
        """The attributes, where the state is a dictionary of them."""
        return self.state if isinstance(self.state, dict) else {}


@dataclass(eq=False, repr=False)
class ScriptedModule(PickledObject):
    """A TorchScript module; `state_dict` names its parameters and buffers, but no attribute."""

    state_dict: frozenset[str] = frozenset()


def as_text(value: Any) -> str:
    """Text for what a pickle puts where a name or a number belongs.

    A list or the like gives only its type: one that holds another twice, which holds another
    twice, and so on, would never finish printing. Nor does Python print integers of any length.
    """
    number = isinstance(value, int) and value.bit_length() <= MAX_INTEGER_BITS
    return str(value) if number or isinstance(value, str | Global) else type(value).__name__


def check_key(key: Any) -> Any:
    """Check that a dictionary key or set element hashes in bounded time, and return it.

    Raises:
        ValueError: it is a tuple of many parts, or an integer of thousands of digits.
    """
    pending, parts = [key], 0
    while pending:
        part = pending.pop()
        if isinstance(part, tuple | frozenset):
            parts += 1 + len(part)
            if parts > MAX_KEY_PARTS:
                raise ValueError(f"a key with over {MAX_KEY_PARTS} parts")
            pending.extend(part)
        elif isinstance(part, int) and part.bit_length() > MAX_INTEGER_BITS:
            raise ValueError("a key with thousands of digits")
    return key
