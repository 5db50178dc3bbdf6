"""Names and shapes of matrices enter; recurrent layers with their geometry leave.

A layer is recognised by torch's key names (`weight_ih_l0`, `weight_hh_l0_reverse`, `weight_hr_l0`,
the `_raw` of weight-drop; no `_l0` in cells), its kind by its rows: 4, 3 or 1 times the hidden
size.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ttcompress.errors import CheckpointError
from ttcompress.model.weights import GATES, Kind, RecurrentStack

Shape = tuple[int, int]
Slot = tuple[int, bool]
"""A layer's number, and whether it runs in reverse."""

_KEY = re.compile(
    r"(?P<prefix>(?:.*\.)?)weight_(?P<part>ih|hh|hr)"
    r"(?P<suffix>(?:_l(?P<layer>\d{1,4})(?P<reverse>_reverse)?)?)(?P<raw>_raw)?"
)


@dataclass(frozen=True)
class RecurrentLayers:
    """What was recognised: whole layers, the gates of each recurrent matrix, and remarks."""

    stacks: tuple[RecurrentStack, ...]
    gates: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass
class _Group:
    """The recurrent matrices under one prefix, as they are gathered."""

    prefix: str
    cell: bool
    raw: bool = False
    names: dict[tuple[str, Slot], list[str]] = field(default_factory=dict)
    shapes: dict[tuple[str, Slot], Shape] = field(default_factory=dict)

    def add(self, part: str, slot: Slot, name: str, shape: Shape, raw: bool) -> None:
        """Of `weight_hh_l0` and `weight_hh_l0_raw` side by side, the raw one gives the shape."""
        self.names.setdefault((part, slot), []).append(name)
        if raw or (part, slot) not in self.shapes:
            self.shapes[part, slot] = shape
        self.raw = self.raw or raw


def recognise(
    matrices: Mapping[str, Shape], vectors: Mapping[str, int], keys: Collection[str]
) -> RecurrentLayers:
    """Group the recurrent matrices into layers.

    Args:
        matrices: the shape of every matrix.
        vectors: the length of every vector, among which biases are.
        keys: the names of all tensors: what is named as a bias, and is none, makes no layer.

    Raises:
        CheckpointError: two matrices of a layer do not fit each other.
    """
    groups: dict[tuple[str, bool], _Group] = {}
    gates: dict[str, int] = {}
    for name, shape in matrices.items():
        if match := _KEY.fullmatch(name):
            prefix, cell = match["prefix"], match["suffix"] == ""
            group = groups.setdefault((prefix, cell), _Group(prefix, cell))
            slot = (int(match["layer"] or 0), match["reverse"] is not None)
            group.add(match["part"], slot, name, shape, match["raw"] is not None)
            gates[name] = 1
    stacks, notes = [], []
    for group in groups.values():
        if why := _unlike_torch(group, vectors, keys):
            notes.append(
                f"`{group.prefix}weight_*` is named like a recurrent layer and is none of torch's "
                f"({why}); its matrices are compressed one by one"
            )
        else:
            stacks.append(_stack(group, keys))
        gates |= _gates(group)
    return RecurrentLayers(tuple(stacks), gates, tuple(notes))


def _gates(group: _Group) -> dict[str, int]:
    """The gates of each matrix in a group; where the rows fit no kind, the matrix is one block."""
    gates: dict[str, int] = {}
    for slot in {slot for _, slot in group.shapes}:
        kind = _kind(group, slot) if ("hh", slot) in group.shapes else None
        for part in ("ih", "hh"):
            for name in group.names.get((part, slot), ()):
                gates[name] = GATES[kind] if kind else 1
    return gates


