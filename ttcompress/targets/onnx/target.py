"""The target ONNX: whole models and recurrent stacks, in every store, for any length and batch.

Matrix products run through the factors, in one Scan for each recurrent layer and direction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from ttcompress.model.weights import Kind
from ttcompress.stores import STORES
from ttcompress.system.extras import require_extra
from ttcompress.targets.target import Arrays, Part, Written

if TYPE_CHECKING:
    from ttcompress.targets.calls import Call

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Onnx:
    """A `Target`. Few-bit weights stay so in the file; "int8" multiplies in int8."""

    name = "onnx"
    title = "ONNX"
    folder = False
    finds_models = False
    whole_models = True
    kinds: frozenset[Kind] = frozenset(get_args(Kind))
    stores: Collection[str] = STORES  # a live view: also stores registered later
    roundings: tuple[str, ...] = ("int8",)

    def require(self) -> None:
        """Check that the extra `onnx` is installed."""
        require_extra("onnx", PACKAGES, "ONNX")

    def write(
        self, part: Part, facts: Mapping[str, str], quantize: str | None, name: str
    ) -> Written:
        """Write one ONNX file, with the names of the call."""
        from ttcompress.targets.onnx.build import build  # the extra

        return build(part, facts, int8=quantize == "int8")

    def cannot_run(self) -> str:
        """The extra runs everywhere."""
        return ""

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterable[Arrays]:
        """Check the file by ONNX's rules, and run it in ONNX Runtime."""
        from ttcompress.targets.onnx.sessions import check_and_run  # the extra

        return check_and_run(written.files[""], call.inputs, cases)
