"""What an export says of the numbers in its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttcompress.reporting.export import exported_remarks
from ttcompress.results.exported import Exported


@pytest.mark.parametrize(
    ("holds", "quantized", "said"),
    [
        ({"int8": 900, "float": 90}, False, "coded: codes take 8, 16 or 32 bits"),
        ({"int16": 900, "int8": 80}, False, "coded: codes take 8, 16 or 32 bits"),
        ({"int8": 900, "float": 90}, True, "products run in int8"),
        ({"uint4": 900, "float": 90}, False, "int2 to int4 are stored as uint4"),
        ({"float16": 900}, False, "16 bits:"),
    ],
)
def test_numbers_are_explained_by_what_they_are(
    holds: dict[str, int], quantized: bool, said: str
) -> None:
    made = Exported(Path("m.onnx"), "model", 1_234, ("x",), ("y",), 0.0, 0.0, 0.0, holds)
    first, second, size, _ = exported_remarks((made,), 800, quantized=quantized)
    assert first.startswith("model holds 900 values in ")
    assert said in second
    assert size == "800 bytes compressed -> 1,234 bytes of ONNX"
