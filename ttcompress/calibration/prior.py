"""Guesses the inputs of weights that no data reach, from the checkpoint alone: `PriorSource`.

Each stack is run on random inputs that look like its own: rows of the embedding before it, outputs
of the stack before it, one-hot vectors, or else standard normal values. What follows from them is
near the truth in scale, which is all that a budget shared with measured weights needs: on the
sample models the hidden states' mean squares and the gates' influence (see `influence`) were mostly
within a factor of 2. The correlations of random inputs are not those of real ones, so `calibrate`
takes only the scale of each column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ttcompress.calibration.layerwise import LayerPass, LayerwiseStack
from ttcompress.calibration.sources import Activations
from ttcompress.model.weights import RecurrentStack, Weight

_One = TypeVar("_One")

SEQUENCES, STEPS = 8, 64
"""Size of the one batch: enough for mean squares, and no more than a second for large layers."""


class PriorSource:
    """One batch of random inputs for every stack, always the same.

    Args:
        stacks: the recurrent layers, in the file's order; cells and weight-dropped ones too.
        weights: all weights, by which the kind of a stack's inputs is recognised.
    """

    batches = 1

    def __init__(self, stacks: Sequence[RecurrentStack], weights: Sequence[Weight]) -> None:
        self._stacks = stacks
        self._embeddings = [weight for weight in weights if weight.role == "embedding"]
        self._linears = [weight for weight in weights if weight.role == "linear"]

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Run each stack by itself; linear layers and embeddings follow from them."""
        found, outputs = Activations(), dict[RecurrentStack, Tensor]()
        random = torch.Generator().manual_seed(0)
        for stack in self._stacks:
            passes: list[tuple[LayerPass, ...]] = []
            with torch.no_grad():
                inputs = self._inputs_of(stack, tensors, outputs, random)
                LayerwiseStack(stack, tensors, passes.append)(inputs)
            found.stacks[stack.prefix] = passes
            outputs[stack] = passes[0][-1].outputs
        for weight in (*self._linears, *self._embeddings):
            feeding = [one for one in outputs if one.output_size == weight.shape[1]]
            if feeding and not weight.looked_up:
                values = outputs[_nearest(feeding, weight.name, lambda one: one.prefix)]
                found.linears[weight.name.removesuffix(".weight")] = [values.flatten(0, 1)]
        for weight in self._embeddings:
            path = weight.name.removesuffix(".weight")
            found.embeddings[path] = torch.ones(weight.shape[0], dtype=torch.int64)
        yield found

    def _inputs_of(
        self,
        stack: RecurrentStack,
        tensors: Mapping[str, Tensor],
        outputs: Mapping[RecurrentStack, Tensor],
        random: torch.Generator,
    ) -> Tensor:  # (SEQUENCES, STEPS, input)
        size = stack.input_size
        tables = [one for one in self._embeddings if one.shape[1] == size]
        if tables:
            rows = tensors[_nearest(tables, stack.prefix, lambda one: one.name).name].float()
            return rows[torch.randint(len(rows), (SEQUENCES, STEPS), generator=random)]
        before = [one for one in outputs if one.output_size == size]
        if before:
            return outputs[before[-1]]
        heads = {stack.output_size for stack in self._stacks}
        if any(one.shape[0] == size and one.shape[1] in heads for one in self._linears):
            symbols = torch.randint(size, (SEQUENCES, STEPS), generator=random)
            return one_hot(symbols, size).float()  # it predicts what it takes
        return torch.randn(SEQUENCES, STEPS, size, generator=random)


def _nearest(candidates: Sequence[_One], name: str, name_of: Callable[[_One], str]) -> _One:
    """The candidate whose name begins most like a given one: `decoder.` goes with `decoder.`."""
    return max(
        candidates,
        key=lambda one: len(commonprefix([name_of(one), name])),  # noqa: RUF071 names, not paths
    )