def _unlike_torch(group: _Group, vectors: Mapping[str, int], keys: Collection[str]) -> str:
    """Why a group cannot be a layer of torch's at all; empty if it can."""
    slots = {slot for _, slot in group.names}
    for slot in sorted(slots):
        for part in ("ih", "hh"):
            if (part, slot) not in group.names:
                return f"weight_{part}{_suffix(slot, group.cell)} is missing"
    layers = 1 + max(layer for layer, _ in slots)
    if any((layer, False) not in slots for layer in range(layers)):
        return "a layer between is missing"
    if len(slots) not in (layers, 2 * layers):
        return "some layers have a reverse direction and some have none"
    if len({slot for part, slot in group.names if part == "hr"}) not in (0, len(slots)):
        return "some layers have a projection and some have none"
    if group.cell and _kind(group, (0, False)) is None:
        return "its rows are not 4, 3 or 1 times its columns"
    biases = {name: slot for name, slot in _biases(group, slots) if name in keys}
    if len(biases) not in (0, 2 * len(slots)):
        return "some of its biases are missing"
    for name, slot in biases.items():
        rows = group.shapes["hh", slot][0]
        if vectors.get(name) != rows:
            return f"{name.removeprefix(group.prefix)} is no vector of {rows} floats"
    return ""


def _biases(group: _Group, slots: Iterable[Slot]) -> Iterator[tuple[str, Slot]]:
    for slot in slots:
        for part in ("ih", "hh"):
            yield f"{group.prefix}bias_{part}{_suffix(slot, group.cell)}", slot


def _suffix(slot: Slot, cell: bool) -> str:
    layer, reverse = slot
    return "" if cell else f"_l{layer}{'_reverse' if reverse else ''}"


def _kind(group: _Group, slot: Slot) -> Kind | None:
    """The kind whose gates times the hidden size are the rows; only an LSTM has a projection."""
    rows, columns = group.shapes["hh", slot]
    if ("hr", slot) in group.shapes:
        return "lstm" if rows == 4 * group.shapes["hr", slot][1] else None
    return next((kind for kind, gates in GATES.items() if rows == gates * columns), None)


def _stack(group: _Group, keys: Collection[str]) -> RecurrentStack:
    first: Slot = (0, False)
    slots = sorted({slot for _, slot in group.names})
    kind = _kind(group, first)
    if kind is None:
        raise _unequal(group, first, "hh", "its rows are not 4, 3 or 1 times the hidden size")
    proj_size = group.shapes["hr", first][0] if ("hr", first) in group.shapes else 0
    stack = RecurrentStack(
        prefix=group.prefix,
        kind=kind,
        input_size=group.shapes["ih", first][1],
        hidden_size=group.shapes["hh", first][0] // GATES[kind],
        num_layers=1 + slots[-1][0],
        bidirectional=any(reverse for _, reverse in slots),
        proj_size=proj_size,
        bias=all(name in keys for name, _ in _biases(group, slots)),
        cell=group.cell,
        raw=group.raw,
    )
    _check(group, stack)
    return stack


def _check(group: _Group, stack: RecurrentStack) -> None:
    """Every matrix of the layer must have the shape that its geometry gives it."""
    rows = GATES[stack.kind] * stack.hidden_size
    output = stack.proj_size or stack.hidden_size
    deeper = output * (2 if stack.bidirectional else 1)
    for (part, slot), shape in group.shapes.items():
        expected = {
            "ih": (rows, stack.input_size if slot[0] == 0 else deeper),
            "hh": (rows, output),
            "hr": (stack.proj_size, stack.hidden_size),
        }[part]
        if shape != expected:
            raise _unequal(group, slot, part, f"{expected[0]} x {expected[1]} is needed")


def _unequal(group: _Group, slot: Slot, part: str, why: str) -> CheckpointError:
    """The error that sets a matrix beside the one it must fit."""
    other = ("ih", slot) if part == "hh" else ("hh", (0, False))
    (rows, columns), (beside_rows, beside_columns) = group.shapes[part, slot], group.shapes[other]
    return CheckpointError(
        f"{group.names[part, slot][0]} is {rows} x {columns} and {group.names[other][0]} is "
        f"{beside_rows} x {beside_columns}: they make no recurrent layer ({why}). "
        "Rename the keys if this is no layer of torch.nn, or save the right tensors."
    )
