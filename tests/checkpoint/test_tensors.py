"""Tensors as windows on storages: offsets, strides, ties, number types, memory."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.checkpoint.tensors import (
    SLAB,
    MemoryBytes,
    StoredTensor,
    check_tensor,
    contiguous_stride,
    read_tensor,
)
from ttcompress.errors import CheckpointError, TTCompressError

Opened = Callable[..., Checkpoint]
LEGACY = [{}, {"_use_new_zipfile_serialization": False}]


@pytest.mark.parametrize("options", LEGACY)
def test_views_of_one_flat_storage_are_read_apart(opened: Opened, options: dict[str, bool]) -> None:
    flat = torch.randn(1000)
    views = {
        "a": flat[10:22].view(3, 4),
        "b": flat[22:34].view(4, 3),
        "overlap": flat[12:24].view(3, 4),
        "transposed": flat[100:112].view(3, 4).t(),
        "stepped": flat[::100].view(2, 5),
    }
    checkpoint = opened(views, **options)
    for name, view in views.items():
        tensor = checkpoint.tensor(name)
        assert torch.equal(tensor, view)
        assert tensor.untyped_storage().nbytes() == 4 * view.numel()
    assert all(len(weight.names) == 1 for weight in checkpoint.weights)
    assert any("5 tensors are views" in note for note in checkpoint.notes)


@pytest.mark.parametrize("options", LEGACY)
def test_tied_tensors_are_one_weight(opened: Opened, options: dict[str, bool]) -> None:
    embedding, decoder = nn.Embedding(9, 4), nn.Linear(4, 9)
    decoder.weight = embedding.weight
    model = nn.ModuleDict({"encoder": embedding, "rnn": nn.LSTM(4, 4), "decoder": decoder})
    checkpoint = opened(model.state_dict(), **options)
    tied = checkpoint.weights[0]
    assert tied.names == ("encoder.weight", "decoder.weight")
    assert tied.role == "embedding"
    assert torch.equal(checkpoint.tensor("decoder.weight"), embedding.weight)
    assert [weight.name for weight in checkpoint.weights].count("decoder.weight") == 0


def test_equal_values_are_not_tied(opened: Opened) -> None:
    checkpoint = opened({"a": torch.ones(2, 2), "b": torch.ones(2, 2)})
    assert [weight.names for weight in checkpoint.weights] == [("a",), ("b",)]


def test_another_shape_of_the_same_numbers_is_not_tied(opened: Opened) -> None:
    flat = torch.randn(12)
    checkpoint = opened({"a": flat.view(3, 4), "b": flat.view(4, 3)})
    assert [weight.names for weight in checkpoint.weights] == [("a",), ("b",)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", LEGACY)
def test_floats_are_weights_in_their_own_type(
    opened: Opened, dtype: torch.dtype, options: dict[str, bool]
) -> None:
    matrix = torch.randn(3, 5).to(dtype)
    checkpoint = opened({"w": matrix}, **options)
    assert checkpoint.weights[0].bytes == 15 * dtype.itemsize
    assert torch.equal(checkpoint.tensor("w"), matrix)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).view(2, 3),
        torch.ones(2, 3, dtype=torch.complex64),
        torch.ones(2, 3).to(torch.float8_e4m3fn),
        torch.tensor([[True, False]]),
        torch.empty(0, 4),
        torch.randn(2, 3, 4),
        torch.tensor(2.5),
        torch.tensor([[1, 2]], dtype=torch.uint16),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)
def test_everything_else_is_kept_as_it_is(opened: Opened, tensor: torch.Tensor) -> None:
    checkpoint = opened({"w": torch.ones(2, 2), "other": tensor})
    (other,) = checkpoint.others
    assert (other.shape, other.dtype) == (tuple(tensor.shape), str(tensor.dtype)[6:])
    assert other.bytes == tensor.numel() * tensor.itemsize
    read = checkpoint.tensor("other")
    assert read.dtype == tensor.dtype and read.shape == tensor.shape
    assert torch.equal(
        read.view(torch.uint8) if tensor.itemsize == 1 else read,
        (tensor.view(torch.uint8) if tensor.itemsize == 1 else tensor),
    )


def test_an_expanded_buffer_is_read(opened: Opened) -> None:
    mask = torch.arange(3.0).view(3, 1).expand(3, 1000)
    checkpoint = opened({"w": torch.ones(2, 2), "mask": mask})
    assert torch.equal(checkpoint.tensor("mask"), mask)


@pytest.mark.parametrize(
    "shape, stride", [((2**40, 2**10), (0, 0)), ((0, 2**61, 2**61), (0, 0, 0))]
)
def test_a_huge_expansion_is_refused(shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
    stored = StoredTensor("s", torch.float32, 0, shape, stride)
    with pytest.raises(CheckpointError, match="would take"):
        check_tensor(stored, MemoryBytes(memoryview(bytes(4))))


def test_a_window_past_its_storage_is_refused() -> None:
    stored = StoredTensor("s", torch.float32, 1, (2, 2), contiguous_stride((2, 2)))
    with pytest.raises(CheckpointError, match="needs 20 bytes of storage 's', which has 16"):
        check_tensor(stored, MemoryBytes(memoryview(bytes(16))))
    check_tensor(stored, MemoryBytes(memoryview(bytes(20))))


def test_a_window_is_the_strided_view() -> None:
    values = torch.arange(20, dtype=torch.int16)
    stored = StoredTensor("s", torch.int16, 3, (2, 3), (1, 4))
    source = MemoryBytes(memoryview(values.numpy().tobytes()))
    assert torch.equal(read_tensor(stored, {"s": source}), values.as_strided((2, 3), (1, 4), 3))


def test_cuda_locations_are_read_to_the_cpu(tmp_path: Path, opened: Opened) -> None:
    opened({"w": torch.ones(2, 2)})
    path = tmp_path / "model.bin"
    data = path.read_bytes()
    moved = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00gpu")
    assert moved != data
    path.write_bytes(moved)
    assert open_checkpoint(path).tensor("w").device.type == "cpu"


def test_a_storage_class_of_cuda_is_known(tmp_path: Path) -> None:
    path = tmp_path / "m"
    torch.save({"w": torch.ones(2, 2)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"ctorch\nFloat", b"ctorch.cuda\nFloat"))
    assert torch.equal(open_checkpoint(path).tensor("w"), torch.ones(2, 2))


@pytest.mark.parametrize("options", LEGACY)
def test_memory_holds_one_weight_at_a_time(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "m"
    torch.save({f"w{k}": torch.zeros(500, 1000) for k in range(10)}, path, **options)
    tracemalloc.start()
    checkpoint = open_checkpoint(path)
    for weight in checkpoint.weights:
        checkpoint.tensor(weight.name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * 500 * 1000 * 4 + 2**21


def test_a_file_that_shrank_after_opening_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m"
    torch.save({"w": torch.ones(100, 100)}, path)
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(TTCompressError, match=r"was changed while it was being read .* now 2,000"):
        checkpoint.tensor("w")


def test_an_unknown_name_gets_the_nearest(opened: Opened) -> None:
    checkpoint = opened({"lstm.weight_hh_l0": torch.ones(4, 1)})
    with pytest.raises(CheckpointError, match=r"Did you mean lstm\.weight_hh_l0\?"):
        checkpoint.tensor("lstm.weight_hh_l1")


UNREADABLE = {
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.ones(2, 2, device="meta"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_of_another_kind_is_named(kind: str, opened: Opened) -> None:
    with pytest.raises(CheckpointError, match=r"model\.bin: odd: .*(Save|Compress)"):
        opened({"w": torch.ones(2, 2), "odd": UNREADABLE[kind]()})


def test_a_number_type_that_no_artifact_can_hold_is_refused_at_once(opened: Opened) -> None:
    fact = r"model\.bin: odd: has type complex128, which safetensors cannot store"
    with pytest.raises(CheckpointError, match=fact):
        opened({"w": torch.ones(2, 2), "odd": torch.ones(2, dtype=torch.complex128)})


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=3),
    st.integers(0, 5),
    st.integers(1, 100),
)
def test_any_window_is_read_slab_by_slab(
    axes: list[tuple[int, int]], offset: int, slab: int
) -> None:
    shape, stride = tuple(size for size, _ in axes), tuple(step for _, step in axes)
    values = torch.arange(offset + 90, dtype=torch.int32)
    stored = StoredTensor("s", torch.int32, offset, shape, stride)
    source = MemoryBytes(memoryview(values.numpy().tobytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ttcompress.checkpoint.tensors.SLAB", slab)
        read = read_tensor(stored, {"s": source})
    assert torch.equal(read, values.as_strided(shape, stride, offset))


def test_a_transposed_weight_is_never_held_twice(tmp_path: Path) -> None:
    path = tmp_path / "m"
    torch.save({"w": torch.zeros(1000, 5000).t()}, path)
    checkpoint = open_checkpoint(path)
    tracemalloc.start()
    tensor = checkpoint.tensor("w")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tensor.is_contiguous() and peak < 2 * SLAB
