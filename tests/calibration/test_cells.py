"""Calibration of cells in a loop, and of linear layers, by batches and by recorded inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import ttcompress
from ttcompress.calibration.layerwise import LayerPass
from ttcompress.calibration.moments import calibrate
from ttcompress.calibration.sources import DataSource, FileSource, loader_source
from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import InputError

CELLS = {"lstm": (nn.LSTMCell, nn.LSTM), "gru": (nn.GRUCell, nn.GRU), "rnn": (nn.RNNCell, nn.RNN)}
SCALE = torch.tensor([1.0, 1.0, 0.01, 0.01, 0.01])


class Loop(nn.Module):
    """A loop with layer norm between its steps, so that the cell is not given what it returned."""

    def __init__(self, kind: str = "lstm", norm: bool = True, hidden: int = 24) -> None:
        super().__init__()
        self.cell = CELLS[kind][0](5, hidden)
        self.norm = nn.LayerNorm(hidden) if norm else nn.Identity()
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        outputs = []
        for step in x.unbind(1):
            state = self.cell(step, state)
            hidden = self.norm(state[0] if isinstance(state, tuple) else state)
            state = (hidden, state[1]) if isinstance(state, tuple) else hidden
            outputs.append(self.head(hidden))
        return torch.stack(outputs, 1)


def batches(count: int = 2, size: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 9, 5, generator=generator) * SCALE for _ in range(count)]


def passes(source: DataSource, model: nn.Module, prefix: str) -> Iterator[LayerPass]:
    for found in source.run(model.state_dict()):
        for call in found.stacks.get(prefix, []):
            yield from call


@pytest.fixture(autouse=True)
def same() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", CELLS)
def test_a_plain_loop_is_one_pass_as_of_the_layer(kind: str) -> None:
    model, layer = Loop(kind, norm=False), CELLS[kind][1](5, 24, batch_first=True)
    layer.load_state_dict({f"{k}_l0": v for k, v in model.cell.state_dict().items()})
    looped, layered = (
        list(passes(loader_source(m, open_checkpoint(m).stacks, batches(), 2), m, prefix))
        for m, prefix in ((model, "cell."), (layer, ""))
    )
    assert len(looped) == len(layered) == 2
    for one, other in zip(looped, layered, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        torch.testing.assert_close(one.outputs, other.outputs)
        torch.testing.assert_close(one.hidden(0), other.hidden(0))


def test_what_the_loop_does_to_the_state_is_seen() -> None:
    model = Loop()
    seen: list[Tensor] = []
    model.cell.register_forward_pre_hook(lambda _, args: seen.append(args[1] and args[1][0]))
    source = loader_source(model, open_checkpoint(model).stacks, batches(1), 1)
    (found,) = passes(source, model, "cell.")
    assert seen[0] is None and not found.hidden(0)[:, 0].any()
    torch.testing.assert_close(found.hidden(0)[:, 1:], torch.stack(seen[1:], 1).detach())
    assert not torch.allclose(found.hidden(0)[:, 1:], found.outputs[:, :-1], atol=0.1)


def test_each_loop_begins_anew() -> None:
    class Twice(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x[:, :4]).mean()

    model = Twice()
    source = loader_source(model, open_checkpoint(model).stacks, batches(1), 1)
    assert [one.inputs.shape[1] for one in passes(source, model, "cell.")] == [9, 4]


@pytest.mark.parametrize("kind", CELLS)
def test_recorded_steps_are_loops_again(kind: str, tmp_path: Path) -> None:
    model = Loop(kind)
    ttcompress.record(model, batches(), tmp_path / "x.safetensors")
    opened = open_checkpoint(model)
    live = list(passes(loader_source(model, opened.stacks, batches(), 2), model, "cell."))
    read = list(passes(FileSource(tmp_path / "x.safetensors", opened), model, "cell."))
    assert [one.inputs.shape[1] for one in read] == [1, 8, 1, 8]  # the first step has no state
    for k, one in enumerate(live):
        for member in ("inputs", "outputs"):
            parts = [getattr(part, member) for part in read[2 * k : 2 * k + 2]]
            torch.testing.assert_close(
                torch.cat(parts, 1), getattr(one, member), atol=2e-3, rtol=2e-3
            )
        hidden = torch.cat([part.hidden(0) for part in read[2 * k : 2 * k + 2]], 1)
        torch.testing.assert_close(hidden, one.hidden(0), atol=2e-3, rtol=2e-3)


def test_calibrated_cells_are_nearer() -> None:
    model, data = Loop().eval(), batches(8, 16)
    recipe: dict[str, Any] = {"version": 1, "format": "mps", "budget": {"factor": 12}}
    blind = ttcompress.compress(model, recipe)
    seeing = ttcompress.compress(model, recipe, data=data)
    assert seeing.report.calibration is not None and not seeing.report.calibration["shrunk"]
    with torch.no_grad():
        x = torch.randn(32, 9, 5) * SCALE
        far, near = (float((m.module()(x) - model(x)).norm()) for m in (blind, seeing))
    assert near < 0.5 * far, (near, far)


def test_recorded_inputs_of_linear_layers_weigh_their_errors(tmp_path: Path) -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(5, 6, batch_first=True), "head": nn.Linear(6, 3)})
    data, path = batches(8, 64), tmp_path / "x.safetensors"

    def forward(module: Any, x: Tensor) -> Tensor:
        out: Tensor = module["head"](module["lstm"](x)[0] * 7)  # not what follows from the layer
        return out

    ttcompress.record(model, data, path, forward=forward, linear=True)
    opened = open_checkpoint(model.state_dict())
    found = calibrate(opened, FileSource(path, opened))
    with torch.no_grad():
        inputs = torch.cat([model["lstm"](x)[0].flatten(0, 1) * 7 for x in data]).double()
    moment = inputs.mT @ inputs / len(inputs)
    assert found.linears == ("head",) and found.inputs["head.weight"] > 100
    known = found.weightings["head.weight"].moment
    assert float((known - moment).norm() / moment.norm()) < 0.1
    other = nn.ModuleDict({"lstm": model["lstm"], "head": nn.Linear(4, 3)})
    with pytest.raises(ttcompress.RecipeError, match=r"head\.0\.inputs: expected floats .* 4\)"):
        FileSource(path, open_checkpoint(other.state_dict()))


def test_steps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, path = Loop(), tmp_path / "x.safetensors"
    ttcompress.record(model, batches(1), path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["ttcompress_record"])
    assert facts["steps"] == {"cell": [1, 8]}
    for steps, message in (
        ([1, 7], "32 sequences, which are not 7"),
        ([1], "damaged"),
        ([1, 0], "damaged"),
    ):
        facts["steps"] = {"cell": steps}
        save_file(tensors, path, {"ttcompress_record": json.dumps(facts)})
        with pytest.raises(InputError, match=message):
            FileSource(path, open_checkpoint(model))
