"""Names, shapes and recurrent layers enter; the role of a matrix that is not recurrent leaves."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ttcompress.weights import RecurrentStack, Role

_EMBEDDING = re.compile(
    r"(?!\w*proj)(embed\w*|\w*embeddings?|\w*_embed|\w*_emb|embs?|wte|wpe|lookup\w*|lut)", re.I
)
_LINEAR = re.compile(
    r"\w*(decoder|head|out|output|proj|projection|fc|linear|dense|classifier|attn|attention|softmax"
    r"|logits)\w*",
    re.I,
)


def role_of(
    names: Sequence[str],
    matrices: Mapping[str, tuple[int, int]],
    vectors: Mapping[str, int],
    stacks: Collection[RecurrentStack],
) -> Role:
    """The role of a matrix by all its names; an embedding tied to a linear layer is an embedding.

    `matrices` has every matrix's shape in the file's order, `vectors` every 1-D tensor's length.
    """
    embedding = any(_is_embedding(name, matrices, vectors, stacks) for name in names)
    return "embedding" if embedding else "linear"


def _is_embedding(
    name: str,
    matrices: Mapping[str, tuple[int, int]],
    vectors: Mapping[str, int],
    stacks: Collection[RecurrentStack],
) -> bool:
    """By name; or by use: no bias, and a recurrent layer after it takes its columns as input."""
    path = name.split(".")
    rows, columns = matrices[name]
    if vectors.get(".".join([*path[:-1], path[-1].replace("weight", "bias")])) == rows:
        return False
    module = next((part for part in reversed(path[:-1]) if not part.isdigit()), "")
    if _EMBEDDING.fullmatch(module) or _EMBEDDING.fullmatch(path[-1]):
        return True
    if path[-1] != "weight" or any(_LINEAR.fullmatch(part) for part in path):
        return False
    order = list(matrices)
    return any(
        columns == stack.input_size and order.index(name) < _start(stack, order) for stack in stacks
    )


def _start(stack: RecurrentStack, order: Sequence[str]) -> int:
    return next(k for k, name in enumerate(order) if name.startswith(f"{stack.prefix}weight_"))
