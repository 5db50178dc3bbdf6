"""The check of an export: rounding passes, even where a model amplifies it, and a defect does not.

The targets here are toys: one computes in numpy what its files say, one runs the module itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import ttcompress
from ttcompress.errors import RecipeError, TTCompressError
from ttcompress.model.weights import Kind
from ttcompress.stores import STORES
from ttcompress.targets.calls import Call, FlatModule
from ttcompress.targets.registry import TARGETS
from ttcompress.targets.target import Arrays, Part, Written
from ttcompress.workflows.export import FLOAT_LIMIT

Floats = NDArray[Any]
Spoil = Callable[[dict[str, Floats]], None]
SMALL = {"budget": {"factor": 2}, "store": "int8"}


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


class Numpy:
    """Writes the tensors of a layer, and runs LSTMs and GRUs from them; `spoil` makes a defect."""

    name = "numpy"
    title = "NumPy"
    folder = finds_models = False
    whole_models = False
    kinds: frozenset[Kind] = frozenset({"lstm", "gru"})
    stores = STORES
    roundings: tuple[str, ...] = ()

    def __init__(self, spoil: Spoil) -> None:
        self.spoil = spoil

    def require(self) -> None:
        """NumPy is always there."""

    def cannot_run(self) -> str:
        return ""

    def write(
        self, part: Part, facts: Mapping[str, str], quantize: str | None, name: str
    ) -> Written:
        arrays = {name: stored.dense().numpy() for (name,), stored in part.weights}
        arrays |= {
            name: value.detach().numpy().copy()
            for name, value in part.module.named_parameters()
            if name.startswith("bias")
        }
        self.spoil(arrays)
        file = BytesIO()
        np.savez(file, **arrays)
        return Written({"": file.getvalue()}, {})

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterator[Arrays]:
        held = np.load(BytesIO(written.files[""]))
        w, u, b, d = (held[f"{n}_l0"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        for x, *state in cases:
            h, outputs = state[0][0], []
            c = state[1][0] if len(state) > 1 else None
            for step in x:
                ours, theirs = step @ w.T + b, h @ u.T + d
                if c is None:
                    (r, z, n), (s, y, m) = (np.split(a, 3, axis=1) for a in (ours, theirs))
                    update = sigmoid(z + y)
                    h = (1 - update) * np.tanh(n + sigmoid(r + s) * m) + update * h
                else:
                    i, f, g, o = np.split(ours + theirs, 4, axis=1)
                    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                    h = sigmoid(o) * np.tanh(c)
                outputs.append(h)
            yield [np.stack(outputs), h[None], *([] if c is None else [c[None]])]


def keep(arrays: dict[str, Floats]) -> None:
    """No defect."""


def swap_gates(arrays: dict[str, Floats]) -> None:
    first, second, *rest = np.split(arrays["weight_hh_l0"], len(arrays["weight_hh_l0"]) // 48)
    arrays["weight_hh_l0"] = np.concatenate([second, first, *rest])


def shift_a_bias(arrays: dict[str, Floats]) -> None:
    arrays["bias_hh_l0"][5] += 0.02


def drop_a_bias(arrays: dict[str, Floats]) -> None:
    arrays["bias_ih_l0"][:] = 0


def transpose(arrays: dict[str, Floats]) -> None:
    blocks = np.split(arrays["weight_hh_l0"], len(arrays["weight_hh_l0"]) // 48)
    arrays["weight_hh_l0"] = np.concatenate([block.T for block in blocks])


def round_to_8_bits(arrays: dict[str, Floats]) -> None:
    step = np.abs(arrays["weight_hh_l0"]).max() / 127
    arrays["weight_hh_l0"] = (np.round(arrays["weight_hh_l0"] / step) * step).astype(np.float32)


def layer(kind: type[nn.RNNBase], seed: int = 0, *, chaotic: bool) -> nn.Module:
    """Under `layer`; the weights of a chaotic one are standard normal."""
    torch.manual_seed(seed)
    made = kind(24, 48)
    if chaotic:
        for parameter in made.parameters():
            nn.init.normal_(parameter)
    return nn.ModuleDict({"layer": made})


@pytest.fixture
def exported(compressed, tmp_path: Path, monkeypatch) -> Callable[..., ttcompress.Exported]:
    def run(model: nn.Module, spoil: Spoil = keep) -> ttcompress.Exported:
        monkeypatch.setitem(TARGETS, "numpy", Numpy(spoil))
        small = compressed(model, **SMALL, format="mps")
        (made,) = ttcompress.export(small, tmp_path / "m.npz", target="numpy", overwrite=True)
        return made

    return run


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("seed", range(4))
def test_a_layer_that_amplifies_rounding_is_no_defect(exported, kind, seed) -> None:
    made = exported(layer(kind, seed, chaotic=True))
    assert made.largest_difference < 10 * made.own_difference
    if kind is nn.GRU:  # a fixed limit would refuse it
        assert made.largest_difference > FLOAT_LIMIT


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_an_ordinary_layer_is_near(exported, kind) -> None:
    made = exported(layer(kind, chaotic=False))
    assert made.largest_difference < 1e-5 and made.own_difference < 1e-5


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("chaotic", [False, True])
@pytest.mark.parametrize(
    "spoil", [swap_gates, shift_a_bias, drop_a_bias, transpose, round_to_8_bits]
)
def test_a_defect_is_found_and_both_numbers_are_said(
    exported, tmp_path, kind, chaotic, spoil
) -> None:
    said = r"differ from torch's by .* but at most .* allowed; torch's own differ by .*defect"
    with pytest.raises(TTCompressError, match=said) as caught:
        exported(layer(kind, chaotic=chaotic), spoil)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "m.npz").exists()


class Itself(Numpy):
    """Runs the module; `spoil` changes its outputs."""

    name = "itself"
    whole_models = True

    def write(
        self, part: Part, facts: Mapping[str, str], quantize: str | None, name: str
    ) -> Written:
        self.flat = FlatModule(part.module, part.call).eval()
        return Written({"": b"1"}, {})

    def run(self, written: Written, call: Call, cases: Sequence[Arrays]) -> Iterator[Arrays]:
        for inputs in cases:
            with torch.no_grad():
                outputs = self.flat(*map(torch.from_numpy, inputs))
            arrays = {str(k): output.numpy().copy() for k, output in enumerate(outputs)}
            self.spoil(arrays)
            yield list(arrays.values())


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 5)


class ByLength(Base):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, 8)
        return self.fc(self.rnn(x)[0].gather(1, last).squeeze(1))


class ByMask(Base):
    """Gives -inf where the mask says so, and NaN if a sequence is masked whole."""

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = self.fc(self.rnn(x)[0]).masked_fill(~mask[..., None], -torch.inf)
        return y, y.softmax(1)


class Noisy(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x + 0.1 * torch.randn_like(x))[0]


class AlwaysDropping(Base):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.rnn(x)[0], training=True)


class Stateful(Base):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.rnn(x)[0] + self.calls


class OnlyFive(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0].reshape(-1, 5, 8))


class Narrow(Base):
    """Cannot run in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0] @ torch.ones(8, 2)


