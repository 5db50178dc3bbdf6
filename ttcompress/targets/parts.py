"""Makes the parts of a compressed model that are exported: its recurrent stacks, or all of it.

The whole model runs in the module that a task builds, or in a user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ttcompress.artifact import CompressedModel
from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.layers.recurrent_model import Chain, RecurrentModel
from ttcompress.layers.stacks import Nonlinearity
from ttcompress.layers.structure import structure_of
from ttcompress.layers.swap import load_into, recurrent_layer
from ttcompress.model.geometry import stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.targets.calls import BATCH, EXAMPLE_SIZES, TIME, Axes, Call, FlatModule
from ttcompress.targets.target import Part
from ttcompress.tasks.architecture import read_chain
from ttcompress.tasks.own import blaming
from ttcompress.tasks.protocol import Task


@dataclass(frozen=True, eq=False)
class OwnModule:
    """A user's module and how it is called.

    Attributes:
        module: the one that the artifact was made from; it is copied.
        example: positional arguments, tensors or nests of them; no free axis of size 0 or 1. The
            check of an export makes inputs like it: integers without a time axis are lengths if
            the largest is the example's time, and positions if the smallest is 0.
        axes: for each tensor of the example the names of its free axes: `{0: "time", 1: "batch"}`.
            All but "batch" count as time axes; different ones are free of each other.
        inputs: a name for each of these tensors, by default from `forward`'s parameters.
        outputs: a name for each tensor that is returned.
    """

    module: nn.Module
    example: tuple[Any, ...]
    axes: tuple[Axes, ...]
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None


def recurrent_parts(
    compressed: CompressedModel, nonlinearity: Nonlinearity = "tanh"
) -> Iterator[Part]:
    """Make each recurrent stack a module of (time, batch, input) and its initial state.

    A cell becomes a layer that steps through time.

    Args:
        compressed: the model.
        nonlinearity: for RNNs, since a checkpoint does not tell it.
    """
    content = compressed.content()
    by_name = {name: stored for stored in compressed.weights for name in stored.weight.names}
    for stack in compressed.stacks:
        module = recurrent_layer(stack, content, nonlinearity, batch_first=False)
        names = stored_names(stack).items()
        weights = tuple(((own,), by_name[name]) for own, name in names if name in by_name)
        yield Part(stack.prefix.rstrip("."), module, stack_call(stack), weights, stack)


def stack_call(stack: RecurrentStack) -> Call:
    """The call of torch's layer with this geometry: (time, batch, input) and its state."""
    batch, time = EXAMPLE_SIZES[BATCH], EXAMPLE_SIZES[TIME]
    layers = stack.num_layers * (2 if stack.bidirectional else 1)
    hidden = torch.zeros(layers, batch, stack.proj_size or stack.hidden_size)
    x = torch.zeros(time, batch, stack.input_size)
    if stack.kind != "lstm":
        return Call((x, hidden), ({0: TIME, 1: BATCH}, {1: BATCH}), ("x", "h0"), ("y", "hn"))
    memory = torch.zeros(layers, batch, stack.hidden_size)
    axes = ({0: TIME, 1: BATCH}, {1: BATCH}, {1: BATCH})
    return Call((x, (hidden, memory)), axes, ("x", "h0", "c0"), ("y", "hn", "cn"))


def own_part(compressed: CompressedModel, own: OwnModule) -> Part:
    """Put the compressed weights into a user's module."""
    inputs = own.inputs or _argument_names(own)
    call = Call(own.example, own.axes, inputs, ())
    module = load_into(deepcopy(own.module), compressed).eval()
    cure = "Give an example that the module takes."
    with torch.no_grad(), blaming("export: the module does not run on the example", cure):
        count = len(FlatModule(module, call)(*call.tensors))
    outputs = own.outputs or (("output",) if count == 1 else _numbered("output", count))
    if len(outputs) != count:
        raise RecipeError(
            f"export: {len(outputs)} outputs were named, but the module has {count}. "
            "Give a name for each."
        )
    return _whole(compressed, module, Call(own.example, own.axes, inputs, outputs))


