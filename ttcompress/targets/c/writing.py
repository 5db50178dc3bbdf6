"""Writes the files of a packed model from the templates beside this module: `write_files`.

The templates are C with few holes. In them, `model_` and `MODEL_` stand for the model's name, and
`/*= key =*/` for what is inserted. Nothing that a checkpoint says becomes C: names are made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttcompress.targets.c.packing import (
    LayerEntry,
    MapEntry,
    MatrixEntry,
    Packed,
    sixteen,
)
from ttcompress.targets.limits import FLOAT_LIMIT, ROUNDED_LIMITS

FOLDER = Path(__file__).parent

LONGEST = 40
"""Characters of a name: C99 promises 31 that count, and compilers take far more."""

ARITHMETIC = {
    32: "- Weights and arithmetic are float32.",
    8: """\
- Weights have 7 bits, a scale for each row, and for each column of a left factor. Vectors are
  rounded to 8 bits before each product, with a scale of their own; sums are exact in 32 bits, and
  the same on every processor; cells are in float. Compiled with `-ffp-contract=off`, all outputs
  are the same bits everywhere.""",
    4: """\
- Layers have weights of 4 bits, tables and the linear layer of 7, with scales. Vectors are rounded
  to 8 bits before each product, with a scale of their own; sums are exact in 32 bits, and the same
  on every processor; cells are in float. Compiled with `-ffp-contract=off`, all outputs are the
  same bits everywhere.""",
}
"""What the page says of each number of bits."""

_HOLE = re.compile(r"(?<=\n)([ \t]*)/\*= (\w+) =\*/\n|/\*= (\w+) =\*/")
_KINDS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN_TANH", "rnn_relu": "RNN_RELU"}


@dataclass(frozen=True, eq=False)
class Example:
    """A call for the generated test: inputs, torch's outputs, and how far its own are from float64.

    `inputs` is (steps,) of symbols or (steps, values); `outputs` is (rows, values).
    """

    inputs: NDArray[np.generic]
    outputs: NDArray[np.float32]
    limit: float


def identifier(text: str) -> str:
    """A name that C takes, from any text.

    >>> identifier("Char-LM (v2)"), identifier("2 / 3"), identifier("\N{GREEK SMALL LETTER ALPHA}")
    ('char_lm_v2', 'model_2_3', 'model')
    """
    name = re.sub(r"[^0-9a-z]+", "_", text.lower()).strip("_")[:LONGEST].strip("_")
    return name if name[:1].isalpha() else f"model_{name}".strip("_")


def write_files(
    packed: Packed, name: str, facts: Mapping[str, str], example: Example, *, weights: bool = True
) -> dict[str, bytes]:
    """The files by name.

    Args:
        packed: the model.
        name: an `identifier`.
        facts: `ttcompress` is the version, `source_sha256` that of the checkpoint.
        example: for the test.
        weights: whether the constants are among them.
    """
    holes = _holes(packed, name, facts)
    files = {
        "model.h": fill("model.h", holes),
        "model.c": fill("model.c", holes),
        "model_weights.c": _weights(packed, holes) if weights else "",
        "model_test.c": fill("test.c", holes | _test_holes(packed, example)),
        "Makefile": fill("make.txt", holes),
        "README.md": fill("readme.txt", holes),
    }
    if not weights:
        del files["model_weights.c"]
    return {_renamed(key, name): _renamed(text, name).encode() for key, text in files.items()}


def fill(template: str, holes: Mapping[str, str]) -> str:
    """A template with its holes filled; one on a line of its own disappears if it is empty."""

    def insert(found: re.Match[str]) -> str:
        if found[2] is None:
            return holes[found[3]]
        text = holes[found[2]]
        return "".join(found[1] + line + "\n" if line else "\n" for line in text.splitlines())

    return _HOLE.sub(insert, (FOLDER / template).read_text(encoding="utf-8"))


def _renamed(text: str, name: str) -> str:
    """The model's name in place of `model_`, `MODEL_` and `model.`"""
    text = re.sub(r"(-D|\b)MODEL_", rf"\g<1>{name.upper()}_", text)
    return re.sub(r"\b(lib)?model(?=_|\.[ach]\b)", rf"\g<1>{name}", text)


