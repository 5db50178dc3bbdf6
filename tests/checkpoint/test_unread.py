"""What cannot be read is named, with a cure that works."""

import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import ttcompress
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import CheckpointError, PlanError

Opened = Callable[..., Checkpoint]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5)
        self.cell = nn.GRUCell(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, steps: Tensor) -> Tensor:
        return self.head(self.cell(self.lstm(steps)[0][-1]))


def quantised(kinds: set[type[nn.Module]], dtype: torch.dtype = torch.qint8) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Net(), kinds, dtype=dtype)


LAYERS: dict[str, tuple[set[type[nn.Module]], str]] = {
    "all": ({nn.LSTM, nn.GRUCell, nn.Linear}, r"lstm \(recurrent\), cell \(recurrent\), head"),
    "the LSTM": ({nn.LSTM}, r"lstm \(recurrent\)"),
    "the cell": ({nn.GRUCell}, r"cell \(recurrent\)"),
    "the head": ({nn.Linear}, "head"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("which", LAYERS)
def test_quantised_layers_are_named(
    which: str, whole: bool, options: dict[str, bool], opened: Opened
) -> None:
    kinds, names = LAYERS[which]
    model = quantised(kinds)
    with pytest.raises(CheckpointError, match=f": {names}: .*quantised.*Compress the float model"):
        opened(model if whole else model.state_dict(), **options)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_beside_the_float_one_is_left_out_and_named(opened: Opened) -> None:
    packed = quantised({nn.LSTM, nn.GRUCell, nn.Linear}).state_dict()
    checkpoint = opened({"net": Net().state_dict(), "packed": packed})
    assert len(checkpoint.stacks) == 2
    assert any(
        one.key.startswith("packed") and "not carried over" in one.why
        for one in checkpoint.left_out
    )


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_layer_in_half_precision_is_named(opened: Opened) -> None:
    with pytest.raises(CheckpointError, match=r"lstm \(recurrent\)"):
        opened(quantised({nn.LSTM}, torch.float16))


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_layer_of_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(quantised({nn.LSTM, nn.Linear})).save(tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"lstm \(recurrent\), head: "):
        open_checkpoint(tmp_path / "m.pt")


class Wrapped:
    """As torchao's quantised tensors and DTensor are pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = torch._utils._rebuild_wrapper_subclass
        return rebuild, (Net, torch.float32, (2, 2), (2, 1), 0, torch.strided, "cpu", False)


def test_a_tensor_that_wraps_others_is_named_with_its_class(opened: Opened) -> None:
    with pytest.raises(CheckpointError, match=r"head: is a tensor of class .*Net, which wraps"):
        opened({"w": torch.ones(2, 2), "head": Wrapped()})


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("everything", [True, False])
def test_a_recurrent_weight_in_eight_bits_is_refused(
    dtype: torch.dtype, everything: bool, tmp_path: Path
) -> None:
    state = dict(Net().state_dict())
    for name, value in tuple(state.items()):
        if value.dim() == 2 and (everything or "lstm" in name):
            state[name] = value.to(dtype)
            state[name.replace("weight", "SCB")] = torch.ones(len(value))
    save_file(state, tmp_path / "m")
    fact = rf"weight\S*: is {str(dtype)[6:]}, but weights have one of the types .*(Save|Compress)"
    with pytest.raises(CheckpointError, match=fact):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.complex64])
def test_a_recurrent_weight_of_other_numbers_is_refused(dtype: torch.dtype, opened: Opened) -> None:
    state = {name: value.to(dtype) for name, value in nn.LSTM(3, 4).state_dict().items()}
    with pytest.raises(CheckpointError, match=f"weight_ih_l0: is {str(dtype)[6:]}, but weights"):
        opened({**state, "head.weight": torch.ones(2, 4)})


def test_another_matrix_in_eight_bits_is_kept_and_named(opened: Opened) -> None:
    state = dict(Net().state_dict())
    state["head.weight"] = (state["head.weight"] * 100).to(torch.int8)
    checkpoint = opened(state)
    assert "head.weight" in {other.name for other in checkpoint.others}
    assert "matrices in 8 bits are kept as they are: head.weight" in checkpoint.notes


@pytest.mark.filterwarnings("ignore")
def test_frozen_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.freeze(torch.jit.script(Net().eval())).save(tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"it was frozen.*from before torch\.jit\.freeze"):
        open_checkpoint(tmp_path / "m.pt")


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5)
        self.inner = nn.BatchNorm1d(5)
        self.inner.register_buffer("gone", torch.ones(6, 6), persistent=False)
        self.register_buffer("scale", torch.ones(2, 2))
        self.table = torch.ones(4, 4)

    def forward(self, steps: Tensor) -> Tensor:
        return self.inner(self.lstm(steps)[0][-1]) * self.table[0, 0] * self.inner.gone[0, 0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("save", ["module", "script", "trace"])
def test_only_what_a_state_dict_holds_is_read(save: str, tmp_path: Path) -> None:
    model, path = Holder().eval(), tmp_path / "m.pt"
    match save:
        case "module":
            torch.save(model, path)
            expected = model.state_dict()
        case "script":
            torch.jit.script(model).save(path)
            expected = torch.jit.load(path).state_dict()
        case "trace":
            torch.jit.trace(model, torch.ones(2, 1, 4)).save(path)
            expected = torch.jit.load(path).state_dict()
    state = open_checkpoint(path).state_dict()
    assert set(state) == set(expected) and "table" not in state
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_storage_ids_of_six_elements_are_read(tmp_path: Path) -> None:
    """TorchScript of 2019 ends each with None, the place of an old file's view."""
    torch.save({"w": torch.arange(6.0).view(2, 3)}, tmp_path / "new")
    with (
        zipfile.ZipFile(tmp_path / "new") as old,
        zipfile.ZipFile(tmp_path / "m", "w") as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert data.count(b"K\x06tq") == 1  # six elements in the storage, then the tuple
                data = data.replace(b"K\x06tq", b"K\x06Ntq")
            new.writestr(name, data)
    assert torch.equal(open_checkpoint(tmp_path / "m").tensor("w"), torch.arange(6.0).view(2, 3))


def follow(message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """Run the indented lines of a message, in a folder, and open the file that they write."""
    lines = message.splitlines()[1:-1]
    assert lines and all(line.startswith("    ") for line in lines)
    monkeypatch.chdir(folder)
    exec("\n".join(line[4:] for line in lines), {})
    return open_checkpoint("model.pt")


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_advice_for_npz_works(
    save: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Net().state_dict()
    arrays: dict[str, Any] = {name: value.numpy() for name, value in state.items()}
    arrays["lstm.weight_hh_l0"] = np.asfortranarray(arrays["lstm.weight_hh_l0"])
    path = tmp_path / "it's.npz"
    with path.open("wb") as file:
        save(file, **arrays, words=np.array(["a", "b"]))
    read = follow(refusal(path), tmp_path, monkeypatch)
    assert [stack.prefix for stack in read.stacks] == ["lstm.", "cell."]
    assert all(torch.equal(read.tensor(name), state[name]) for name in state)


def test_the_advice_for_npy_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "m.npy", np.arange(6.0).reshape(2, 3))
    read = follow(refusal(tmp_path / "m.npy"), tmp_path, monkeypatch)
    assert torch.equal(read.tensor("weight"), torch.arange(6.0).double().view(2, 3))


@pytest.mark.filterwarnings("ignore")
def test_the_advice_for_torch_export_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net().eval()
    program = torch.export.export(model, (torch.ones(2, 1, 4),))
    torch.export.save(program, tmp_path / "m.pt2")
    read = follow(refusal(tmp_path / "m.pt2"), tmp_path, monkeypatch)
    assert all(torch.equal(read.tensor(n), value) for n, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}])
def test_the_advice_for_onnx_works(
    kind: type[nn.RNNBase], options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    layer, path = kind(4, 5, **options).eval(), tmp_path / "m.onnx"
    torch.onnx.export(layer, (torch.ones(2, 1, 4),), str(path), dynamo=False)
    message = refusal(path)
    assert "no recurrent layer" not in message
    read = follow(message, tmp_path, monkeypatch)
    for name, value in layer.state_dict().items():
        at = re.search(r"_l(\d)", name)
        assert at is not None
        torch.testing.assert_close(read.tensor(f"layer{at[1]}.{name.replace(at[0], '_l0')}"), value)
    assert len(read.stacks) == layer.num_layers


class LSTM:
    """As Keras has it: kernels are (input, 4 * units), the gates in torch's order."""

    def __init__(self, state: dict[str, Tensor], bias: bool) -> None:
        self.name, self.state, self.bias = "lstm_1", state, bias

    def get_weights(self) -> list[Any]:
        kernels = [self.state[f"weight_{part}_l0"].T.numpy() for part in ("ih", "hh")]
        both = self.state["bias_ih_l0"] + self.state["bias_hh_l0"]
        return kernels + [both.numpy()] * self.bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n lstm_1 recurrent_kernel:0", None])
def test_the_advice_for_keras_works(
    bias: bool, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, layer = tmp_path / "m.keras", nn.LSTM(4, 5)
    if content is not None:
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", '{"class_name": "LSTM"}')
            archive.writestr("model.weights.h5", "")
    state = {name: value.detach() for name, value in layer.state_dict().items()}
    dense = SimpleNamespace(name="dense", get_weights=lambda: [np.ones((5, 2), np.float32)])
    keras = ModuleType("keras")
    made = SimpleNamespace(layers=[LSTM(state, bias), dense])
    keras.models = SimpleNamespace(load_model=lambda path: made)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keras", keras)
    message = refusal(path)
    assert "names no recurrent layer" not in message
    read = follow(message, tmp_path, monkeypatch)
    (stack,) = read.stacks
    assert (stack.prefix, stack.hidden_size, stack.bias) == ("lstm_1.", 5, bias)
    assert torch.equal(read.tensor("lstm_1.weight_hh_l0"), state["weight_hh_l0"])
    if bias:
        both = read.tensor("lstm_1.bias_ih_l0") + read.tensor("lstm_1.bias_hh_l0")
        assert torch.equal(both, state["bias_ih_l0"] + state["bias_hh_l0"])


def test_a_missing_recurrent_layer_is_said_before_the_advice(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", weight=np.ones((3, 3)))
    assert "is a numpy archive, and names no recurrent layer. Convert" in refusal(
        tmp_path / "m.npz"
    )
    torch.save(nn.Linear(9, 9).state_dict(), tmp_path / "m.pt")
    with pytest.raises(
        PlanError, match=r"^the model has no recurrent layer, and the recipe leaves"
    ):
        ttcompress.compress(tmp_path / "m.pt")


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def adam_state(model: nn.Module) -> Any:
    moments = {k: {"exp_avg": p, "exp_avg_sq": p} for k, p in enumerate(model.parameters())}
    return {"state": moments, "param_groups": [{"params": list(moments)}]}


def adam(model: nn.Module) -> bytes:
    return saved(adam_state(model))


def test_a_file_of_optimizer_state_alone_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(adam(Net()))
    assert "so there is nothing to compress" in refusal(tmp_path / "m")


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_the_models_in_a_zip_are_named_by_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, small = Net(), nn.LSTM(2, 2)
    members = {
        "data": b"{}",
        "a.optimizer.pth": adam(model),
        "b/policy.pth": saved(model.state_dict()),
        "c.pt": saved({**small.state_dict(), "optimizer": adam_state(nn.LSTM(40, 40))}),
        "d.pth": saved(nn.Linear(99, 99).state_dict()),  # the largest, but not recurrent
        "e.pth": b"no model",
        "f.pkl": saved({"loss": 1.0}),
    }
    message = refusal(archive(tmp_path / "agent.zip", members))
    assert "most weights are in b/policy.pth" in message and "optimizer" not in message
    assert re.search(r"Others with weights: c\.pt \(.*\), d\.pth \(.*\)\.$", message)
    command = re.search(r"`python (-m zipfile -e agent\.zip \.)` and give (\S+)\.pth\.", message)
    assert command is not None
    with zipfile.ZipFile(tmp_path / "agent.zip") as file:  # what the command does
        file.extractall(tmp_path)
    state = model.state_dict()
    read = open_checkpoint(tmp_path / f"{command[2]}.pth")
    assert all(torch.equal(read.tensor(name), state[name]) for name in state)


def test_a_zip_without_a_recurrent_layer_says_so_first(tmp_path: Path) -> None:
    members = {"a.pth": saved(nn.Linear(9, 9).state_dict())}
    message = refusal(archive(tmp_path / "agent.zip", members))
    assert "no recurrent layer in any of them; most weights are in a.pth" in message


def test_a_zip_in_a_zip_is_not_looked_into(tmp_path: Path) -> None:
    """One can hold itself."""
    inner = archive(tmp_path / "inner", {"a.pth": saved(Net().state_dict())}).read_bytes()
    message = refusal(archive(tmp_path / "agent.zip", {"inner.pt": inner}))
    assert "is a zip archive around inner.pt, but no weights can be read" in message
