"""Recognises recurrent layers, with their geometry, by the names and shapes of matrices.

A layer is known by torch's key names (`weight_ih_l0`, `weight_hh_l0_reverse`, `weight_hr_l0`,
the `_raw` of weight-drop; no `_l0` in cells), its kind by its rows: 4, 3 or 1 times the hidden
size. `recognise` is the entry.

Many cells have these names but compute something else: with one bias, peepholes, or layer norms
inside. They are known by tensors under the layer's prefix that torch's layer does not have, by
their name (an "lstm" of three gates), or by their class in a pickled module. Their matrices are
compressed as matrices, and nothing runs them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ttcompress.checkpoint.names import names_inside
from ttcompress.checkpoint.pickle.objects import PickledObject
from ttcompress.model.geometry import stored_name, stored_names, tensor_shapes
from ttcompress.model.protocol import Model
from ttcompress.model.weights import GATES, Kind, RecurrentStack
from ttcompress.system.text import clip

Shape = tuple[int, int]
Slot = tuple[int, bool]
"""A layer's number, and whether it runs in reverse."""

_KEY = re.compile(
    r"(?P<prefix>(?:.*\.)?)weight_(?P<part>ih|hh|hr)"
    r"(?P<suffix>(?:_l(?P<layer>\d{1,4})(?P<reverse>_reverse)?)?)(?P<raw>_raw)?"
)

_TORCHS_CLASS = re.compile(
    r"(__torch__\.)?torch\.nn\.modules\.rnn\.(___torch_mangle_\d+\.)?(?P<kind>LSTM|GRU|RNN)(Cell)?"
)
"""In a pickle or in TorchScript."""

_MODES: dict[str, Kind] = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn", "RNN_RELU": "rnn"}
"""By the attribute `mode` that torch's layers have, and classes derived from them."""

MAX_NAMED = 3
"""How many tensors a note names."""


@dataclass(frozen=True)
class RecurrentLayers:
    """The layers recognised, and what only looks like one.

    Attributes:
        stacks: the layers of torch.nn.
        gates: of each recurrent matrix, also of those of other layers.
        foreign: why the matrices under a prefix are no layer of torch.nn.
        notes: for the user.
    """

    stacks: tuple[RecurrentStack, ...]
    gates: Mapping[str, int]
    foreign: Mapping[str, str]
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

    @property
    def first(self) -> str:
        """The name of one of its matrices."""
        return next(iter(self.names.values()))[0]

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
    matrices: Mapping[str, Shape],
    vectors: Mapping[str, int],
    keys: Collection[str],
    owners: Mapping[str, PickledObject] | None = None,
) -> RecurrentLayers:
    """Group the recurrent matrices into layers.

    Args:
        matrices: the shape of every matrix.
        vectors: the length of every vector, biases included.
        keys: the names of all tensors; those that torch's layer does not have rule it out.
        owners: the module that holds each tensor, if the file has whole modules.
    """
    groups: dict[tuple[str, bool], _Group] = {}
    for name, shape in matrices.items():
        if match := _KEY.fullmatch(name):
            prefix, cell = match["prefix"], match["suffix"] == ""
            group = groups.setdefault((prefix, cell), _Group(prefix, cell))
            slot = (int(match["layer"] or 0), match["reverse"] is not None)
            group.add(match["part"], slot, name, shape, match["raw"] is not None)
    stacks, notes = [], []
    gates, foreign = dict[str, int](), dict[str, str]()
    in_order = sorted(keys)
    for group in groups.values():
        why = _unlike_torch(group, vectors, keys)
        stack = None if why else _stack(group, keys)
        owner = None if owners is None else owners.get(group.first)
        if stack is not None:
            why = _strange(stack, in_order) or _misnamed(stack, owner)
        if stack is None or why:
            foreign.setdefault(group.prefix, why)  # a cell and a layer may share it
            notes.append(
                f"`{group.prefix}weight_*` looks like a recurrent layer but does not match "
                f"torch.nn ({why}); its matrices are compressed individually, and what runs "
                "layers (drift, calibration, export, bench) leaves it out"
            )
            continue
        stacks.append(stack)
        if owner is not None and not _TORCHS_CLASS.fullmatch(str(owner.cls)):
            notes.append(
                f"`{group.prefix}*` is of class {clip(str(owner.cls))}, derived from torch.nn; "
                f"drift, export and bench take it for torch's {stack.kind}"
            )
    for group in groups.values():
        for (part, slot), names in group.names.items():
            kind = group.kind(slot) if part != "hr" else None
            even = kind and group.shapes[part, slot][0] == group.shapes["hh", slot][0]
            gates |= dict.fromkeys(names, GATES[kind] if kind and even else 1)
    return RecurrentLayers(tuple(stacks), gates, foreign, tuple(notes))


