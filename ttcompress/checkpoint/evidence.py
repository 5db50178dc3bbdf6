"""Decides which matrices are weights: those that a layer multiplies by, or looks up.

What only has two axes may be anything: a scaler's means, a mask, a CRF's transitions, a table that
is added. Rounding it ruins the model, and no norm shows it. So a matrix is a weight by evidence:
the class of its module where the file knows it, the key names of torch's layers, a bias beside it,
sizes that fit other layers, or the name or the use of an embedding. `Evidence` judges all but the
recurrent layers' matrices, which `recurrent.py` finds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from ttcompress.model.weights import UNKNOWN, RecurrentStack, Role

_EMBEDDING = re.compile(
    r"(?!\w*proj)(embed\w*|\w*embeddings?|\w*_embed|\w*_emb|embs?|wte|wpe|lookup\w*|lut)", re.I
)
_LINEAR = re.compile(
    r"\w*(decoder|head|out|output|proj|projection|fc|linear|dense|classifier|attn|attention|softmax"
    r"|logits)\w*",
    re.I,
)
_ADDED = re.compile(r"(\w*_)?(pos|position\w*|time)(_\w*)?", re.I)
"""Tables that are added to their inputs, unless they are a module's `weight`."""

_SCALED = re.compile(r"(\w*_)?(\w*norm|ln|bn|scal(e|er|ing)|mask)(_?\w|_\w+)?", re.I)
"""Modules whose `weight` is multiplied elementwise."""

_MATRIX_KEY = re.compile(r"weight|(in|[qkv])_proj_weight")
"""The names that torch's linear layers, embeddings and attention give their matrices."""

_CLASSES: Mapping[str, Role] = {
    "Linear": "linear",
    "NonDynamicallyQuantizableLinear": "linear",
    "MultiheadAttention": "linear",
    "Embedding": "embedding",
    "EmbeddingBag": "embedding",
}

NO_CLASSES: Mapping[str, str] = {}


class Evidence:
    """Finds the role of each of a model's matrices that is not recurrent.

    Args:
        matrices: every matrix's shape, in the file's order.
        vectors: every 1-D tensor's length.
        stacks: the recurrent layers.
        classes: the class of torch.nn that a matrix's module has, by the matrix's name.
    """

    def __init__(
        self,
        matrices: Mapping[str, tuple[int, int]],
        vectors: Mapping[str, int],
        stacks: Collection[RecurrentStack],
        classes: Mapping[str, str] = NO_CLASSES,
    ) -> None:
        self._matrices, self._vectors, self._classes = matrices, vectors, classes
        self._places = {name: place for place, name in enumerate(matrices)}
        self._last_starts = _last_starts(matrices, stacks)
        self._inputs: defaultdict[int, set[str]] = defaultdict(set)  # layers by the size they take
        self._outputs: defaultdict[int, set[str]] = defaultdict(set)  # and by the size they give
        for stack in stacks:
            self._inputs[stack.input_size].add(stack.prefix)
            for size in (stack.hidden_size, stack.output_size):
                self._outputs[size].add(stack.prefix)
        for name, (rows, columns) in matrices.items():
            key = name.rpartition(".")[2]
            if key.startswith("weight_ih"):
                self._inputs[columns].add(name)
            elif key.startswith("weight_hh"):
                self._outputs[columns].add(name)
            role = self._judge(name)
            if role == "embedding":
                self._outputs[columns].add(name)
            elif role == "linear" or self._could_be_linear(name):
                self._outputs[rows].add(name)
                self._inputs[columns].add(name)

    def role(self, names: Sequence[str]) -> Role:
        """The role by all names; an embedding tied to a linear layer is an embedding."""
        found = {self._judge(name) or self._by_sizes(name) for name in names}
        return next((role for role in ("embedding", "linear") if role in found), UNKNOWN)

    def _judge(self, name: str) -> Role | None:
        """The role by what is known of the matrix itself; None if other layers must tell."""
        if (known := self._classes.get(name)) is not None:
            return _CLASSES.get(known, UNKNOWN) if _is_key(name) else UNKNOWN
        if self._vectors.get(_bias_of(name)) == self._matrices[name][0] and _is_key(name):
            return "linear"
        return "embedding" if self._is_embedding(name) else None

    def _is_embedding(self, name: str) -> bool:
        """Judge by name, or by use: a later recurrent layer takes its columns."""
        path = name.split(".")
        if path[-1] != "weight":
            return bool(_EMBEDDING.fullmatch(path[-1])) and not _ADDED.fullmatch(path[-1])
        module = next((part for part in reversed(path[:-1]) if not part.isdigit()), "")
        if _EMBEDDING.fullmatch(module):
            return True
        if any(_LINEAR.fullmatch(part) for part in path) or _SCALED.fullmatch(module):
            return False
        return self._places[name] < self._last_starts.get(self._matrices[name][1], 0)

    def _by_sizes(self, name: str) -> Role:
        """Linear, if another layer gives what it takes, or takes what it gives."""
        rows, columns = self._matrices[name]
        fits = self._outputs[columns] | self._inputs[rows]
        return "linear" if self._could_be_linear(name) and fits - {name} else UNKNOWN

    def _could_be_linear(self, name: str) -> bool:
        """Whether it is named as a matrix, and has no bias of another shape, as norms have."""
        bias, module = _bias_of(name), name.split(".")[-2:-1]
        beside = bias in self._vectors or bias in self._matrices
        return _is_key(name) and not beside and not any(map(_SCALED.fullmatch, module))


def _is_key(name: str) -> bool:
    return _MATRIX_KEY.fullmatch(name.rpartition(".")[2]) is not None


def _bias_of(name: str) -> str:
    """The name of the bias beside a matrix: `fc.weight`, `fc.bias`; `in_proj_weight` likewise."""
    module, dot, key = name.rpartition(".")
    return module + dot + key.replace("weight", "bias")


def _last_starts(
    matrices: Mapping[str, tuple[int, int]], stacks: Collection[RecurrentStack]
) -> dict[int, int]:
    """For each input size, where in the file the last recurrent layer that takes it begins."""
    begins: dict[str, int] = {}
    for place, name in enumerate(matrices):
        prefix, weight, _ = name.rpartition("weight_")
        if weight:
            begins.setdefault(prefix, place)
    found: dict[int, int] = {}
    for stack in stacks:
        start = begins.get(stack.prefix, 0)
        found[stack.input_size] = max(found.get(stack.input_size, 0), start)
    return found
