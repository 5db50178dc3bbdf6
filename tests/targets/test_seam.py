"""A target is one class and one entry in the registry: a toy one goes all the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ttcompress
from ttcompress.model.weights import Kind
from ttcompress.targets.calls import Call
from ttcompress.targets.registry import TARGETS
from ttcompress.targets.target import Arrays, Part, Target, Written

SMALL = {"budget": {"factor": 2}, "format": "mps", "store": "int8"}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Factors:
    """Writes the factors of a one-layer LSTM as .npz, a note beside it, and runs them in numpy."""

    name = "npz"
    title = "NumPy"
    folder = finds_models = False
    whole_models = False
    kinds: frozenset[Kind] = frozenset({"lstm"})
    stores = frozenset({"int8"})
    roundings: tuple[str, ...] = ()

    def require(self) -> None:
        """NumPy is always there."""

    def cannot_run(self) -> str:
        return ""

    def write(
        self, part: Part, facts: Mapping[str, str], quantize: str | None, name: str
    ) -> Written:
        arrays = {}
        for (name,), stored in part.weights:
            left, right = stored.train().factors()
            arrays |= {f"{name}.left": left.numpy(), f"{name}.right": right.numpy()}
        with torch.no_grad():
            arrays["bias"] = (part.module.bias_ih_l0 + part.module.bias_hh_l0).numpy()
        file = BytesIO()
        np.savez(file, **arrays)
        note = facts["source_sha256"].encode()
        return Written({"": file.getvalue(), ".txt": note}, {"float": sum(map(np.size, arrays))})

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterator[Arrays]:
        held = np.load(BytesIO(written.files[""]))
        ih, hh = (held[f"weight_{k}_l0.left"] @ held[f"weight_{k}_l0.right"] for k in ("ih", "hh"))
        for x, h0, c0 in cases:
            h, c, outputs = h0[0], c0[0], []
            for step in x:
                i, f, g, o = np.split(step @ ih.T + h @ hh.T + held["bias"], 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                outputs.append(h)
            yield [np.stack(outputs), h[None], c[None]]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Target:
    target: Target = Factors()
    monkeypatch.setitem(TARGETS, target.name, target)
    return target


class Holder(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


def test_a_new_target_is_written_checked_and_kept(toy, compressed, tmp_path) -> None:
    model = compressed(Holder(nn.LSTM(24, 16)), **SMALL)
    (made,) = ttcompress.export(model, tmp_path / "m.npz", target="npz")
    assert made.largest_difference < 1e-5
    assert (made.inputs, made.outputs) == (("x", "h0", "c0"), ("y", "hn", "cn"))
    written = [tmp_path / "m.npz", tmp_path / "m.txt"]
    assert made.bytes == sum(path.stat().st_size for path in written)
    assert written[1].read_text() == model.report.source["sha256"]
    assert set(np.load(written[0])) > {"weight_hh_l0.left", "weight_ih_l0.right"}


def test_what_a_target_computes_wrongly_is_not_kept(toy, compressed, tmp_path, monkeypatch) -> None:
    model, write = compressed(Holder(nn.LSTM(24, 16)), **SMALL), Factors.write

    def without_biases(self: Factors, part: Part, *rest: object) -> Written:
        with torch.no_grad():
            part.module.bias_ih_l0 += 0.1
            made = write(self, part, *rest)
            part.module.bias_ih_l0 -= 0.1
        return made

    monkeypatch.setattr(Factors, "write", without_biases)
    with pytest.raises(ttcompress.TTCompressError, match="layer: the exported model's outputs dif"):
        ttcompress.export(model, tmp_path / "m.npz", target="npz")
    assert not list(tmp_path.glob("m.npz"))


@pytest.mark.parametrize(
    ("layer", "keys", "options", "message"),
    [
        (nn.GRU(24, 16), {}, {}, "npz does not take layers of kind gru, only lstm"),
        (nn.LSTM(24, 16), {"store": "float16"}, {}, "does not take the store float16 of layer.wei"),
        (nn.LSTM(24, 16), {}, {"task": "charlm"}, "npz takes only recurrent layers"),
        (nn.LSTM(24, 16), {}, {"quantize": "int8"}, "quantize: npz cannot quantise, got 'int8'"),
        (nn.LSTM(24, 16), {}, {"target": "d"}, "expected onnx or c or npz, got 'd'"),
    ],
)
def test_what_a_target_does_not_take_is_refused(
    toy, compressed, tmp_path: Path, layer, keys, options, message
) -> None:
    model = compressed(Holder(layer), **SMALL | keys)
    with pytest.raises(ttcompress.RecipeError, match=message):
        ttcompress.export(model, tmp_path / "m.npz", **{"target": "npz"} | options)
