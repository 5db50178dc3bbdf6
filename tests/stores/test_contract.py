"""What every store must do, held against the registry and two stores that only these tests know."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

import ttcompress
from ttcompress.errors import DecompositionError
from ttcompress.layers.matrices import TrainWeight
from ttcompress.stores import AUTO, STORES, Costs, Encoded, Store, auto_stores
from ttcompress.stores.store import Parts, Shape
from ttcompress.training.student import StraightThrough, apply_rounding, make_student


@dataclass(frozen=True, kw_only=True)
class Toy(Store):
    """Eight bits a value and one scale for all: the least that a store needs."""

    name: str = "toy"
    noise: float = 9.5e-5
    coarse: bool = True

    @property
    def bytes_per_value(self) -> float:
        return 1.0

    def parts(self, shape: Shape) -> Parts:
        return {".codes": (shape, "uint8"), ".scale": ((), "float32")}

    def encode(self, values: Tensor, fitted: Mapping[str, Tensor] | None = None) -> Encoded:
        flat = values.detach().float()
        scale = flat.abs().max() / 127 if flat.numel() else torch.tensor(0.0)
        if not scale.isfinite():
            raise self.refusal(values, "Use float32")
        codes = torch.where(scale > 0, flat / scale, 0.0).round() + 128
        return Encoded(self, tuple(values.shape), {".codes": codes.byte(), ".scale": scale})

    def widen(self, unpacked: Mapping[str, Tensor], shape: Shape) -> Tensor:
        return (unpacked["codes"].float() - 128) * unpacked["scale"]


@dataclass(frozen=True, kw_only=True)
class Zipped(Toy):
    """The same codes compressed: the bytes depend on the values, and levels have known steps."""

    name: str = "zipped"

    def estimate_bytes(self, values: int) -> int:
        return values + 4

    def most_bytes(self, values: int) -> int:
        return values + values // 1000 + 64

    def parts(self, shape: Shape) -> Parts:
        return {".code": ((None,), "uint8"), ".scale": ((), "float32")}

    def fit(self, values: Tensor, costs: Costs | None = None) -> dict[str, Tensor]:
        return {"scale": super().encode(values).tensors[".scale"]}

    def steps(self, fitted: Mapping[str, Tensor], like: Tensor) -> Tensor:
        return fitted["scale"].to(like.dtype).expand(like.shape)

    def nearest(self, values: Tensor, steps: Tensor) -> Tensor:
        return (values / steps).round().clamp(-128, 127) * steps

    def encode(self, values: Tensor, fitted: Mapping[str, Tensor] | None = None) -> Encoded:
        scale = (self.fit(values) if fitted is None else fitted)["scale"]
        levels = torch.where(scale > 0, values.detach().float() / scale, 0.0).round()
        codes = levels.clamp(-128, 127) + 128
        code = zlib.compress(codes.byte().numpy().tobytes())
        tensors = {".code": torch.tensor(list(code), dtype=torch.uint8), ".scale": scale}
        return Encoded(self, tuple(values.shape), tensors)

    def unpack(self, tensors: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        codes = np.frombuffer(zlib.decompress(tensors[".code"].numpy().tobytes()), np.uint8)
        return {"codes": torch.tensor(codes).reshape(shape), "scale": tensors[".scale"]}


TOYS = (Toy(), Zipped())
EVERY = (*STORES.values(), *TOYS)
FREE = ("zipped", "coded")
"""The stores whose bytes depend on the values."""
EXACT = [store for store in EVERY if store.name not in FREE]
every_store = pytest.mark.parametrize("store", EVERY, ids=lambda store: store.name)
any_store = st.sampled_from(EVERY)


@settings(max_examples=100, deadline=None)
@given(any_store, st.lists(st.integers(0, 12), min_size=1, max_size=3), st.integers(0, 999))
def test_bytes_shape_and_dtype_are_the_planned_ones(
    store: Store, shape: list[int], seed: int
) -> None:
    encoded = store.encode(normal(*shape, seed=seed))
    values = prod(shape)
    assert encoded.bytes <= store.most_bytes(values)
    assert store.estimate_bytes(values) <= store.most_bytes(values)
    if store in EXACT:
        assert encoded.bytes == store.estimate_bytes(values) == store.most_bytes(values)
    assert encoded.values().shape == tuple(shape)
    assert encoded.values().dtype == torch.float32


@every_store
def test_bytes_per_value_are_the_limit_of_many_values(store: Store) -> None:
    many = store.estimate_bytes(1 << 24)
    assert many / (1 << 24) == pytest.approx(store.bytes_per_value, rel=1e-5)


@pytest.mark.parametrize("store", [s for s in EVERY if s.noise < inf], ids=lambda store: store.name)
def test_noise_is_the_measured_one_within_a_tenth(store: Store) -> None:
    values = normal(1 << 15)
    if store.noise < 1e-14:
        assert relative_noise(values, store) <= 10 * store.noise
    else:
        assert relative_noise(values, store) == pytest.approx(store.noise, rel=0.1)


@every_store
def test_zeros_stay_zeros(store: Store) -> None:
    assert torch.equal(store.encode(torch.zeros(3, 40)).values(), torch.zeros(3, 40))
    values = torch.cat([torch.zeros(64), normal(64).float()])
    assert torch.equal(store.encode(values).values()[:64], torch.zeros(64))


@every_store
def test_values_that_vanish_in_float32_become_zeros(store: Store) -> None:
    values = torch.full((64,), 1e-60, dtype=torch.float64)
    assert torch.equal(store.encode(values).values(), torch.zeros(64))


@every_store
def test_rounding_what_was_rounded_changes_little(store: Store) -> None:
    once = store.encode(normal(3, 200)).values()
    again = store.encode(once).values()
    assert float((again - once).norm() / once.norm()) < 1e-3


@every_store
@pytest.mark.parametrize("scale", [1e-30, 1e30], ids=["tiny", "huge"])
def test_tiny_and_huge_values(store: Store, scale: float) -> None:
    values = scale * normal(4, 100)
    if store.name != "float16":
        assert relative_noise(values, store) <= 2 * store.noise
    elif scale > 1:
        with pytest.raises(DecompositionError, match=r"float16 cannot hold the value .*e\+30.*Use"):
            store.encode(values)
    else:
        assert not store.encode(values).values().any()


@every_store
def test_values_beyond_float32_are_refused(store: Store) -> None:
    said = rf"{store.name} cannot hold the value 1e\+300\. Keep this weight"
    with pytest.raises(DecompositionError, match=said):
        store.encode(torch.full((64,), 1e300, dtype=torch.float64))


@every_store
def test_stored_parts_are_found_again_by_key(store: Store) -> None:
    encoded = store.encode(normal(5, 30))
    kept = {f"w.cores.0{suffix}": part for suffix, part in encoded.tensors.items()}
    again = Encoded.read(store, (5, 30), "w.cores.0", kept)
    assert torch.equal(again.values(), encoded.values())
    for key, part in kept.items():
        with pytest.raises(KeyError):
            Encoded.read(store, (5, 30), "w.cores.0", {k: v for k, v in kept.items() if k != key})
        for wrong in (part[None], part.int()):
            with pytest.raises(ValueError, match=f"{store.name} needs"):
                Encoded.read(store, (5, 30), "w.cores.0", kept | {key: wrong})
    fact = f"{store.name} needs" if store in EXACT else "coded integers"
    if store.name != "zipped":
        with pytest.raises(ValueError, match=fact):
            Encoded.read(store, (6, 31), "w.cores.0", kept)


def test_a_part_of_free_length_is_no_longer_than_the_store_can_make_it() -> None:
    encoded = Zipped().encode(normal(5, 30))
    long = {".code": torch.zeros(10_000, dtype=torch.uint8), ".scale": encoded.tensors[".scale"]}
    with pytest.raises(ValueError, match="takes 10004 bytes, but zipped at most 214"):
        Encoded.read(Zipped(), (5, 30), "", long)


@every_store
def test_at_the_scales_of_other_values_the_views_agree(store: Store) -> None:
    values, fitted = normal(7, 31), store.fit(normal(7, 31, seed=5))
    stored = store.encode(values, fitted).values()
    assert torch.equal(store.snap(values, fitted), stored)
    steps = store.steps(fitted, values)
    if steps is not None:
        assert steps.shape == values.shape and steps.dtype == values.dtype
        torch.testing.assert_close(store.nearest(values, steps).float(), stored)


@every_store
def test_what_is_unpacked_widens_to_the_values(store: Store) -> None:
    encoded = store.encode(normal(7, 31))
    unpacked = store.unpack(encoded.tensors, (7, 31))
    assert all(name.isidentifier() for name in unpacked)  # they become buffers of a module
    assert torch.equal(store.widen(unpacked, (7, 31)), encoded.values())


def test_stores_to_choose_from_get_finer_as_they_get_larger() -> None:
    others = [name for name in STORES if name not in ("bfloat16", "coded")]
    assert [store.name for store in auto_stores()] == others
    for coarse, fine in pairwise(auto_stores()):
        assert coarse.bytes_per_value < fine.bytes_per_value
        assert coarse.noise > fine.noise


def test_names_are_those_that_the_registry_knows_them_by() -> None:
    assert AUTO not in STORES
    assert all(store.name == name for name, store in STORES.items())


@pytest.fixture(params=TOYS, ids=lambda store: store.name)
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that is registered for one test."""
    store: Store = request.param
    monkeypatch.setitem(STORES, store.name, store)
    return store


