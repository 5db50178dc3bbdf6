"""Whether the extra `onnx` is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ttcompress.system.extras import require_extra

if TYPE_CHECKING:
    pass


NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Refuse to go on without the extra.

    Raises:
        MissingExtraError: a package of the extra `onnx` is not installed.
    """
    require_extra("onnx", NEEDED, "ONNX")
