"""Chooses how each recurrent layer runs in an ONNX file: as a Scan or as ONNX's own operator.

A Scan multiplies by factors, in some ten small operations at each step. The operator LSTM, GRU or
RNN is one operation for the whole sequence, but multiplies by whole matrices. A cost model says
which is faster; what matters is where the two are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import geometric_mean

from torch import nn

from ttcompress.layers.matrices import DenseMatrix, Matrix, matrix_of
from ttcompress.layers.recurrence import run_scan
from ttcompress.layers.recurrent import Recurrent
from ttcompress.layers.swap import replace_layer, set_module
from ttcompress.model.geometry import direction_names
from ttcompress.targets.onnx.operators import kind_of, run_operator

BATCHES = (1, 8)
"""The choice is for the mean of these: the operator loses a little by more sequences at once."""


@dataclass(frozen=True)
class StepCost:
    """Microseconds of a step of a layer in one direction, in ONNX Runtime on one thread.

    Attributes:
        fixed: whatever the sizes are.
        unit: for each hidden unit of each sequence.
        read: for each value of the matrices.
        multiply_add: for each of them and each sequence.
    """

    fixed: float
    unit: float
    read: float
    multiply_add: float

    def of(self, hidden: int, values: int, batch: int) -> float:
        """The time of a step."""
        each = self.read + self.multiply_add * batch
        return self.fixed + self.unit * hidden * batch + each * values


# Fitted to relative times at 64 to 512 hidden units, both batches and four ranks, as printed by
# `python tests/tools/bench_onnx.py --layers` on an EPYC with AVX-512. Up to 1,024 units, each wrong
# choice, 4 of 48, took less than 1.3 times as long as the right one.
SCAN = {
    "LSTM": StepCost(5.40, 6.80e-3, 2.47e-5, 1.83e-5),
    "GRU": StepCost(5.89, 4.03e-3, 2.58e-5, 2.27e-5),
    "RNN": StepCost(1.58, 1.15e-3, 1.44e-5, 1.74e-5),
}
OPERATOR = {
    "LSTM": StepCost(0.17, 3.03e-3, 2.20e-5, 1.91e-5),
    "GRU": StepCost(0.32, 4.22e-3, 1.77e-5, 2.15e-5),
    "RNN": StepCost(0.47, 4.08e-3, 0.0, 3.94e-5),
}


def with_ways(
    model: nn.Module, layers: str, *, int8: bool
) -> tuple[nn.Module, dict[tuple[str, int], str]]:
    """Replace torch's recurrent layers by ours, and let each run as a Scan or as the operator.

    Args:
        model: changed in place.
        layers: "scan" or "lstm" for all that can run so; "auto" chooses for each.
        int8: products will run in int8.

    Returns:
        The model, or what takes its place if it is a layer itself; and how each layer runs and
        why, by the path of its module and its number in it.
    """
    said = dict[tuple[str, int], str]()
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.RNNBase):
            layer = replace_layer(module, {})
            assert isinstance(layer, Recurrent)
            ways = [_way(layer, k, layers, int8) for k in range(layer.num_layers)]
            layer.exported_runs = tuple(run_operator if own else run_scan for own, _ in ways)
            said |= {(path, k): reason for k, (_, reason) in enumerate(ways)}
            model = set_module(model, path, layer)
    return model, said


def _way(layer: Recurrent, k: int, layers: str, int8: bool) -> tuple[bool, str]:
    """Whether a layer runs as the operator, and the reason in words."""
    kind = kind_of(layer.mode)
    operator = f"the operator {'DynamicQuantizeLSTM' if int8 else kind}"
    if layers == "scan":
        return False, "Scan"
    if layer.proj_size:
        return False, "Scan, for ONNX's LSTM has no projection"
    if int8 and kind != "LSTM":
        return False, f"Scan, for ONNX Runtime has no {kind} in int8"
    if layers == "lstm":
        return True, operator
    if int8:
        if is_whole(layer, k):
            return True, f"{operator}, which is ONNX Runtime's own, for its matrices are whole"
        return False, f"Scan, for {operator} would need whole matrices in the file"
    ratio = ratio_of_ways(layer, k)
    if ratio > 1:
        return True, f"{operator}, estimated {ratio:.1f} times as fast as a Scan"
    return False, f"Scan, estimated {1 / ratio:.1f} times as fast as {operator}"


def is_whole(layer: Recurrent, k: int) -> bool:
    """Whether an exported graph has only whole matrices in a layer: dense weights and MPOs."""
    return not any(map(_is_factored, _matrices(layer, k)))


def ratio_of_ways(layer: Recurrent, k: int) -> float:
    """The estimated time of a layer as a Scan, relative to that as the operator."""
    kind, hidden, work = kind_of(layer.mode), layer.hidden_size, _matrices(layer, k)
    directions = layer.stack.directions
    # An MPO is multiplied by its matrix in both.
    scan = sum(m.work.factored if _is_factored(m) else m.work.dense for m in work) // directions
    operator = sum(m.work.dense for m in work) // directions
    ratios = [
        SCAN[kind].of(hidden, scan, batch) / OPERATOR[kind].of(hidden, operator, batch)
        for batch in BATCHES
    ]
    return geometric_mean(ratios)


def _is_factored(matrix: Matrix) -> bool:
    """Whether an exported graph multiplies by two factors; else it does by the whole matrix."""
    return not isinstance(matrix, DenseMatrix) and matrix.layout.middle is not None


def _matrices(layer: Recurrent, k: int) -> list[Matrix]:
    """What a layer multiplies by, in all its directions."""
    directions = layer.stack.directions
    return [
        matrix_of(layer, name)
        for names in direction_names(layer.stack)[k * directions : (k + 1) * directions]
        for name in (names.weight_ih, names.weight_hh)
    ]
