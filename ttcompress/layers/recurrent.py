"""LSTM, GRU, RNN and their cells, whose matrices may be trains.

Each replaces the `torch.nn` layer of the same name, and is a subclass: same call, same attributes,
same state dict except for the cores. `run` says how it computes: "factored" loops over small
products, "rebuilt" makes the dense weights and calls torch's fused kernel, "auto" chooses the
faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from ttcompress.errors import ArtifactError
from ttcompress.layers.calls import Call, Hidden, Input
from ttcompress.layers.matrices import (
    Matrix,
    TrainWeight,
    batch_for_choice,
    matrix_of,
    put_matrix,
)
from ttcompress.layers.recurrence import Direction, LayerRun, Mode, State, run_loop, run_scan, step
from ttcompress.layers.speed import LayerWork, Run, Way, check_run, faster_way
from ttcompress.layers.stacks import nonlinearity_of, stack_of
from ttcompress.layers.tracing import call_node, is_traced
from ttcompress.model.geometry import DirectionNames, direction_names, tensor_shapes
from ttcompress.model.weights import Kind, RecurrentStack
from ttcompress.trains.train import Train

_MODES: dict[str, Mode] = {
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn of tanh": "RNN_TANH",
    "rnn of relu": "RNN_RELU",
}

_FUSED: dict[Mode, tuple[Any, Any]] = {  # torch's kernels: of a whole layer, and of one step
    "LSTM": (torch.lstm, torch.lstm_cell),
    "GRU": (torch.gru, torch.gru_cell),
    "RNN_TANH": (torch.rnn_tanh, torch.rnn_tanh_cell),
    "RNN_RELU": (torch.rnn_relu, torch.rnn_relu_cell),
}


class RecurrentBase(nn.Module):
    """The tensors of a recurrent layer or cell under torch's names; use one of the subclasses.

    Args:
        stack: the geometry.
        tensors: a train or a tensor for every name that `torch.nn` gives, "weight_ih_l0", ...
        nonlinearity: "tanh" or "relu", for an RNN.
        run: how to compute.

    Raises:
        ValueError: the geometry is of another kind, or an option is not one of its choices.
        ArtifactError: a tensor is missing, unknown or of another shape; all of them are listed.
    """

    kind: ClassVar[Kind]
    rebuilt_in_training: ClassVar[bool]  # "auto" rebuilds the dense weights at every training step
    options: ClassVar[tuple[str, ...]] = ()  # what `from_dense` copies from torch's layer

    def __init__(
        self,
        stack: RecurrentStack,
        tensors: Mapping[str, Train | Tensor],
        *,
        nonlinearity: str = "tanh",
        run: Run = "auto",
    ) -> None:
        nn.Module.__init__(self)  # not torch's layer, whose dense parameters are not wanted
        if stack.kind != self.kind:
            raise ValueError(f"the geometry is of kind {stack.kind}, but this is a {self.kind}")
        equations = f"rnn of {nonlinearity}" if stack.kind == "rnn" else stack.kind
        if equations not in _MODES:
            raise ValueError(f"nonlinearity is {nonlinearity!r}; it must be 'tanh' or 'relu'")
        self.stack = stack
        self._mode = _MODES[equations]
        self.mode: str = self._mode
        self.nonlinearity = "relu" if self.mode == "RNN_RELU" else "tanh"
        self.run: Run = check_run(run)
        self.input_size = stack.input_size
        self.hidden_size = stack.hidden_size
        self.bias = stack.bias
        self._names = direction_names(stack)
        self._ways: dict[tuple[int, int, bool], Way] = {}
        _check_tensors(stack, tensors)
        for name in tensor_shapes(stack):
            put_matrix(self, name, tensors[name])

    @classmethod
    def from_dense(
        cls,
        module: nn.RNNBase | nn.RNNCellBase,
        tensors: Mapping[str, Train | Tensor],
        *,
        run: Run = "auto",
    ) -> Self:
        """The same layer with some tensors replaced; the others are copied from `module`."""
        everything = {**dict(module.named_parameters()), **tensors}
        options = {name: getattr(module, name) for name in cls.options}
        options["nonlinearity"] = nonlinearity_of(module)
        return cls(stack_of(module), everything, run=run, **options).train(module.training)

    @property
    def trains(self) -> dict[str, TrainWeight]:
        """The matrices held as trains."""
        return {name: m for name, m in self.named_children() if isinstance(m, TrainWeight)}

    def how(self, batch: int = 1, steps: int = 1) -> Way:
        """The way in which a call of this size would run now: what `run` says, or the cheaper."""
        if is_traced():
            return "rebuilt"
        if self.run != "auto":
            return self.run
        tracked = torch.is_grad_enabled() and any(w.trained for w in self.trains.values())
        if tracked and self.training and self.rebuilt_in_training:
            return "rebuilt"
        key = (batch, steps, tracked)
        if key not in self._ways:  # if weights were replaced since, a wrong choice only costs time
            layers = tuple(
                LayerWork(
                    self._mode,
                    self.hidden_size,
                    ih=self._matrix(names.weight_ih).work,
                    hh=self._matrix(names.weight_hh).work,
                    hr=None if names.weight_hr is None else self._matrix(names.weight_hr).work,
                )
                for names in self._names
            )
            device = getattr(self, self._names[0].weight_ih).device.type
            way = faster_way(layers, batch, steps, device, tracked=tracked)
            self._ways[key] = way if self.trains else "rebuilt"
        return self._ways[key]

    def extra_repr(self) -> str:
        """Geometry and way to run."""
        return f"{self.input_size}, {self.hidden_size}, run={self.run!r}"

    def _matrix(self, name: str) -> Matrix:
        return matrix_of(self, name)

    def _direction(
        self, names: DirectionNames, batch: int, steps: int = 1, *, reverse: bool = False
    ) -> Direction:
        """One layer in one direction, ready to run `steps` steps without its dense weights."""
        hr = None if names.weight_hr is None else self._matrix(names.weight_hr)
        return Direction(
            mode=self._mode,
            ih=self._matrix(names.weight_ih).product(batch * steps),
            hh=self._matrix(names.weight_hh).product(batch, steps),
            hr=None if hr is None else hr.product(batch, steps),
            bias_ih=None if names.bias_ih is None else getattr(self, names.bias_ih),
            bias_hh=None if names.bias_hh is None else getattr(self, names.bias_hh),
            reverse=reverse,
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._ways.clear()  # the layer may move to another device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _check_tensors(stack: RecurrentStack, tensors: Mapping[str, Train | Tensor]) -> None:
    wanted = tensor_shapes(stack)
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} is not a tensor of this layer" for name in tensors if name not in wanted]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, but the layer needs {shape}"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise ArtifactError(
            "; ".join(problems) + ". Use the file with the model that it was made from."
        )


class Recurrent(RecurrentBase, nn.RNNBase):
    """The base class of the three layers; use one of them.

    Args:
        stack, tensors, nonlinearity, run: as for `RecurrentBase`.
        batch_first: the input is (batch, time, input) and not (time, batch, input).
        dropout: its probability, on the output of every layer but the last, in training.

    Attributes:
        exported_runs: how each layer runs in an exported graph; None: all by `run_scan`. A target
            puts its own operators here.
    """

    exported_runs: Sequence[LayerRun] | None = None
    rebuilt_in_training = True
    options = ("batch_first", "dropout")

    def __init__(
        self,
        stack: RecurrentStack,
        tensors: Mapping[str, Train | Tensor],
        *,
        nonlinearity: str = "tanh",
        batch_first: bool = False,
        dropout: float = 0.0,
        run: Run = "auto",
    ) -> None:
        super().__init__(stack, tensors, nonlinearity=nonlinearity, run=run)
        self.batch_first = batch_first
        self.dropout = dropout
        self.num_layers = stack.num_layers
        self.bidirectional = stack.bidirectional
        self.proj_size = stack.proj_size
        # What methods of torch's class read: names by layer and direction, and no flat weights.
        self._all_weights = [list(names.present) for names in self._names]
        self._flat_weights_names, self._flat_weights, self._flat_weight_refs = [], [], []

    def flatten_parameters(self) -> None:
        """Nothing to do; here because code written for `torch.nn` calls it."""

    def extra_repr(self) -> str:
        """Geometry and way to run."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, proj_size={self.proj_size}, run={self.run!r}"
        )

    def forward(self, input: Input, hx: Hidden | None = None) -> tuple[Input, Hidden]:
        """Like the `forward` of torch's layer of this name."""
        if isinstance(input, fx.Proxy):
            return call_node(self, input, hx)
        if not torch.compiler.is_exporting():
            result: tuple[Input, Hidden] = self._run_eagerly(input, hx)
            return result
        if isinstance(input, PackedSequence):
            raise ValueError("a packed sequence cannot be exported; pass a padded tensor")
        call = self._read(input, hx)
        return call.result(
            *self._run_by_layer(call, self.exported_runs or (run_scan,) * self.num_layers)
        )

    # As with torch's own layers, compilers leave it out of their graph: the loop is fast already.
    # `torch.compiler.disable` does the same, but takes a second of every start to be imported.
    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _run_eagerly(self, input: Input, hx: Hidden | None) -> tuple[Input, Hidden]:
        call = self._read(input, hx)
        by_torch = call.autocast and self.run == "auto"
        if by_torch or self.how(call.batch, call.steps) == "rebuilt":
            return call.result(*self._run_fused(call))
        tracked = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (call.data, *call.state, *self.parameters())
        )
        loop = partial(run_loop, in_place=not (tracked or call.autocast))
        return call.result(*self._run_by_layer(call, (loop,) * self.num_layers))

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(self, self._names[0].weight_ih).dtype
        return dtype

    def _read(self, input: Input, hx: Hidden | None) -> Call:
        hidden = self.proj_size or self.hidden_size
        return Call.read(
            input,
            hx,
            batch_first=self.batch_first,
            input_size=self.input_size,
            dtype=self._dtype,
            state_sizes=(hidden, self.hidden_size) if self.mode == "LSTM" else (hidden,),
            layers=len(self._names),
        )

    def _run_by_layer(self, call: Call, runs: Sequence[LayerRun]) -> tuple[Tensor, State]:
        """Run layer by layer, each in all its directions."""
        data, sizes, lasts = call.data, call.sizes, []
        directions = self.stack.directions
        firsts = range(0, len(self._names), directions)
        for first, run in zip(firsts, runs, strict=True):
            if first and self.dropout:
                data = dropout(data, self.dropout, self.training)
            places = range(first, first + directions)
            layer = [
                self._direction(self._names[k], call.batch, call.steps, reverse=k > first)
                for k in places
            ]
            states = [tuple(member[k] for member in call.state) for k in places]
            data, ends = run(layer, data, states, sizes)
            lasts += ends
        return data, tuple(torch.stack(members) for members in zip(*lasts, strict=True))

    def _run_fused(self, call: Call) -> tuple[Tensor, State]:
        """Rebuild the dense weights and run torch's kernel for all layers at once."""
        names = [name for direction in self._names for name in direction.present]
        # cuDNN wants all weights in one type, but autocast multiplies trains out in another.
        dtype = self._dtype
        flat = [self._matrix(name).dense().to(dtype) for name in names]
        options = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        first = list(call.state) if self.mode == "LSTM" else call.state[0]
        kernel, _ = _FUSED[self._mode]
        if call.packed is None:
            output, *last = kernel(call.data, first, flat, *options, False)
        else:
            output, *last = kernel(call.data, call.packed.batch_sizes, first, flat, *options)
        return output, tuple(last)