def recipe(store: Store, **keys: Any) -> dict[str, Any]:
    return {"version": 1, "store": store.name, "budget": {"factor": 8}, **keys}


def test_a_registered_store_goes_the_whole_way(toy: Store, case, tmp_path: Path) -> None:
    _, planned = ttcompress.plan(case.path, recipe(toy))
    path = tmp_path / "out.safetensors"
    ttcompress.compress(case.path, recipe(toy)).save(path)
    model, tensors = ttcompress.load(path), load_file(path)
    assert model.report.weights
    for before, after in zip(planned.changed, model.report.weights, strict=True):
        parts = [t for key, t in tensors.items() if key.startswith(f"{after.name}.cores.")]
        assert after.store == toy.name == before.store.name
        assert after.bytes_after == sum(part.numel() * part.element_size() for part in parts)
        assert before.bytes == after.bytes_after or toy.name == "zipped"
        assert after.relative_error == pytest.approx(before.expected_error, rel=0.05)
    assert ttcompress.verify(path, case.path).agrees
    ttcompress.restore(path, tmp_path / "dense.pt")
    restored = torch.load(tmp_path / "dense.pt")["model"]
    dense = model.state_dict()
    assert all(torch.equal(restored[name], tensor) for name, tensor in dense.items())
    loaded = ttcompress.load_into(case.task.build(), model).get_submodule("lstm.weight_hh_l0")
    assert isinstance(loaded, TrainWeight)
    torch.testing.assert_close(loaded.dense(), dense["lstm.weight_hh_l0"])


