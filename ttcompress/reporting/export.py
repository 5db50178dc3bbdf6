"""Shows the files of an export: a table, what they hold, and how they were compared."""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.results.exported import Exported

_INTEGERS = {"uint4", "uint8"}
_CODES = {"int8", "int16", "int32"}
_HALVES = {"float16", "bfloat16"}


def exported_table(files: Sequence[Exported]) -> Table:
    """One row for each file."""
    return tabulate(
        files,
        {
            Column("part", name=True): lambda one: one.part,
            Column("inputs"): lambda one: " ".join(one.inputs),
            Column("outputs"): lambda one: " ".join(one.outputs),
            Column("bytes", right=True): lambda one: one.bytes,
            Column("difference", right=True): lambda one: _small(one.relative_difference),
            Column("largest", right=True): lambda one: _small(one.largest_difference),
            Column("torch's", right=True): lambda one: _small(one.own_difference),
        },
    )


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def exported_remarks(
    files: Sequence[Exported],
    artifact_bytes: int,
    left_out: Sequence[str] = (),
    *,
    quantized: bool = False,
) -> tuple[str, ...]:
    """What the files hold, what is in none of them, and how the differences were measured.

    `quantized` says whether products run in int8.
    """
    remarks = [f"not exported: {layer}: not a layer of torch.nn" for layer in left_out]
    for one in files:
        remarks += [f"{one.part}: {note}" for note in one.notes]
        counts = ", ".join(f"{count:,} values in {type}" for type, count in one.holds.items())
        remarks.append(f"{one.part} holds {counts}")
        if one.memory:
            flash, ram = one.memory["flash"], one.memory["ram"]
            remarks.append(
                f"{one.part} needs {flash:,} bytes of flash for constants, beside the code, and "
                f"{ram:,} bytes of RAM for each sequence"
            )
    held = {type for one in files for type in one.holds}
    if errors := {name: error for one in files for name, error in one.errors.items()}:
        lost = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
        remarks.append(
            "rounded: weights were rounded again (an MPO as its whole matrix), vectors are rounded "
            "to 8 bits at every product; sums run in integers"
        )
        remarks.append(f"relative error of the weights against the artifact: {lost}")
    elif quantized:
        remarks.append(
            "int8: weights were rounded again (an MPO as its whole matrix); products run in int8"
        )
    elif held & _CODES:
        remarks.append(
            "coded: codes take 8, 16 or 32 bits each, as many as the largest of a core needs, for "
            "ONNX has no entropy coding; the runtime widens them to float32 once, when it loads "
            "the file"
        )
    elif held & _INTEGERS:
        remarks.append(
            "few bits: int2 to int4 are stored as uint4 and int5 to int8 as uint8, the nearest "
            "ONNX types; the runtime widens them to float32 once, when it loads the file"
        )
    elif held & _HALVES:
        remarks.append("16 bits: the runtime widens them to float32 once, when it loads the file")
    titles = " and ".join(dict.fromkeys(one.target for one in files))
    unchecked = dict.fromkeys(one.unchecked for one in files if one.unchecked)
    return (
        *remarks,
        f"{artifact_bytes:,} bytes compressed -> {sum(one.bytes for one in files):,} bytes of "
        f"{titles}",
        *(f"NOT compared with torch: {reason}" for reason in unchecked),
        "difference: norm of the difference from torch's output in float64, relative to that "
        "output, on random inputs of 3 lengths and 2 batch sizes; largest: of any one value; "
        "torch's: the same of torch in float32",
    )
