"""Describes a model to a task: names, shapes, roles and recurrent layers, but no values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ttcompress.checkpoint import rebuild
from ttcompress.checkpoint.evidence import Evidence
from ttcompress.checkpoint.names import names_inside
from ttcompress.checkpoint.recurrent import foreign_layers
from ttcompress.model.geometry import tensor_shapes
from ttcompress.model.protocol import Model
from ttcompress.model.weights import RecurrentStack, Role

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """A model as names and shapes, and what its file holds besides the tensors.

    Attributes:
        shapes: every tensor of the state dict, by each of its names, in the file's order.
        roles: what each matrix is, by each name's own use: of two tied names, one may be an
            embedding and the other linear.
        ties: the names of each tensor that has several.
        stacks: the recurrent layers, in the file's order.
        foreign: those that are not torch's, with the reason.
        content: the file's nested content in plain Python (vocabulary, configuration), with empty
            tensors instead of the real ones.
    """

    shapes: Mapping[str, Shape]
    roles: Mapping[str, Role]
    ties: tuple[tuple[str, ...], ...]
    stacks: tuple[RecurrentStack, ...]
    content: Any
    foreign: tuple[str, ...] = ()

    @property
    def recurrent(self) -> set[str]:
        """The names of all tensors of the recurrent layers."""
        return _recurrent_names(self.stacks)


def structure_of(model: Model) -> Structure:
    """Describe a model; a checkpoint and what was compressed from it have the same structure."""
    named = {name: (names, shape) for names, shape in model.tied_shapes.items() for name in names}
    shapes = {name: named[name][1] for name in names_inside(model.source_paths)}
    ties = dict.fromkeys(named[name][0] for name in shapes if len(named[name][0]) > 1)
    recurrent = _recurrent_names(model.stacks)
    matrices = {name: (s[0], s[1]) for name, s in shapes.items() if len(s) == 2}
    vectors = {name: s[0] for name, s in shapes.items() if len(s) == 1}
    evidence = Evidence(matrices, vectors, model.stacks)
    return Structure(
        shapes=shapes,
        roles={n: "recurrent" if n in recurrent else evidence.role([n]) for n in matrices},
        ties=tuple(ties),
        stacks=model.stacks,
        foreign=foreign_layers(model),
        content=rebuild(model.carried, defaultdict(lambda: torch.empty(0))),
    )


def _recurrent_names(stacks: tuple[RecurrentStack, ...]) -> set[str]:
    return {stack.prefix + name for stack in stacks for name in tensor_shapes(stack)}
