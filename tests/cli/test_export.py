"""`export` by what it prints, writes and exits with."""

from __future__ import annotations

import re

import pytest

from ttcompress.targets.c.compiler import find_compiler

pytest.importorskip("onnxruntime")


def test_export_prints_a_table_and_writes_the_file(run, folder, tiny_artifact) -> None:
    result = run("export", tiny_artifact, "-o", "tiny.onnx", "--opset", "17", "--layers", "scan")
    assert result.code == 0
    assert result.err.endswith("wrote tiny.onnx\n")
    assert "lstm: layers 0, 1: Scan" in result.out and "lstm: opset 17, IR 8" in result.out
    lines = result.out.splitlines()
    assert lines[2].split() == [
        "part",
        "inputs",
        "outputs",
        "bytes",
        "difference",
        "largest",
        "torch's",
    ]
    assert lines[3].startswith("lstm")
    assert any("int5 to int8 as uint8, the nearest ONNX types" in line for line in lines)
    assert (folder / "tiny.onnx").stat().st_size > 0


@pytest.mark.slow
def test_export_in_json_is_one_document(run, folder, tiny_artifact) -> None:
    given = ("--as", "onnx", "-o", "tiny.onnx", "--quantize", "int8")
    result = run("export", tiny_artifact, *given, "--json", "-q")
    assert result.code == 0
    (file,) = result.json["files"]
    assert file["file"] == "tiny.onnx"
    assert file["bytes"] == (folder / "tiny.onnx").stat().st_size
    assert file["inputs"] == ["x", "h0", "c0"]
    assert file["holds"]["int8"] > 0
    assert result.err == ""


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--as", "tflite"], 2, "target: expected onnx or c, got 'tflite'"),
        (["--quantize", "int4"], 2, "expected 'int8', got 'int4'. Omit"),
        (["--nonlinearity", "sigmoid"], 2, "expected tanh or relu, got 'sigmoid'"),
        (["--task", "nosuch"], 2, "no such task"),
        (["--opset", "14"], 2, "opset: expected 15 to 23, got 14"),
        (["--layers", "gru"], 2, "layers: expected auto or scan or lstm, got 'gru'"),
        (["--as", "c", "--opset", "17"], 2, "opset: only ONNX has this option. Omit it"),
        (["-o", "nowhere/tiny.onnx"], 2, "does not exist"),
        (["--as", "c", "--quantize", "int2"], 2, "expected 'int8' or 'int4', got 'int2'. Omit"),
    ],
)
def test_export_refuses(run, tiny_artifact, options, code, message) -> None:
    result = run("export", tiny_artifact, "-o", "tiny.onnx", *options)
    assert result.code == code
    assert message in result.err


@pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler here")
def test_export_as_c_writes_a_folder_and_says_what_it_needs(run, folder, tiny_artifact) -> None:
    given = ("--as", "c", "--quantize", "int8", "-o", "model")
    result = run("export", tiny_artifact, *given)
    assert result.code == 0
    assert result.err.endswith("wrote model\n")  # after progress, on a slow machine
    assert "bytes of C" in result.out
    said = r"needs ([\d,]+) bytes of flash [^\d]*([\d,]+) bytes of RAM"
    flash, ram = re.search(said, " ".join(result.out.split())).groups()
    header = (folder / "model" / "tiny_mps.h").read_text()
    assert f"FLASH_BYTES {flash.replace(',', '')} " in header
    assert f"RAM_BYTES {ram.replace(',', '')} " in header
    assert "NOT compared" not in result.out
    again = run("export", tiny_artifact, *given)
    assert again.code == 2 and "model: is not empty. Use --overwrite" in again.err
    assert run("export", tiny_artifact, *given, "--overwrite").code == 0


def test_without_a_compiler_c_is_written_and_said_to_be_unchecked(
    run, folder, tiny_artifact, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CC", "")
    result = run("export", tiny_artifact, "--as", "c", "-o", "model")
    assert result.code == 0
    assert "NOT compared with torch: there is no cc, gcc or clang here" in result.out
    (file,) = run("export", tiny_artifact, "--as", "c", "-o", "other", "--json").json["files"]
    assert file["largest_difference"] is None and file["memory"]["ram"] > 0
    assert (folder / "model" / "tiny_mps.c").exists()
