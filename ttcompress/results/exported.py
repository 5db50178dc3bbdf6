"""What `export` returns for each file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ttcompress.model.report import Json
from ttcompress.system.json import plain


@dataclass(frozen=True)
class Exported:
    """One part of a model, written for a target.

    Attributes:
        file: the path of its file or folder.
        part: the recurrent layer's name, or "model".
        bytes: size of its files.
        inputs: names of the inputs.
        outputs: names of the outputs.
        largest_difference: of any value from torch's in float64, relative to the output's largest;
            None, as the next two, where the files cannot be run.
        relative_difference: norm of the difference over that of torch's output.
        own_difference: like `largest_difference`, of what torch itself gives without float64.
        holds: how many constant values there are in each type. In ONNX few bits are stored in 4 or
            8, codes of `coded` in 8, 16 or 32; the runtime widens them to float32 once, when it
            loads the model.
        target: what the files are: "ONNX", "C".
        memory: bytes of flash (constants) and RAM (one state), for C.
        errors: for C in few bits, what rounding lost of each weight: the Frobenius error of what is
            exported against the artifact, relative to the norm of the latter.
        unchecked: why the outputs were not compared with torch's; empty if they were.
        notes: sentences on what was chosen: how each layer runs in ONNX, and its versions.
    """

    file: Path
    part: str
    bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    largest_difference: float | None
    relative_difference: float | None
    own_difference: float | None
    holds: Mapping[str, int]
    target: str = "ONNX"
    memory: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    unchecked: str = ""
    notes: tuple[str, ...] = ()

    def as_json(self) -> Json:
        """Plain values, in the order of the fields."""
        document: Json = plain(self)
        return document
