"""The target ONNX: whole models and recurrent stacks, in every store, for any length and batch.

Matrix products run through the factors, in one Scan for each recurrent layer and direction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from ttcompress.errors import RecipeError
from ttcompress.model.weights import Kind
from ttcompress.stores import STORES
from ttcompress.system.extras import require_extra
from ttcompress.targets.target import Arrays, Part, Written

if TYPE_CHECKING:
    from ttcompress.targets.calls import Call

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


OPSETS = range(15, 24)
"""Those that can be chosen: the oldest is of 2021, and torch writes none above the newest."""

LAYERS = ("auto", "scan", "lstm")
"""How recurrent layers run: as Scans, as ONNX's operators, or each in the faster way."""


class Onnx:
    """A `Target`. Few-bit weights stay so in the file; "int8" multiplies in int8.

    Args:
        opset: the version of ONNX's operators, or None for the lowest that costs no bytes.
        layers: one of `LAYERS`.
    """

    name = "onnx"
    title = "ONNX"
    folder = False
    finds_models = False
    whole_models = True
    kinds: frozenset[Kind] = frozenset(get_args(Kind))
    stores: Collection[str] = STORES  # a live view: also stores registered later
    roundings: tuple[str, ...] = ("int8",)

    def __init__(self, opset: int | None = None, layers: str = "auto") -> None:
        self.opset, self.layers = opset, layers

    def with_options(self, options: Mapping[str, Any]) -> Onnx:
        """The same with `opset` or `layers`."""
        opset, layers = options.get("opset", self.opset), options.get("layers", self.layers)
        if opset is not None and opset not in OPSETS:
            raise RecipeError(f"opset: expected {OPSETS[0]} to {OPSETS[-1]}, got {opset!r}.")
        if layers not in LAYERS:
            raise RecipeError(f"layers: expected {' or '.join(LAYERS)}, got {layers!r}.")
        return Onnx(opset, layers)

    def require(self) -> None:
        """Check that the extra `onnx` is installed."""
        require_extra("onnx", PACKAGES, "ONNX")

    def write(
        self, part: Part, facts: Mapping[str, str], quantize: str | None, name: str
    ) -> Written:
        """Write one ONNX file, with the names of the call."""
        from ttcompress.targets.onnx.build import build  # the extra

        int8 = quantize == "int8"
        return build(part, facts, int8=int8, opset=self.opset, layers=self.layers)

    def cannot_run(self) -> str:
        """The extra runs everywhere."""
        return ""

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterable[Arrays]:
        """Check the file by ONNX's rules, and run it in ONNX Runtime."""
        from ttcompress.targets.onnx.sessions import check_and_run  # the extra

        return check_and_run(written.files[""], call.inputs, cases)
