"""The files: no warnings, no heap, no libm, nothing that changes, names that are safe, any kind."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ttcompress
from ttcompress.layers.recurrent_model import POOLINGS, Chain, RecurrentModel
from ttcompress.layers.stacks import stack_of
from ttcompress.planning.flash import flash_bytes
from ttcompress.targets.c.build import make_example, run_files, write_part
from ttcompress.targets.c.compiler import compile_files
from ttcompress.targets.c.description import describe
from ttcompress.targets.c.library import Interface
from ttcompress.targets.c.packing import pack
from ttcompress.targets.c.target import C
from ttcompress.targets.c.writing import identifier
from ttcompress.targets.calls import BATCH, TIME, Call
from ttcompress.targets.parts import recurrent_parts
from ttcompress.targets.target import Part
from ttcompress.workflows.export import check

FACTS = {"ttcompress": "0", "source_sha256": "0"}
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
SMALL = {"format": "mps", "store": "int8", "budget": {"factor": 12}}


class Holder(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


def chain_part(
    layer: nn.RNNBase,
    pooling: str | None = None,
    *,
    embedding: bool = True,
    tied: bool = False,
    one_hot: bool = False,
) -> Part:
    """A whole model that was kept as it is: symbols or values in, five classes out."""
    stack = replace(stack_of(layer), prefix="rnn.")
    symbols = 9 if embedding else stack.input_size
    classes = symbols if tied else 5
    chain = Chain(
        "embedding" if embedding else None, symbols, (stack,), "head", classes, not tied, tied
    )
    torch.manual_seed(0)
    module = RecurrentModel(chain, pooling).eval()
    x = torch.zeros(3, 5, stack.input_size)
    if embedding or one_hot:
        x = torch.randint(symbols, (3, 5), generator=torch.Generator().manual_seed(0))
    return Part("", module, Call((x,), ({0: BATCH, 1: TIME},), ("x",), ("y",)), ())


LAYERS = {
    "lstm": nn.LSTM(21, 40, num_layers=2),
    "both ways": nn.LSTM(21, 20, num_layers=2, bidirectional=True),
    "projected": nn.LSTM(21, 40, proj_size=11, num_layers=2),
    "gru": nn.GRU(21, 37),
    "gru without bias": nn.GRU(21, 16, bias=False, bidirectional=True),
    "rnn": nn.RNN(21, 70),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("format", ["mps", "mpo"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_of_any_kind_is_torchs(compressed, compiler, tmp_path, kind, format) -> None:
    small = compressed(Holder(LAYERS[kind]), **SMALL | {"format": format, "budget": {"factor": 2}})
    (made,) = ttcompress.export(small, tmp_path / "m", target="c")
    assert made.part == "layer"
    assert made.largest_difference < 1e-5
    assert made.holds.keys() == {"float"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("kind", LAYERS)
def test_in_few_bits_it_is_near(compressed, compiler, tmp_path, kind, quantize) -> None:
    small = compressed(Holder(LAYERS[kind]), **SMALL | {"budget": {"factor": 2}})
    (made,) = ttcompress.export(small, tmp_path / "m", target="c", quantize=quantize)
    assert 1e-4 < made.relative_difference < {"int8": 0.04, "int4": 0.2}[quantize]
    assert made.holds[quantize] > 3 * made.holds.get("float", 0)


def test_an_mps_is_held_by_its_factors(compressed, compiler, tmp_path) -> None:
    small = compressed(Holder(nn.LSTM(96, 96)), **SMALL)
    (made,) = ttcompress.export(small, tmp_path / "m", target="c", quantize="int8", name="small")
    factors = sum((s.weight.shape[0] + s.weight.shape[1]) * s.ranks[0] for s in small.weights)
    assert made.holds["int8"] == factors < 2 * 4 * 96 * 96 / 3
    assert made.relative_difference < 0.05
    assert sorted(path.name for path in made.file.iterdir()) == [
        "Makefile",
        "README.md",
        "small.c",
        "small.h",
        "small_test.c",
        "small_weights.c",
    ]


@pytest.mark.parametrize(
    ("layer", "pooling", "options"),
    [
        (nn.LSTM(12, 20), None, {}),
        (nn.LSTM(12, 20), None, {"embedding": False}),
        (nn.LSTM(12, 20), None, {"embedding": False, "one_hot": True}),
        (nn.LSTM(20, 20), None, {"tied": True}),
        *((nn.GRU(12, 20), pooling, {}) for pooling in POOLINGS),
        *((nn.GRU(12, 20, bidirectional=True), pooling, {}) for pooling in POOLINGS),
    ],
)
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_whole_model_is_torchs(compiler, layer, pooling, options, quantize) -> None:
    part = chain_part(layer, pooling, **options)
    written = write_part(part, FACTS, quantize, "model")
    for difference in check(C(), written, part):
        assert difference.value < 1e-5 if quantize is None else difference.norm < 0.05
    assert (b"MODEL_POOLED" in written.files["model.h"]) == (pooling is not None)


def test_symbols_are_looked_up_in_what_the_left_factor_takes(
    compressed, compiler, tmp_path
) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.rnn = nn.Embedding(300, 64), nn.LSTM(64, 64)
            self.head = nn.Linear(64, 300)

    small = compressed(Words(), **SMALL)
    (made,) = ttcompress.export(small, tmp_path / "m", target="c", quantize="int8")
    rank = next(s.ranks[0] for s in small.weights if "ih" in s.weight.name)
    header = (made.file / "m.h").read_text()
    assert "#define M_SYMBOLS 300" in header and "#define M_OUTPUTS 300" in header
    assert f"m_table[{300 * -(-rank // 8) * 8 + 64}]" in (made.file / "m.c").read_text()
    assert made.inputs == ("input", "h0", "c0") and made.relative_difference < 0.05
    assert made.memory["flash"] == int(re.search(r"M_FLASH_BYTES (\d+)", header)[1])


@pytest.mark.parametrize("recurrent", ["mps", "keep"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("embedding", [True, False], ids=["embedded", "one-hot"])
def test_a_table_takes_in_the_factor_that_it_is_multiplied_by(
    compressed, embedding: bool, bidirectional: bool, recurrent: str
) -> None:
    """Whatever is merged into what, the maps of the first layer make of each symbol the same."""
    made = nn.Module()
    if embedding:
        made.add_module("embedding", nn.Embedding(200, 64))
    inputs = 64 if embedding else 200
    made.add_module("rnn", nn.LSTM(inputs, 96, bidirectional=bidirectional))
    made.add_module("head", nn.Linear(96 * (1 + bidirectional), 9))
    rules = [{"weights": "recurrent", "format": recurrent}, {"weights": "all"}]
    keys = {"rules": rules, "default": "keep", "budget": {"rank": 9}}
    small = compressed(made, format="mps", store="float32", **keys)
    chain = Chain("embedding" if embedding else None, 200, small.stacks, "head", 9, True, False)
    model = ttcompress.load_into(RecurrentModel(chain), small).eval()
    x = torch.zeros(3, 5, dtype=torch.int64)
    found = describe(Part("", model, Call((x,), ({0: BATCH, 1: TIME},), ("x",), ("y",)), ()))
    table = np.eye(200) if found.table is None else found.table.up
    dense = small.state_dict()
    for one, end in zip(found.directions, ("", "_reverse"), strict=False):
        given = one.input.up if one.input.down is None else one.input.up @ one.input.down
        wanted = dense[f"rnn.weight_ih_l0{end}"].numpy()
        if embedding:
            wanted = wanted @ dense["embedding.weight"].numpy().T
        np.testing.assert_allclose(given @ table.T, wanted, atol=1e-5)
    assert found.inputs == table.shape[1]
    if not embedding and (recurrent == "keep" or bidirectional):
        assert found.table is None
    if recurrent == "mps" and not bidirectional:
        assert found.directions[0].input.down is None and found.inputs == 9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize("layer", [LAYERS["projected"], nn.GRU(12, 20, bidirectional=True)])
def test_no_compiler_warns_and_no_sanitizer_finds_anything(
    each_compiler, tmp_path, layer, quantize
) -> None:
    part = chain_part(layer, "mean" if layer.bidirectional else None)
    files = dict(write_part(part, FACTS, quantize, "model").files)
    sources = ("model_test.c", "model.c", "model_weights.c")
    checked = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    for flags in (("-march=native", *checked), ("-DMODEL_PLAIN", *checked), ("-Os",)):
        program = tmp_path / "test"
        compile_files(files, sources, program, (*flags, *STRICT), link=("-lm",))
        done = subprocess.run([str(program)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1].startswith("passed: ")


def test_the_generated_test_finds_a_wrong_weight(compiler) -> None:
    part = chain_part(nn.LSTM(12, 20))
    written = write_part(part, FACTS, None, "model")
    other = chain_part(nn.LSTM(12, 20))
    with torch.no_grad():
        other.module.rnn.bias_hh_l0[7] += 0.02
    files = {
        **written.files,
        "model_weights.c": write_part(other, FACTS, None, "model").files["model_weights.c"],
    }
    with pytest.raises(
        ttcompress.TTCompressError, match=r"generated test fails: largest diff.*FAI"
    ):
        list(run_files(replace(written, files=files), part.call, []))


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_there_is_no_heap_no_libm_and_nothing_that_changes(compiler, tmp_path, quantize) -> None:
    if not (shutil.which("nm") and shutil.which("size")):
        pytest.skip("there are no nm and size here")
    part = chain_part(nn.LSTM(12, 20, num_layers=2))
    files = write_part(part, FACTS, quantize, "model").files
    for source in ("model.c", "model_weights.c"):
        compile_files(files, (source,), tmp_path / "a.o", ("-Os",), link=("-c",))
        symbols = subprocess.run(["nm", "-u", tmp_path / "a.o"], capture_output=True, text=True)
        outside = {line.split()[-1] for line in symbols.stdout.splitlines()}
        assert {n for n in outside if not n.startswith("model_")} <= {
            "memcpy",
            "memset",
            "_GLOBAL_OFFSET_TABLE_",
            "__stack_chk_fail",
        }
        sizes = subprocess.run(["size", "-A", tmp_path / "a.o"], capture_output=True, text=True)
        held = dict(re.findall(r"^(\S+) +(\d+)", sizes.stdout, re.MULTILINE))
        assert held[".data"] == "0" and held[".bss"] == "0"
        assert "malloc" not in symbols.stdout


@pytest.mark.parametrize("command", ["arm-none-eabi-gcc", "aarch64-linux-gnu-gcc"])
def test_a_microcontroller_and_a_phone_compile_it(tmp_path, monkeypatch, command) -> None:
    if not shutil.which(command):
        pytest.skip(f"there is no {command} here")
    monkeypatch.setenv("CC", command)
    files = write_part(chain_part(nn.LSTM(12, 20)), FACTS, "int8", "model").files
    if command.startswith("arm"):
        flags = ("-Os", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
        compile_files(files, ("model.c",), tmp_path / "model.o", (*flags, *STRICT), link=("-c",))
        assert (tmp_path / "model.o").stat().st_size < 30_000
        return
    if not (emulator := shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")):
        pytest.skip("there is no qemu-aarch64 here")
    sources = ("model_test.c", "model.c", "model_weights.c")
    for flags in (("-march=armv8.2-a+dotprod",), ("-march=armv8-a",)):
        compile_files(files, sources, tmp_path / "t", ("-O2", *flags), link=("-lm", "-static"))
        subprocess.run([emulator, str(tmp_path / "t")], check=True)


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("rank", [0, 7])
def test_the_flash_of_a_weight_follows_from_its_shape(make, bits, rank) -> None:
    packed = pack(make("gru", 24, 24, rank), bits)
    biases = sum(array.nbytes for name, array in packed.arrays.items() if name.endswith("bias"))
    assert packed.flash - biases == 2 * flash_bytes(72, 24, bits, rank or None, gates=3)


@given(st.text())
def test_any_text_becomes_a_name_that_c_takes(text: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,49}", identifier(text))


def test_names_of_a_checkpoint_never_become_code(compressed, compiler, tmp_path) -> None:
    evil = '*/ int main(void) { return system("x"); } /* "\\'
    model = nn.Module()
    model.add_module(evil.replace(".", ""), nn.LSTM(8, 8))
    model.add_module("other", nn.GRU(8, 8))
    small = compressed(model, **SMALL | {"budget": {"factor": 2}})
    stack = next(stack for stack in small.stacks if stack.prefix.startswith("*/"))
    part = next(p for p in recurrent_parts(small) if p.name == stack.prefix.rstrip("."))
    written = write_part(part, FACTS, None, identifier(f"{evil} {part.name}"))
    for name, content in written.files.items():
        assert re.fullmatch(r"[A-Za-z0-9_.]+", name)
        assert b"system" not in content.replace(b"int_main_void_return_system", b"")
    assert Interface.read(written.files).outputs == 8


def test_the_example_has_torchs_own_outputs() -> None:
    part = chain_part(nn.LSTM(12, 20))
    example = make_example(part)
    with torch.no_grad():
        wanted = part.module(torch.from_numpy(example.inputs)[None])[0][0]
    np.testing.assert_allclose(example.outputs, wanted, atol=1e-6)
    assert 0 < example.limit < 1e-5


def test_one_folder_for_each_of_several_layers(compressed, compiler, tmp_path: Path) -> None:
    model = nn.ModuleDict({"one": nn.LSTM(8, 8), "two": nn.GRU(5, 8)})
    small = compressed(model, **SMALL | {"budget": {"factor": 2}})
    made = ttcompress.export(small, tmp_path / "m", target="c")
    assert [one.file.name for one in made] == ["m.one", "m.two"]
    assert (tmp_path / "m.two" / "m_two.c").exists()
    with pytest.raises(ttcompress.OutputPathError, match=r"m\.one: is not empty. Use --overwrite"):
        ttcompress.export(small, tmp_path / "m", target="c")
    ttcompress.export(small, tmp_path / "m", target="c", overwrite=True)


def test_a_users_code_is_refused(compressed, tmp_path) -> None:
    model = Holder(nn.LSTM(8, 8))
    model.forward = lambda x: model.layer(x)[0]
    own = ttcompress.OwnModule(model, (torch.zeros(3, 2, 8),), ({0: "time", 1: "batch"},))
    small = compressed(model, **SMALL | {"budget": {"factor": 2}})
    with pytest.raises(ttcompress.RecipeError, match="only a model of the common structure"):
        ttcompress.export(small, tmp_path / "m", target="c", module=own)
    assert not (tmp_path / "m").exists()
