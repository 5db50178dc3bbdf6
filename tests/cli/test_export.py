"""`export` by what it prints, writes and exits with."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")


def test_export_prints_a_table_and_writes_the_file(run, folder, tiny_artifact) -> None:
    result = run("export", tiny_artifact, "-o", "tiny.onnx")
    assert result.code == 0
    assert result.err == "wrote tiny.onnx\n"
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
        (["-o", "nowhere/tiny.onnx"], 2, "does not exist"),
    ],
)
def test_export_refuses(run, tiny_artifact, options, code, message) -> None:
    result = run("export", tiny_artifact, "-o", "tiny.onnx", *options)
    assert result.code == code
    assert message in result.err