class Attending(Base):
    """Two sequences of different lengths, and the length of the first."""

    def forward(self, x: Tensor, lengths: Tensor, other: Tensor) -> Tensor:
        y = ByLength.forward(self, x, lengths)  # type: ignore[arg-type]
        return y[:, None] + self.fc(self.rnn(other)[0])


X = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([5, 3, 4])
MASK = torch.arange(5) < torch.tensor([[5], [3], [4]])
BOTH, BATCH = {0: "batch", 1: "time"}, {0: "batch"}


@pytest.fixture
def checked(compressed, tmp_path, monkeypatch) -> Callable[..., ttcompress.Exported]:
    def run(model: nn.Module, example: Any, axes: Any, spoil: Spoil = keep) -> ttcompress.Exported:
        monkeypatch.setitem(TARGETS, "itself", Itself(spoil))
        own = ttcompress.OwnModule(model, example, axes)
        small = compressed(model.float() if model.fc.weight.is_floating_point() else model, **SMALL)
        (made,) = ttcompress.export(small, tmp_path / "m", target="itself", module=own)
        return made

    return run


@pytest.mark.parametrize(
    ("model", "example", "axes"),
    [
        (ByLength(), (X, LENGTHS), (BOTH, BATCH)),
        (ByMask(), (X, MASK), (BOTH, BOTH)),
        (ByMask(), (X, torch.zeros(3, 5, dtype=torch.bool)), (BOTH, BOTH)),
        (Narrow(), (X,), (BOTH,)),
        (Attending(), (X, LENGTHS, torch.randn(3, 7, 6)), (BOTH, BATCH, {0: "batch", 1: "other"})),
    ],
    ids=["lengths", "mask", "all masked", "not in float64", "two time axes"],
)
def test_modules_with_arguments_of_every_kind_are_checked(checked, model, example, axes) -> None:
    assert checked(model, example, axes).largest_difference < 1e-5


@pytest.mark.parametrize("model", [Noisy(), AlwaysDropping(), Stateful()])
def test_a_module_that_answers_differently_every_time_is_refused(checked, model) -> None:
    with pytest.raises(RecipeError, match="other outputs when it is called again"):
        checked(model, (X,), (BOTH,))


def test_a_module_that_does_not_run_at_other_sizes_is_named_by_them(checked) -> None:
    with pytest.raises(RecipeError, match=r"module does not run with batch 1, time 1: shape"):
        checked(OnlyFive(), (X,), (BOTH,))


def cut(arrays: dict[str, Floats]) -> None:
    arrays["0"] = arrays["0"][:, :1]


def fill(arrays: dict[str, Floats]) -> None:
    arrays["0"][...] = np.nan


def finite(arrays: dict[str, Floats]) -> None:
    arrays["0"] = np.nan_to_num(arrays["0"], neginf=-1e30)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, r"shapes \[\(1, 1, 5\), .*torch's have"),
        (fill, "differ from torch's by inf"),
        (finite, "differ from torch's by inf"),
    ],
)
def test_outputs_of_another_kind_are_refused(checked, spoil, message) -> None:
    with pytest.raises(TTCompressError, match=message):
        checked(ByMask(), (X, MASK), (BOTH, BOTH), spoil)


def test_what_is_not_finite_in_torch_hides_no_defect(checked) -> None:
    def shift(arrays: dict[str, Floats]) -> None:
        arrays["0"] += 0.01  # -inf stays so

    with pytest.raises(TTCompressError, match=r"differ from torch's by 0\.01"):
        checked(ByMask(), (X, MASK), (BOTH, BOTH), shift)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_module_in_another_precision_is_refused(compressed, tmp_path, dtype) -> None:
    small = compressed(ByLength(), **SMALL)
    own = ttcompress.OwnModule(ByLength().to(dtype), (X.to(dtype), LENGTHS), (BOTH, BATCH))
    with pytest.raises(RecipeError, match=rf"computes in {dtype}, but exports are in float32"):
        ttcompress.export(small, tmp_path / "m.onnx", module=own)
