"""Measures how far the hidden states of a model drift from the original's over time.

A recurrent layer feeds on its own output, so a small error in its weights may grow from step to
step. Measuring this needs neither a task nor data.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ttcompress.errors import RecipeError
from ttcompress.layers.stacks import Nonlinearity, layers_of, nonlinearity_of
from ttcompress.model.protocol import Model
from ttcompress.model.weights import RecurrentStack

STEPS = (1, 10, 100)
SEQUENCES = 4


def drift_over_time(
    original: Model,
    compressed: Model,
    inputs: Mapping[str, Tensor] | None = None,
    *,
    seed: int = 0,
    like: nn.Module | None = None,
) -> dict[str, dict[str, float]]:
    """Run each recurrent layer before and after, by itself, on the same inputs from zero states.

    Args:
        original: the model before.
        compressed: the model after.
        inputs: (batch, time, input) by a stack's prefix; the others get standard normal inputs,
            which embeddings and hidden states of trained models roughly resemble.
        seed: for the random inputs.
        like: the whole model as a module, which tells whether an RNN uses relu, as a checkpoint
            does not. Without it, tanh is assumed.

    Returns:
        By prefix and step, `{"lstm.": {"1": 0.02, "10": 0.05, "100": 0.06}}`: the norm of the
        difference of the outputs at that step, relative to the original norm, over the batch.
        Shorter inputs give fewer steps.

    Raises:
        RecipeError: inputs have the wrong shape, or name a stack that does not exist.
    """
    given = inputs or {}
    _check_inputs(given, compressed.stacks)
    result = {}
    for stack in compressed.stacks:
        values = given.get(stack.prefix)
        if values is None:
            values = _standard_normal(stack, seed)
        kind = _nonlinearity(stack, like)
        outputs = [_outputs(stack, kind, model, values) for model in (original, compressed)]
        result[stack.prefix] = _differences(*outputs)
    return result


def _check_inputs(inputs: Mapping[str, Tensor], stacks: tuple[RecurrentStack, ...]) -> None:
    sizes = {stack.prefix: stack.input_size for stack in stacks}
    for prefix, values in inputs.items():
        if prefix not in sizes:
            raise RecipeError(
                f"drift: there is no recurrent layer {prefix!r}. "
                f"Inputs may be given for {', '.join(map(repr, sizes))}."
            )
        if values.dim() != 3 or values.shape[2] != sizes[prefix] or values.shape[1] == 0:
            raise RecipeError(
                f"drift: inputs for {prefix!r} must have the shape (batch, time, {sizes[prefix]}) "
                f"and at least one step, got {tuple(values.shape)}."
            )


def _standard_normal(stack: RecurrentStack, seed: int) -> Tensor:  # (batch, time, input)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SEQUENCES, max(STEPS), stack.input_size, generator=generator)


def _nonlinearity(stack: RecurrentStack, like: nn.Module | None) -> Nonlinearity:
    modules = {} if like is None else dict(like.named_modules())
    return nonlinearity_of(modules.get(stack.prefix.removesuffix(".")))


def _outputs(
    stack: RecurrentStack, nonlinearity: Nonlinearity, model: Model, inputs: Tensor
) -> Tensor:
    """(batch, time, output) in float32; each direction counted from its own start.

    Layer by layer, so that only the weights of one are in memory at a time.
    """
    outputs = inputs.float()
    with torch.no_grad():
        for layer in layers_of(stack):
            outputs = layer.module(model.tensor, nonlinearity)(outputs)[0]
    if not stack.bidirectional:
        return outputs
    forward, reverse = outputs.chunk(2, dim=2)
    return torch.cat([forward, reverse.flip(1)], dim=2)


def _differences(before: Tensor, after: Tensor) -> dict[str, float]:
    steps = [step for step in STEPS if step <= before.shape[1]]
    tiny = torch.finfo(before.dtype).tiny  # a layer that gives zeros has no relative difference
    return {
        str(step): (
            torch.linalg.vector_norm(after[:, step - 1] - before[:, step - 1])
            / torch.linalg.vector_norm(before[:, step - 1]).clamp_min(tiny)
        ).item()
        for step in steps
    }