class LSTM(Recurrent, nn.LSTM):  # type: ignore[misc]
    """`torch.nn.LSTM` with trains for matrices."""

    kind = "lstm"


class GRU(Recurrent, nn.GRU):  # type: ignore[misc]
    """`torch.nn.GRU` with trains for matrices."""

    kind = "gru"


class RNN(Recurrent, nn.RNN):  # type: ignore[misc]
    """`torch.nn.RNN` with trains for matrices."""

    kind = "rnn"


class Cell(RecurrentBase, nn.RNNCellBase):
    """The base class of the three cells; use one of them. It takes the arguments of its base."""

    rebuilt_in_training = False  # called at every step, it would rebuild at every step

    def forward(self, input: Tensor, hx: Hidden | None = None) -> Hidden:
        """Like the `forward` of torch's cell of this name."""
        if isinstance(input, fx.Proxy):
            return call_node(self, input, hx)
        if input.dim() not in (1, 2):
            raise ValueError(f"input has {input.dim()} dimensions; give 1 (unbatched) or 2")
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) is {x.shape[1]}, but the cell's input_size is {self.input_size}"
            )
        state = self._step(x, self._first_state(x, hx, batched))
        state = state if batched else tuple(member.squeeze(0) for member in state)
        return state if self.mode == "LSTM" else state[0]

    def _first_state(self, x: Tensor, hx: Hidden | None, batched: bool) -> State:
        wanted = (x.shape[0], self.hidden_size)
        if hx is None:
            zeros = x.new_zeros(wanted)
            return (zeros, zeros) if self.mode == "LSTM" else (zeros,)
        state = tuple(hx) if self.mode == "LSTM" else (hx,)
        state = state if batched else tuple(member.unsqueeze(0) for member in state)
        for member in state:
            if tuple(member.shape) != wanted:
                raise RuntimeError(
                    f"the state is {tuple(member.shape)}, but this call needs {wanted}"
                )
        return state

    def _step(self, x: Tensor, state: State) -> State:
        (names,) = self._names
        if self.how(batch_for_choice(x.shape[0])) == "factored":
            layer = self._direction(names, x.shape[0])
            return step(layer, layer.project(x), state)
        weights = self._matrix(names.weight_ih).dense(), self._matrix(names.weight_hh).dense()
        biases = (self.bias_ih, self.bias_hh) if self.bias else (None, None)
        _, kernel = _FUSED[self._mode]
        if self.mode == "LSTM":
            return tuple(kernel(x, list(state), *weights, *biases))
        return (kernel(x, state[0], *weights, *biases),)


class LSTMCell(Cell, nn.LSTMCell):  # type: ignore[misc]
    """`torch.nn.LSTMCell` with trains for matrices."""

    kind = "lstm"


class GRUCell(Cell, nn.GRUCell):  # type: ignore[misc]
    """`torch.nn.GRUCell` with trains for matrices."""

    kind = "gru"


class RNNCell(Cell, nn.RNNCell):  # type: ignore[misc]
    """`torch.nn.RNNCell` with trains for matrices."""

    kind = "rnn"