def foreign_layers(model: Model) -> tuple[str, ...]:
    """Each recurrent layer of a model that cannot be run by itself, with the reason."""
    shapes = {name: shape for names, shape in model.tied_shapes.items() for name in names}
    inside = {name: shapes[name] for name in names_inside(model.source_paths)}
    matrices = {name: (s[0], s[1]) for name, s in inside.items() if len(s) == 2}
    vectors = {name: s[0] for name, s in inside.items() if len(s) == 1}
    known = {stack.prefix for stack in model.stacks}  # perhaps by the class in a pickled module
    found = recognise(matrices, vectors, inside.keys())
    by_class = {stack.prefix: "its class is another" for stack in found.stacks}
    foreign = {**by_class, **found.foreign}
    return tuple(f"{p}weight_* ({why})" for p, why in foreign.items() if p not in known)


def strange_tensors(stack: RecurrentStack, in_order: Sequence[str]) -> list[str]:
    """The tensors under a layer's prefix that torch's layer does not have.

    Args:
        stack: the layer.
        in_order: the names of all tensors of the model, sorted.
    """
    own = {*stored_names(stack).values(), *(stack.prefix + name for name in tensor_shapes(stack))}
    found: list[str] = []
    for k in range(bisect_left(in_order, stack.prefix), len(in_order)):
        if not in_order[k].startswith(stack.prefix) or len(found) > MAX_NAMED:
            break
        if in_order[k] not in own:
            found.append(in_order[k])
    return found


def _strange(stack: RecurrentStack, in_order: Sequence[str]) -> str:
    """What torch's layer does not have; empty if there is nothing."""
    found = strange_tensors(stack, in_order)
    if not found:
        return ""
    names = [clip(name.removeprefix(stack.prefix)) for name in found[:MAX_NAMED]]
    more = " and more" if len(found) > MAX_NAMED else ""
    return f"it also has {', '.join(names)}{more}"


def _misnamed(stack: RecurrentStack, owner: PickledObject | None) -> str:
    """Why its class, or else its name, says that a layer is not of its kind; empty if it fits."""
    if owner is not None:
        name, mode = clip(str(owner.cls)), owner.attributes.get("mode")
        if torchs := _TORCHS_CLASS.fullmatch(str(owner.cls)):
            named = torchs["kind"].lower()
        elif isinstance(mode, str) and mode in _MODES:  # derived from torch's
            named = _MODES[mode]
        else:
            return f"its class is {name}"
    else:
        parts = reversed(stack.prefix.lower().split("."))
        said = ({kind for kind in ("lstm", "gru") if kind in part} for part in parts)
        nearest = next((kinds for kinds in said if kinds), {stack.kind})
        name, named = "its name", next(iter(nearest)) if len(nearest) == 1 else stack.kind
    if named == stack.kind:
        return ""
    return (
        f"{name} says {named}, but its rows are {GATES[stack.kind]} times the hidden size, "
        f"as in a {stack.kind}"
    )


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
    if group.kind((0, False)) is None:
        rows, columns = group.shapes["hh", (0, False)]
        hidden = group.shapes.get(("hr", (0, False)), (0, columns))[1]
        return f"{rows} x {columns} is not 4, 3 or 1 times {hidden} hidden units"
    biases = {name: slot for name, slot in group.biases().items() if name in keys}
    if len(biases) not in (0, 2 * len(slots)):
        return "some of its biases are missing"
    for name, slot in biases.items():
        rows = group.shapes["hh", slot][0]
        if vectors.get(name) != rows:
            return f"{name.removeprefix(group.prefix)} is not a vector of {rows} floats"
    stack = _stack(group, keys)
    expected = tensor_shapes(stack)
    for (part, slot), (rows, columns) in group.shapes.items():
        own = group.key(f"weight_{part}", slot)
        if expected[own] != (rows, columns):
            wanted = " x ".join(map(str, expected[own]))
            return f"{own} is {rows} x {columns}, but beside the others it would be {wanted}"
    for own in expected:
        name = stored_name(stack, own)
        if name not in keys:
            return f"{name.removeprefix(stack.prefix)} is missing"
    return ""


def _stack(group: _Group, keys: Collection[str]) -> RecurrentStack:
    """The layer's geometry, by its first matrices."""
    first: Slot = (0, False)
    kind = group.kind(first)
    assert kind is not None, "the group was not checked"
    rows, inputs = group.shapes["hh", first][0], group.shapes["ih", first][1]
    slots = group.slots()
    return RecurrentStack(
        prefix=group.prefix,
        kind=kind,
        input_size=inputs,
        hidden_size=rows // GATES[kind],
        num_layers=1 + slots[-1][0],
        bidirectional=any(reverse for _, reverse in slots),
        proj_size=group.shapes.get(("hr", first), (0, 0))[0],
        bias=all(name in keys for name in group.biases()),
        cell=group.cell,
        raw=group.raw,
    )
