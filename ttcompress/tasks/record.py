"""Records what a module's recurrent layers are given, so that a model can be calibrated and trained
later without its code, its data or any label: `record`.

The file is one of safetensors. For each layer it holds chunks of sequences in order:
`lstm.0.inputs` (batch, time, input), `lstm.0.lengths` (batch,) where sequences differ in length,
and `lstm.0.h0`, `lstm.0.c0` (layers * directions, batch, size) where the first state is not zero.
`lstm.check` holds the layer's outputs for its first sequence, which tell this model from another.
The steps of a loop around a cell stand below each other, each of length 1 with its own first state;
the metadata say how many. Linear layers have inputs alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.system.files import written_whole
from ttcompress.system.safetensors import Spool
from ttcompress.tasks.batches import check_batches, run_batch
from ttcompress.tasks.own import blaming
from ttcompress.tasks.protocol import OutputKind

RECORD = "ttcompress_record"
"""The key of the metadata that identifies a file of recorded inputs."""

VERSION = 1

MOST_BYTES = 1_000_000_000
"""Where recording stops by default."""

CURE = "Give batches that the module takes, or `forward=` a function that calls it with one."

ROUNDING = 1e-3
"""Values are kept in float16 if that changes their norm by less than this fraction."""


@dataclass(frozen=True)
class Recording:
    """What was recorded: the time steps of each layer by its path, and the size of the file.

    `complete` is False if the limit on the size was reached before the batches ended.
    """

    path: Path
    positions: dict[str, int]
    bytes: int
    complete: bool


def record(
    model: nn.Module,
    batches: Iterable[Any],
    path: str | Path,
    *,
    forward: Callable[[nn.Module, Any], Any] = run_batch,
    linear: bool = False,
    predicts: OutputKind | None = None,
    most_bytes: int = MOST_BYTES,
    overwrite: bool = False,
) -> Recording:
    """Run a module on batches, and write what each of its recurrent layers is given to a file.

    Memory stays flat: each batch is written to disk as it comes.

    Args:
        model: the trained module; it is run in evaluation, and not changed.
        batches: such as a DataLoader; labels in them are not used.
        path: of the file, usually `*.safetensors`.
        forward: runs the model on a batch; by default see `run_batch`.
        linear: record the inputs of linear layers too, to calibrate them.
        predicts: what the outputs of the one linear layer right behind a recurrent layer are:
            "classes" (logits), "binary" or "values"; training on the file then compares these.
        most_bytes: where to stop.
        overwrite: replace the file if it exists.

    Raises:
        RecipeError: there is no recurrent layer, no batch, or an input that is not finite.
        OutputPathError: the file exists (without `overwrite`), or its folder is missing.
        OutputError: the disk is full or not writable.
    """
    path, complete = Path(path), True
    check_batches("record", batches)
    with written_whole(path, overwrite) as file, Spool(path.parent) as spool:
        recorder = _Recorder(spool)
        hooks = [
            module.register_forward_hook(partial(recorder.note, name), with_kwargs=True)
            for name, module in model.named_modules()
            if isinstance(module, nn.RNNBase | nn.RNNCellBase)
            or (linear and isinstance(module, nn.Linear))
        ]
        if not hooks:
            raise RecipeError(
                f"record: {type(model).__name__} has no recurrent layer of torch.nn. "
                "Record the module that holds the LSTM."
            )
        try:
            for batch in batches:
                if spool.bytes >= most_bytes:
                    complete = False
                    break
                with evaluating(model), blaming("record: a batch does not run", CURE):
                    forward(model, batch)
                recorder.flush()
        finally:
            for hook in hooks:
                hook.remove()
        if not recorder.steps:
            raise RecipeError("record: no batch reached a recurrent layer. Give batches that do.")
        facts = {
            "version": VERSION,
            "chunks": {name: len(steps) for name, steps in recorder.steps.items()},
            "steps": {name: steps for name, steps in recorder.steps.items() if max(steps) > 1},
            "predicts": predicts,
        }
        spool.write(file, {RECORD: json.dumps(facts)})
    return Recording(path, dict(recorder.positions), path.stat().st_size, complete)


@dataclass
class _Recorder:
    """Collects the calls of one batch, and writes them as chunks."""

    spool: Spool
    calls: defaultdict[str, list[_Inputs]] = field(default_factory=lambda: defaultdict(list))
    steps: dict[str, list[int]] = field(default_factory=dict)  # for each chunk
    positions: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        """A forward hook: keep what the layer was given until the batch ends."""
        x = args[0] if args else kwargs["input"]
        hx = args[1] if len(args) > 1 else kwargs.get("hx")
        found = _read_linear(x) if isinstance(module, nn.Linear) else _read_call(module, x, hx)
        if not all(bool(t.isfinite().all()) for t in (found.inputs, *found.states)):
            raise RecipeError(
                f"record: {name or type(module).__name__} is given NaN or infinity. "
                "Check the batches and the model."
            )
        if name not in self.steps and not isinstance(module, nn.Linear):
            self.spool.add(f"{prefix_of(name)}check", _first_outputs(module, out, found))
        self.steps.setdefault(name, [])
        self.calls[name].append(found)

    def flush(self) -> None:
        """Write the calls of a batch; steps of a loop become one chunk."""
        for name, calls in self.calls.items():
            alike: defaultdict[Any, list[_Inputs]] = defaultdict(list)
            for number, call in enumerate(calls):
                own = number if call.lengths is not None else -1
                alike[call.inputs.shape[1:], len(call.states), own].append(call)
            for group in alike.values():
                place = f"{prefix_of(name)}{len(self.steps[name])}"
                parallel = {len(call.inputs) for call in group}
                self.steps[name].append(len(group) if len(parallel) == 1 else 1)
                inputs = torch.cat([call.inputs for call in group])
                self.positions[name] += inputs.shape[0] * inputs.shape[1]
                self.spool.add(f"{place}.inputs", _narrow(inputs))
                if group[0].lengths is not None:
                    self.spool.add(f"{place}.lengths", group[0].lengths)
                for member, states in zip(
                    ("h0", "c0"), zip(*(call.states for call in group), strict=True), strict=False
                ):
                    self.spool.add(f"{place}.{member}", _narrow(torch.cat(states, 1)))
        self.calls.clear()


@dataclass(frozen=True, eq=False)
class _Inputs:
    """One call: (batch, time, input), the first states if they are not zero, and the lengths."""

    inputs: Tensor
    states: tuple[Tensor, ...] = ()
    lengths: Tensor | None = None


def _read_linear(x: Tensor) -> _Inputs:
    return _Inputs(x.detach().flatten(0, -2)[:, None])


def _read_call(module: nn.Module, x: Any, hx: Any) -> _Inputs:
    """Bring a call of a layer or a cell into one form."""
    states = () if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    lengths = None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=True)
    elif isinstance(module, nn.RNNCellBase):
        x, states = x.reshape(-1, 1, x.shape[-1]), tuple(s.reshape(-1, s.shape[-1]) for s in states)
        states = tuple(s[None] for s in states)
    elif x.dim() == 2:
        x, states = x[None], tuple(s[:, None] for s in states)
    elif not module.batch_first:
        x = x.transpose(0, 1)
    if not any(bool(s.any()) for s in states):
        states = ()
    return _Inputs(x.detach(), tuple(s.detach() for s in states), lengths)


def _first_outputs(module: nn.Module, out: Any, call: _Inputs) -> Tensor:
    """The outputs of the first sequence, (time, output), without padding."""
    if isinstance(module, nn.RNNCellBase):
        hidden = out if isinstance(out, Tensor) else out[0]
        return hidden.detach().reshape(-1, hidden.shape[-1])[:1].float()
    outputs = out[0]
    if isinstance(outputs, PackedSequence):
        outputs, _ = pad_packed_sequence(outputs, batch_first=True)
    elif outputs.dim() == 3 and not module.batch_first:
        outputs = outputs.transpose(0, 1)
    first: Tensor = outputs if outputs.dim() == 2 else outputs[0]
    real = len(first) if call.lengths is None else int(call.lengths[0])
    return first[:real].detach().float()


def _narrow(values: Tensor) -> Tensor:
    """In float16 where its range holds the values, else in float32."""
    half = values.half()
    lost = (half.double() - values.double()).norm()
    fits = bool(half.isfinite().all()) and bool(lost <= ROUNDING * values.double().norm())
    return half if fits else values.float()


def prefix_of(name: str) -> str:
    """What begins the names of a layer's tensors: its path and a dot, or nothing at the root."""
    return f"{name}." if name else ""