def state_sizes(packed: Packed) -> dict[str, tuple[str, int]]:
    """The arrays of a state: type and length, all multiples of 64 bytes."""
    found = packed.description
    sizes = {"hidden": ("float", packed.hidden)}
    if packed.cell:
        sizes["cell"] = ("float", packed.cell)
    wide = [found.inputs, found.features if found.bidirectional else 0, widest(packed)]
    sizes["input"] = ("float", sixteen(max(wide)))
    if any(entry.down for entry in _maps(packed)):
        sizes["middle"] = ("float", packed.middle)
    if packed.bits == 32:
        sizes["vector[2]"] = ("float", packed.vector)
    else:
        sizes["code[2]"] = ("int8_t", -(-packed.vector // 64) * 64)
    if any(one.projection for one in packed.layers):
        sizes["unprojected"] = ("float", sixteen(max(o.direction.hidden for o in packed.layers)))
    if found.pooling in ("mean", "max"):
        sizes |= {key: ("float", sixteen(found.features)) for key in ("pool", "pooled")}
    return sizes


def state_bytes(packed: Packed) -> int:
    """Bytes of a state."""
    total = 64
    for name, (type, count) in state_sizes(packed).items():
        total += (2 if "[2]" in name else 1) * count * (1 if type == "int8_t" else 4)
    return total


def widest(packed: Packed) -> int:
    """Values in a row between two layers of a model with a direction that runs backwards."""
    if not packed.description.bidirectional:
        return 0
    layers = packed.description.directions
    return sixteen(max(one.outputs * (2 if one.reverse else 1) for one in layers))


def _maps(packed: Packed) -> Iterator[MapEntry]:
    for one in packed.layers:
        yield from (m for m in (one.input, one.recurrent, one.projection) if m is not None)
    if packed.head is not None:
        yield packed.head


def _holes(packed: Packed, name: str, facts: Mapping[str, str]) -> dict[str, str]:
    found = packed.description
    symbols = found.symbols is not None
    input_size = "" if symbols else "[MODEL_INPUTS]"
    if found.pooling:
        output_size, pooled = "[MODEL_OUTPUTS], after the last step", ", of all steps so far"
    else:
        output_size, pooled = "[steps][MODEL_OUTPUTS]", ""
    take, rows = "MODEL_INPUT x = next_symbol(); /* yours */", "" if found.pooling else "STEPS * "
    if not symbols:
        take = "float x[MODEL_INPUTS];\nread_inputs(x); /* yours */"
    if found.bidirectional:
        take = f"MODEL_INPUT x[STEPS{'' if symbols else ' * MODEL_INPUTS'}] = {{0}}; /* yours */"
    holes = {
        "take": take,
        "rows": rows,
        "arithmetic": ARITHMETIC[packed.bits],
        "title": f"{name}: {_summary(packed)}",
        "version": facts["ttcompress"],
        "sha": facts["source_sha256"],
        "input": "a symbol" if symbols else "MODEL_INPUTS values",
        "input_size": input_size,
        "output_size": output_size,
        "pooled": pooled,
        "argument": "MODEL_INPUT x" if symbols else "const float x[MODEL_INPUTS]",
        "address": "&x" if symbols else "x",
        "sizes": _sizes(packed),
        "state": "\n".join(_state(packed)),
        "settings": "\n".join(_settings(packed)),
        "kernel": (FOLDER / "kernel.c").read_text(encoding="utf-8"),
        "tables": "\n".join(_tables(packed)),
        "bits": {32: "float", 8: "8 bits", 4: "4 bits"}[packed.bits],
        "flash": f"{packed.flash:,}",
        "ram": f"{state_bytes(packed):,}",
    }
    return holes | {
        "calls": fill("run.h" if found.bidirectional else "step.h", holes),
        "loop": fill("whole.txt" if found.bidirectional else "loop.txt", holes),
    }


def _summary(packed: Packed) -> str:
    layers = packed.description.directions
    kinds = " and ".join(dict.fromkeys(_KINDS[one.cell].partition("_")[0] for one in layers))
    count = f"{len(layers)} layer{'s' if len(layers) > 1 else ''} of {kinds}"
    numbers = {32: "float", 8: "8-bit", 4: "4-bit"}[packed.bits]
    return f"{count}, {numbers} weights"


def _sizes(packed: Packed) -> str:
    found = packed.description
    if found.symbols is None:
        inputs = (
            f"#define MODEL_INPUT float /* what comes in */\n#define MODEL_INPUTS {found.inputs}"
        )
    else:
        inputs = (
            "#define MODEL_INPUT int32_t /* a symbol, from 0 on */\n"
            f"#define MODEL_SYMBOLS {found.symbols}\n#define MODEL_INPUTS 1"
        )
    lines = [
        inputs,
        f"#define MODEL_OUTPUTS {found.outputs}",
        f"#define MODEL_MEMORY {found.memory} /* floats of a state as torch has it */",
        f"#define MODEL_FLASH_BYTES {packed.flash} /* constants; the code comes to that */",
        f"#define MODEL_RAM_BYTES {state_bytes(packed)} /* of a state */",
    ]
    if found.bidirectional:
        lines.append(f"#define MODEL_WORK {2 * widest(packed)} /* floats for each step */")
    if found.pooling:
        lines.append("#define MODEL_POOLED 1 /* a run gives one output */")
    return "\n".join(lines)


def _state(packed: Packed) -> Iterator[str]:
    for name, (type, count) in state_sizes(packed).items():
        yield f"    {type} {name}[{count}];"
    yield "    float scale[4], steps[8];"
    yield "    int32_t sum[4];"


def _settings(packed: Packed) -> Iterator[str]:
    """What the kernel compiles: nothing that the model does not need."""
    found = packed.description
    cells = {one.cell for one in found.directions}
    flags = {
        "FLOAT": packed.bits == 32,
        "INTEGERS": packed.bits != 32,
        "NIBBLES": packed.bits == 4,
        **{_KINDS[cell]: cell in cells for cell in _KINDS},
        "PROJECTION": any(one.projection for one in packed.layers),
        "FACTORS": any(entry.down for entry in _maps(packed)),
        "LOOKUP": packed.table is not None,
        "HEAD": packed.head is not None,
        "BIDIRECTIONAL": found.bidirectional,
        "POOL_LAST": found.pooling == "last",
        "POOL_MEAN": found.pooling == "mean",
        "POOL_MAX": found.pooling == "max",
    }
    yield from (f"#define MODEL_{key} {int(value)}" for key, value in flags.items())
    yield f"#define MODEL_LAYERS {len(packed.layers)}"
    yield f"#define MODEL_FEATURES {found.features}"
    yield f"#define MODEL_ROWS {max(one.gates * one.hidden for one in found.directions)}"
    if found.bidirectional:
        yield f"#define MODEL_WIDEST {widest(packed)}"


def _tables(packed: Packed) -> Iterator[str]:
    for name, array in packed.arrays.items():
        yield f"extern const {_type(array)} model_{name}[{array.size}];"
    yield ""
    yield "static const layer LAYERS[MODEL_LAYERS] = {"
    for one in packed.layers:
        yield from _layer(one)
    yield "};"
    if packed.table is not None:
        yield f"static const matrix TABLE = {_matrix(packed.table)};"
    if packed.head is not None:
        yield f"static const map HEAD = {_map(packed.head)};"
    yield ""
    yield "/* The pieces of a state in torch's order. */"
    yield "static const struct {"
    yield "    int32_t is_cell, place, count;"
    yield "} MEMORY[] = {"
    for piece in packed.memory:
        yield f"    {{{int(piece.cell)}, {piece.place}, {piece.count}}},"
    yield "};"
    yield f"#define CELL(s) ((s)->{'cell' if packed.cell else 'hidden'})"


def _layer(one: LayerEntry) -> Iterator[str]:
    direction = one.direction
    yield "    {"
    maps = {"input": one.input, "recurrent": one.recurrent, "projection": one.projection}
    for key, entry in maps.items():
        if entry is not None:
            yield f"        .{key} = {_map(entry)},"
    yield f"        .kind = {_KINDS[direction.cell]}, .hidden = {direction.hidden},"
    yield f"        .h = {one.h}, .c = {one.c},"
    yield f"        .outputs = {direction.outputs}, .reverse = {int(direction.reverse)},"
    yield "    },"


def _map(entry: MapEntry) -> str:
    down = "" if entry.down is None else f".down = {_matrix(entry.down)}, "
    return f"{{{down}.up = {_matrix(entry.up)}}}"


def _matrix(entry: MatrixEntry) -> str:
    arrays = {"weights": entry.weights, "scale": entry.scale, "bias": entry.bias}
    arrays["column"] = entry.column
    pointers = (f".{key} = model_{name}" for key, name in arrays.items() if name is not None)
    sizes = f".rows = {entry.rows}, .columns = {entry.columns}, .strip = {entry.strip}"
    return f"{{{', '.join(pointers)}, {sizes}, .bits = {entry.bits}}}"


def _type(array: NDArray[np.generic]) -> str:
    return "uint8_t" if array.dtype == np.uint8 else "float"


def _weights(packed: Packed, holes: Mapping[str, str]) -> str:
    head = f"/* {holes['title']}: the weights. Made by ttcompress {holes['version']}. */\n"
    parts = [head, "#include <stdint.h>\n"]
    aligned = "#ifdef __GNUC__\n#define ALIGNED __attribute__((aligned(64)))\n#else\n"
    parts.append(f"{aligned}#define ALIGNED\n#endif\n")
    for name, array in packed.arrays.items():
        declared = f"{_type(array)} model_{name}[{array.size}]"
        parts.append(
            f"extern const {declared};\nconst {declared} ALIGNED = {{\n{listed(array)}}};\n"
        )
    return "\n".join(parts)


def write_assembly(packed: Packed, name: str) -> dict[str, bytes]:
    """The constants for the assembler of ELF systems, which takes large ones at once."""
    lines, start = [".section .rodata"], 0
    for array_name, array in packed.arrays.items():
        symbol = f"{name}_{array_name}"
        lines += [f".global {symbol}", ".balign 64", f"{symbol}:"]
        lines.append(f'.incbin "{name}_weights.bin", {start}, {array.nbytes}')
        start += array.nbytes
    lines.append('.section .note.GNU-stack,"",%progbits\n')
    content = b"".join(array.tobytes() for array in packed.arrays.values())
    return {f"{name}_weights.S": "\n".join(lines).encode(), f"{name}_weights.bin": content}


def listed(array: NDArray[np.generic]) -> str:
    """The values of an array, as C, in lines; floats are exact."""
    if array.dtype == np.uint8:
        texts, width = list(map(str, array.reshape(-1).tolist())), 32
    else:
        texts, width = [_float(value) for value in array.reshape(-1).tolist()], 8
    rows = (texts[k : k + width] for k in range(0, len(texts), width))
    return "".join(f"    {', '.join(row)},\n" for row in rows)


def _float(value: float) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _test_holes(packed: Packed, example: Example) -> dict[str, str]:
    found = packed.description
    steps = len(example.inputs)
    rows = len(example.outputs)
    inputs = example.inputs.astype(np.int32 if found.symbols is not None else np.float32)
    values = (
        f"    {', '.join(map(str, inputs.tolist()))},\n"
        if found.symbols is not None
        else listed(inputs)
    )
    data = (
        f"#define STEPS {steps}\n#define OUTPUT_ROWS {rows}\n\n"
        f"static const MODEL_INPUT X[STEPS * MODEL_INPUTS] = {{\n{values}}};\n\n"
        f"static const float TORCH[OUTPUT_ROWS * MODEL_OUTPUTS] = {{\n{listed(example.outputs)}}};"
    )
    work = "static float work[STEPS * MODEL_WORK];" if found.bidirectional else ""
    call = "model_run(&state, STEPS, X, y" + (", work);" if found.bidirectional else ");")
    step = "X[t]" if found.symbols is not None else "X + t * MODEL_INPUTS"
    if packed.bits != 32:
        judged = f"norm <= {ROUNDED_LIMITS[f'int{packed.bits}']}"
    else:
        judged = f"largest <= {max(FLOAT_LIMIT, example.limit):.9g} * scale"
    return {
        "data": data,
        "work": work,
        "call": call,
        "judgement": judged,
        "twice": ""
        if found.bidirectional or found.pooling
        else _TWICE.replace("STEP", step).replace("COUNT", "STEPS"),
    }


_TWICE = """\
    model_reset(&state);
    for (int t = 0; t < COUNT; t++) {
        float again[MODEL_OUTPUTS];
        model_step(&state, STEP, again);
        if (memcmp(again, y + t * MODEL_OUTPUTS, sizeof again)) {
            printf("step %d by itself gives something else than in a run\\n", t);
            return 1;
        }
    }
"""