def test_a_registered_store_is_calibrated_and_trained_through(toy: Store, case) -> None:
    text = str(case.path.parent / "text.txt")
    task = {"name": "language-model", "text": text, "batch": 8, "steps": 20}
    plain = ttcompress.compress(case.path, recipe(toy, task=task))
    student = make_student(plain, case.task.build())
    apply_rounding(student, plain)
    views = [module for module in student.modules() if isinstance(module, StraightThrough)]
    assert len(views) == sum(len(stored.parts) for stored in plain.weights)
    keys = {"calibration": {"batches": 6}, "finetune": {"max_steps": 12, "learning_rate": 1e-2}}
    tuned = ttcompress.compress(case.path, recipe(toy, task=task, **keys))
    assert tuned.report.calibration["refitted"]
    assert tuned.report.finetune["steps"] == 12
    assert {weight.store for weight in tuned.report.weights} == {toy.name}
    after = tuned.report.metrics["perplexity"]["after"]
    assert after < plain.report.metrics["perplexity"]["after"]


@pytest.mark.slow
def test_a_registered_store_is_exported(toy: Store, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    torch.save(nn.LSTM(48, 32).state_dict(), tmp_path / "model.pt")
    model = ttcompress.compress(tmp_path / "model.pt", recipe(toy, budget={"rank": 8}))
    (made,) = ttcompress.export(model, tmp_path / "model.onnx")
    values = sum(weight.params_after for weight in model.report.weights)
    assert made.holds["uint8"] == values
    assert made.largest_difference < 1e-4
    held = {one.name: one.data_type for one in onnx.load(made.file).graph.initializer}
    codes = [kind for name, kind in held.items() if name.endswith(".codes")]
    assert codes == [onnx.TensorProto.UINT8] * sum(len(one.parts) for one in model.weights)


def normal(*shape: int, seed: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def relative_noise(values: Tensor, store: Store) -> float:
    unit = values / values.abs().max()
    kept = store.encode(values).values().double() / values.abs().max()
    return float((kept - unit).square().sum() / unit.square().sum())