def task_part(compressed: CompressedModel, task: Task) -> Part:
    """Put the compressed weights into a task's model.

    A built-in task's model takes symbols (batch, time) or values (batch, time, features); if the
    task carries state from batch to batch, the state of every recurrent layer is both an input and
    an output. For other tasks the first training batch shows the call: see `_free_axes`, and
    `_with_states` for the states that a module takes and returns.

    Raises:
        RecipeError: a task of the user's own does not show how its model is called.
    """
    module = load_into(task.build(), compressed).eval()
    if isinstance(chain := getattr(task, "chain", None), Chain):  # a built-in task's
        flags = (getattr(task, flag, False) for flag in ("takes_values", "carries_state"))
        return _whole(compressed, module, _chain_call(chain, *flags))
    example = _called_with(task, module)
    own = OwnModule(task.build().eval(), example, _free_axes(example))
    return own_part(compressed, _with_states(own) or own)


def common_part(compressed: CompressedModel, nonlinearity: Nonlinearity) -> Part | None:
    """The whole model if it has the common structure, with an output at each step; else None.

    With an embedding it takes symbols and carries its state, without one it takes values.
    """
    try:
        chain = read_chain(structure_of(compressed), "export")
    except RecipeError:
        return None
    module = load_into(RecurrentModel(chain, nonlinearity=nonlinearity), compressed).eval()
    call = _chain_call(chain, chain.embedding is None, chain.embedding is not None)
    return _whole(compressed, module, call)


def _whole(compressed: CompressedModel, module: nn.Module, call: Call) -> Part:
    """The part of a whole model.

    Raises:
        RecipeError: the module computes in another type than float32.
    """
    types = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if types:
        raise RecipeError(
            f"export: the module computes in {', '.join(sorted(map(str, types)))}, but exports "
            "are in float32. Call .float() on the module and on the floats of the example."
        )
    weights = tuple((stored.weight.names, stored) for stored in compressed.weights)
    return Part("", module, call, weights)


def _chain_call(chain: Chain, takes_values: bool, carries_state: bool) -> Call:
    """The call of a `RecurrentModel`: its input, and if state is carried, one for each stack."""
    sizes = EXAMPLE_SIZES[BATCH], EXAMPLE_SIZES[TIME]
    if takes_values:
        values = torch.zeros(*sizes, chain.symbols)
        return Call((values,), ({0: BATCH, 1: TIME},), ("input",), ("output",))
    symbols = torch.randint(chain.symbols, sizes, generator=torch.Generator().manual_seed(0))
    if not carries_state:
        return Call((symbols,), ({0: BATCH, 1: TIME},), ("input",), ("logits",))
    calls = [stack_call(stack) for stack in chain.stacks]
    paths = [stack.prefix if len(calls) > 1 else "" for stack in chain.stacks]
    named = list(zip(paths, calls, strict=True))
    return Call(
        example=(symbols, tuple(call.example[1] for call in calls)),
        axes=({0: BATCH, 1: TIME}, *(axes for call in calls for axes in call.axes[1:])),
        inputs=("input", *(path + name for path, c in named for name in c.inputs[1:])),
        outputs=("logits", *(path + name for path, c in named for name in c.outputs[1:])),
    )


def _free_axes(example: Sequence[Tensor]) -> tuple[Axes, ...]:
    """The first axis of every tensor is the batch, and the second is time.

    But floats of two axes beside a sequence of another length are (batch, features): a state.
    """
    sequences = [one for one in example if one.dim() > 1 and _is_sequence(one)]
    times = {one.shape[1] for one in sequences}
    return tuple(
        {0: BATCH, 1: TIME}
        if one.dim() > 1 and (_is_sequence(one) or not times or one.shape[1] in times)
        else {0: BATCH}
        for one in example
    )


