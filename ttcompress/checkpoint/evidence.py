"""Distinguishes embeddings from linear layers among the matrices that are not recurrent."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ttcompress.model.weights import RecurrentStack, Role

_EMBEDDING = re.compile(
    r"(?!\w*proj)(embed\w*|\w*embeddings?|\w*_embed|\w*_emb|embs?|wte|wpe|lookup\w*|lut)", re.I
)
_LINEAR = re.compile(
    r"\w*(decoder|head|out|output|proj|projection|fc|linear|dense|classifier|attn|attention|softmax"
    r"|logits)\w*",
    re.I,
)


class Roles:
    """Finds the role of each of a model's matrices that is not recurrent.

    Args:
        matrices: every matrix's shape, in the file's order.
        vectors: every 1-D tensor's length.
        stacks: the recurrent layers.
    """

    def __init__(
        self,
        matrices: Mapping[str, tuple[int, int]],
        vectors: Mapping[str, int],
        stacks: Collection[RecurrentStack],
    ) -> None:
        self._matrices, self._vectors = matrices, vectors
        self._places = {name: place for place, name in enumerate(matrices)}
        self._last_starts = _last_starts(matrices, stacks)

    def of(self, names: Sequence[str]) -> Role:
        """The role by all names; an embedding tied to a linear layer is an embedding."""
        return "embedding" if any(map(self._is_embedding, names)) else "linear"

    def _is_embedding(self, name: str) -> bool:
        """Judge by name, or by use: no bias, and a later recurrent layer takes its columns."""
        path = name.split(".")
        rows, columns = self._matrices[name]
        bias = ".".join([*path[:-1], path[-1].replace("weight", "bias")])
        if self._vectors.get(bias) == rows:
            return False
        module = next((part for part in reversed(path[:-1]) if not part.isdigit()), "")
        if _EMBEDDING.fullmatch(module) or _EMBEDDING.fullmatch(path[-1]):
            return True
        if path[-1] != "weight" or any(_LINEAR.fullmatch(part) for part in path):
            return False
        return self._places[name] < self._last_starts.get(columns, 0)


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
