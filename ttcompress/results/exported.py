"""What `export` returns for each file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ttcompress.model.report import Json
from ttcompress.system.json import plain


@dataclass(frozen=True)
class Exported:
    """One part of a model, written for a target.

    Attributes:
        file: the path of its file, or of the first if the target writes several.
        part: the recurrent layer's name, or "model".
        bytes: size of its files.
        inputs: names of the inputs.
        outputs: names of the outputs.
        largest_difference: of any value from torch's in float64, relative to the output's largest.
        relative_difference: norm of the difference over that of torch's output.
        own_difference: like `largest_difference`, of what torch itself gives without float64.
        holds: how many constant values there are in each type. In ONNX few bits are stored in 4 or
            8, codes of `coded` in 8, 16 or 32; the runtime widens them to float32 once, when it
            loads the model.
    """

    file: Path
    part: str
    bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    largest_difference: float
    relative_difference: float
    own_difference: float
    holds: Mapping[str, int]

    def as_json(self) -> Json:
        """Plain values, in the order of the fields."""
        document: Json = plain(self)
        return document