def _with_states(own: OwnModule) -> OwnModule | None:
    """The module with the states that it returns among its inputs; None if it takes none.

    It does as most code has it: `forward` returns (output, state), and its next argument is a
    state that may be left out, for which zeros stand. Each member has a batch axis and no other
    free one.
    """
    parameters = list(signature(own.module.forward).parameters.values())[len(own.example) :]
    if not parameters or parameters[0].default is not None:
        return None
    try:
        with torch.no_grad():
            result = own.module(*own.example)
            output, state = result
            zeros = pytree.tree_map(torch.zeros_like, state)
            again = own.module(*own.example, zeros)
            axes = _batch_axes(own, state)
            names = _state_names(state)
    except Exception:  # of the user's code, called in a way that it need not support
        return None
    pairs = zip(pytree.tree_leaves(result), pytree.tree_leaves(again), strict=True)
    if axes is None or not all(torch.allclose(one, other, atol=1e-5) for one, other in pairs):
        return None
    count = len(pytree.tree_leaves(output))
    outputs = ("output",) if count == 1 else _numbered("output", count)
    return OwnModule(
        own.module,
        (*own.example, zeros),
        (*own.axes, *axes),
        (*_argument_names(own), *(f"{name}0" for name in names)),
        (*outputs, *(f"{name}n" for name in names)),
    )


def _batch_axes(own: OwnModule, state: Any) -> tuple[Axes, ...] | None:
    """The axis of each member of a state that the batch has; None if any has not just that one."""
    found = []
    for name in (BATCH, TIME):
        shorter = list(own.example)
        for k, free in enumerate(own.axes):
            for axis in (axis for axis, its in free.items() if its == name):
                shorter[k] = shorter[k].narrow(axis, 0, shorter[k].shape[axis] - 1)
        _, other = own.module(*shorter)
        pairs = zip(pytree.tree_leaves(state), pytree.tree_leaves(other), strict=True)
        found.append([[a for a, b in enumerate(o.shape) if b != s.shape[a]] for s, o in pairs])
    by_batch, by_time = found
    if any(by_time) or any(len(axes) != 1 for axes in by_batch):
        return None
    return tuple({axis: BATCH} for (axis,) in by_batch)


def _state_names(state: Any) -> list[str]:
    """`h` of a single member, `h` and `c` of a pair, with the number of each in a list before it.

    >>> _state_names([(torch.zeros(1), torch.zeros(1)), torch.zeros(1)])
    ['0.h', '0.c', '1.h']
    """
    if isinstance(state, Tensor):
        return ["h"]
    if isinstance(state, tuple) and len(state) == 2 and all(isinstance(x, Tensor) for x in state):
        return ["h", "c"]
    if not isinstance(state, (list, tuple)):
        raise TypeError(f"{type(state).__name__} is not a state")
    return [f"{k}.{name}" for k, member in enumerate(state) for name in _state_names(member)]


def _is_sequence(tensor: Tensor) -> bool:
    return tensor.dim() > 2 or not tensor.is_floating_point()


def _called_with(task: Task, module: nn.Module) -> tuple[Tensor, ...]:
    """Record the tensors that a task passes to its model for the first training batch.

    Raises:
        RecipeError: there is no such batch, or nothing that could be recorded.
    """
    seen: list[tuple[Any, ...]] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    try:
        with evaluating(module):
            for batch in islice(task.train_batches(0, 0), 1):
                task.outputs(module, batch, None)
    finally:
        handle.remove()
    found = tuple(one for call in seen[:1] for one in call if isinstance(one, Tensor))
    if not found:
        fact = "gives its model no tensor by position" if seen else "has no training batch"
        raise RecipeError(
            f"task {task.name}: {fact}, which would show how the model is called. Give the module "
            "with example inputs, or omit the task to export the recurrent layers alone."
        )
    return found


def _argument_names(own: OwnModule) -> tuple[str, ...]:
    """Names from `forward`'s parameters, numbered if an argument is a nest."""
    names: list[str] = []
    parameters = list(signature(own.module.forward).parameters)
    for k, argument in enumerate(own.example):
        name = parameters[k] if k < len(parameters) else f"input_{k}"
        count = len(pytree.tree_leaves(argument))
        names += [name] if isinstance(argument, Tensor) else _numbered(name, count)
    return tuple(names)


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{k}" for k in range(count))
