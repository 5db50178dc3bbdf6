"""Recognises recurrent layers, with their geometry, by the names and shapes of matrices.

A layer is known by torch's key names (`weight_ih_l0`, `weight_hh_l0_reverse`, `weight_hr_l0`,
the `_raw` of weight-drop; no `_l0` in cells), its kind by its rows: 4, 3 or 1 times the hidden
size. `recognise` is the entry.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
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
    """The layers recognised, the gates of each recurrent matrix, and notes for the user."""

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
        """Add a matrix; of `weight_hh_l0` and `weight_hh_l0_raw` the raw one gives the shape."""
        self.names.setdefault((part, slot), []).append(name)
        if raw or (part, slot) not in self.shapes:
            self.shapes[part, slot] = shape
        self.raw = self.raw or raw

    def slots(self, wanted: str = "") -> list[Slot]:
        """The layers and directions that have this part, or any, in order."""
        return sorted({slot for part, slot in self.names if wanted in part})

    def key(self, what: str, slot: Slot) -> str:
        """torch's own key: `weight_ih_l0_reverse`; in cells `weight_ih`."""
        layer, reverse = slot
        return what if self.cell else f"{what}_l{layer}{'_reverse' if reverse else ''}"

    def biases(self) -> dict[str, Slot]:
        """The names that the biases would have."""
        places = ((part, slot) for slot in self.slots() for part in ("ih", "hh"))
        return {self.prefix + self.key(f"bias_{part}", slot): slot for part, slot in places}

    def kind(self, slot: Slot) -> Kind | None:
        """The kind whose gates times the hidden size are the rows; None where no kind fits."""
        if ("hh", slot) not in self.shapes:
            return None
        rows, columns = self.shapes["hh", slot]
        if ("hr", slot) in self.shapes:  # only an LSTM has a projection
            return "lstm" if rows == 4 * self.shapes["hr", slot][1] else None
        return next((kind for kind, gates in GATES.items() if rows == gates * columns), None)


def is_recurrent_name(name: str) -> bool:
    """Whether it is torch's name of a recurrent layer's matrix."""
    return _KEY.fullmatch(name) is not None


def recognise(
    matrices: Mapping[str, Shape], vectors: Mapping[str, int], keys: Collection[str]
) -> RecurrentLayers:
    """Group the recurrent matrices into layers.

    Args:
        matrices: the shape of every matrix.
        vectors: the length of every vector, biases included.
        keys: the names of all tensors: one named as a bias but not a vector rules a layer out.

    Raises:
        CheckpointError: two matrices of a layer do not fit each other.
    """
    groups: dict[tuple[str, bool], _Group] = {}
    for name, shape in matrices.items():
        if match := _KEY.fullmatch(name):
            prefix, cell = match["prefix"], match["suffix"] == ""
            group = groups.setdefault((prefix, cell), _Group(prefix, cell))
            slot = (int(match["layer"] or 0), match["reverse"] is not None)
            group.add(match["part"], slot, name, shape, match["raw"] is not None)
    stacks, notes = [], []
    gates: dict[str, int] = {}
    for group in groups.values():
        if why := _unlike_torch(group, vectors, keys):
            notes.append(
                f"`{group.prefix}weight_*` looks like a recurrent layer but does not match "
                f"torch.nn ({why}); its matrices are compressed individually"
            )
        else:
            stacks.append(_stack(group, keys))
        for (part, slot), names in group.names.items():
            kind = group.kind(slot) if part != "hr" else None
            gates |= dict.fromkeys(names, GATES[kind] if kind else 1)
    return RecurrentLayers(tuple(stacks), gates, tuple(notes))


def _unlike_torch(group: _Group, vectors: Mapping[str, int], keys: Collection[str]) -> str:
    """Why a group cannot be a torch.nn layer; empty if it can."""
    slots = group.slots()
    for slot in slots:
        for part in ("ih", "hh"):
            if (part, slot) not in group.names:
                return f"{group.key(f'weight_{part}', slot)} is missing"
    layers = 1 + slots[-1][0]
    for layer in range(layers):
        if (layer, False) not in slots:
            return f"layer {layer} is missing"
    if len(slots) not in (layers, 2 * layers):
        return "some layers have a reverse direction but others do not"
    if len(group.slots("hr")) not in (0, len(slots)):
        return "some layers have a projection but others do not"
    if group.cell and group.kind((0, False)) is None:
        return "its rows are not 4, 3 or 1 times its columns"
    biases = {name: slot for name, slot in group.biases().items() if name in keys}
    if len(biases) not in (0, 2 * len(slots)):
        return "some of its biases are missing"
    for name, slot in biases.items():
        rows = group.shapes["hh", slot][0]
        if vectors.get(name) != rows:
            return f"{name.removeprefix(group.prefix)} is not a vector of {rows} floats"
    return ""


def _stack(group: _Group, keys: Collection[str]) -> RecurrentStack:
    """The layer's geometry, by its first matrices; all others must have the shapes it gives."""
    first: Slot = (0, False)
    slots = group.slots()
    kind = group.kind(first)
    if kind is None:
        raise _unequal(group, first, "hh", "its rows are not 4, 3 or 1 times the hidden size")
    rows, inputs = group.shapes["hh", first][0], group.shapes["ih", first][1]
    hidden, projection = rows // GATES[kind], group.shapes.get(("hr", first), (0, 0))[0]
    bidirectional = any(reverse for _, reverse in slots)
    output = projection or hidden
    for (part, slot), shape in group.shapes.items():
        expected = {
            "ih": (rows, inputs if slot[0] == 0 else output * (2 if bidirectional else 1)),
            "hh": (rows, output),
            "hr": (projection, hidden),
        }[part]
        if shape != expected:
            raise _unequal(group, slot, part, f"expected {expected[0]} x {expected[1]}")
    return RecurrentStack(
        prefix=group.prefix,
        kind=kind,
        input_size=inputs,
        hidden_size=hidden,
        num_layers=1 + slots[-1][0],
        bidirectional=bidirectional,
        proj_size=projection,
        bias=all(name in keys for name in group.biases()),
        cell=group.cell,
        raw=group.raw,
    )


def _unequal(group: _Group, slot: Slot, part: str, why: str) -> CheckpointError:
    """The error that names a matrix and the one it must fit."""
    other = ("ih", slot) if part == "hh" else ("hh", (0, False))
    (rows, columns), (beside_rows, beside_columns) = group.shapes[part, slot], group.shapes[other]
    return CheckpointError(
        f"{group.names[part, slot][0]} is {rows} x {columns} but {group.names[other][0]} is "
        f"{beside_rows} x {beside_columns}, so they do not form a recurrent layer ({why}). "
        "Rename the keys if this is not a torch.nn layer; otherwise save the matching tensors."
    )
