import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.moments import Calibration, calibrate
from ttcompress.calibration.refit import refit
from ttcompress.calibration.sources import (
    POSITIONS,
    SEQUENCES,
    Activations,
    FileSource,
    ModuleSource,
    task_source,
)
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import InputError, RecipeError
from ttcompress.recipe import Recipe, recipe_from
from ttcompress.tasks.evaluation import measure_metrics
from ttcompress.workflows.budget import meet_tolerance
from ttcompress.workflows.compress import compress
from ttcompress.workflows.job import prepare
from ttcompress.workflows.verify import verify

RECIPE = {
    "version": 1,
    "format": "mps",
    "budget": {"factor": 12},
    "store": "int3",
    "rules": [{"weights": "recurrent"}, {"weights": "linear", "format": "dense", "store": "int3"}],
    "default": "keep",
}


def decompose(
    checkpoint: Checkpoint, recipe: Recipe, shown: Calibration | None = None
) -> CompressedModel:
    """Without the refit that follows it in `build`."""
    job = prepare(checkpoint, replace(recipe, calibration=None))
    return meet_tolerance(replace(job, recipe=recipe, calibration=shown))


def source(case, batches: int = 6) -> ModuleSource:
    return task_source(case.task, case.checkpoint.stacks, batches, seed=0)


def test_a_weighting_is_the_second_moment_of_the_inputs(case):
    found = calibrate(case.checkpoint, source(case, 2))
    model = case.task.build()
    model.load_state_dict({n: case.checkpoint.tensor(n) for n in model.state_dict()})
    inputs, state = [], None
    model.head.register_forward_pre_hook(lambda module, args: inputs.append(args[0].flatten(0, 1)))
    batches = case.task.train_batches(0, 0)
    for _ in range(2):
        _, state = case.task.outputs(model.eval(), next(batches), state)
    wide = torch.cat(inputs).double().detach()
    weighting = found.weightings["head.weight"]
    different = found.inputs["head.weight"]
    assert 0.8 * len(wide) < different <= len(wide)  # the text repeats itself
    assert weighting.known == different / (different + 24)  # a guess counts as an input a column
    torch.testing.assert_close(
        _without_diagonal(weighting.moment),
        weighting.known * _without_diagonal(wide.mT @ wide / len(wide)),
    )
    assert set(found.weightings) == {w.name for w in case.checkpoint.weights}


def _without_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    return matrix - matrix.diagonal().diag()


def test_calibration_and_then_the_refit_bring_the_model_nearer(case):
    recipe = recipe_from({**RECIPE, "calibration": {"batches": 6}})
    shown = calibrate(case.checkpoint, source(case))
    plain = decompose(case.checkpoint, recipe_from(RECIPE))
    weighted = decompose(case.checkpoint, recipe, shown)
    fitted = refit(case.checkpoint, weighted, shown)
    losses = [measure_metrics(case.task, m)["perplexity"] for m in (plain, weighted, fitted)]
    assert losses[1] < losses[0]
    assert losses[2] < losses[1]
    assert fitted.file_bytes > 0
    assert fitted.report.totals == weighted.report.totals  # the bytes stay
    assert fitted.report.calibration["refitted"]
    assert "head.bias" in fitted.report.calibration["biases"]


def test_the_pipeline_says_what_it_did_and_verify_agrees(case, tmp_path):
    options = {"name": "language-model", "text": str(case.path.parent / "text.txt")}
    recipe = {**RECIPE, "task": options | {"batch": 8, "steps": 20}, "calibration": {"batches": 6}}
    made = compress(case.path, recipe)
    made.save(tmp_path / "a.safetensors")
    compress(case.path, recipe).save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    found = verify(tmp_path / "a.safetensors", case.path)
    assert found.agrees
    assert found.kept < len(made.kept)  # fitted biases are no longer the source's own
    assert made.report.calibration["shrunk"] == {}


def test_few_inputs_are_shrunk_towards_a_guess_and_the_plan_says_so(case):
    task = replace_steps(case, 2)
    shown = calibrate(case.checkpoint, task_source(task, case.checkpoint.stacks, 1, seed=0))
    assert shown.inputs["lstm.weight_hh_l0"] == 14  # of 16: two sequences begin alike
    recipe = recipe_from({**RECIPE, "calibration": {"batches": 1}})
    made = decompose(case.checkpoint, recipe, shown)
    notes = {one.name: one.notes for one in made.report.weights}
    few = "calibrated with 14 different inputs: shrunk towards a prior (37% from data)"
    assert few in notes["lstm.weight_hh_l0"]
    assert any("too few inputs for 3 of 3 weights (14 for" in note for note in made.report.notes)
    assert refit(case.checkpoint, made, shown).report.calibration["shrunk"]["head.weight"] == few


def replace_steps(case, steps: int):
    from ttcompress.tasks.registry import task_for

    options = {"text": str(case.path.parent / "text.txt"), "batch": 8, "steps": steps}
    return task_for(case.checkpoint, "language-model", options)


@pytest.fixture
def gru(tmp_path):
    torch.manual_seed(0)
    module = nn.GRU(6, 10, 2, bidirectional=True)
    path = tmp_path / "gru.pt"
    torch.save({f"rnn.{name}": value for name, value in module.state_dict().items()}, path)
    inputs = torch.randn(12, 9, 6) @ torch.randn(6, 6)
    save_file({"rnn": inputs.contiguous()}, tmp_path / "inputs.safetensors")
    return path, tmp_path / "inputs.safetensors", module, inputs


@pytest.mark.parametrize("format", ["mps", "mpo"])
def test_a_file_of_inputs_is_enough_and_no_task_is_needed(gru, format):
    path, data, module, inputs = gru
    recipe = {"version": 1, "format": format, "budget": {"factor": 6}, "store": "int6"}
    losses = []
    with torch.no_grad():
        wanted = module(inputs.transpose(0, 1))[0]
        for extra in ({}, {"calibration": {"data": str(data)}}):
            made = compress(path, recipe | extra)
            own = nn.GRU(6, 10, 2, bidirectional=True)
            own.load_state_dict({n.removeprefix("rnn."): t for n, t in made.state_dict().items()})
            losses.append(float((own(inputs.transpose(0, 1))[0] - wanted).square().sum()))
    assert losses[1] < 0.9 * losses[0]


def test_inputs_that_do_not_fit_are_refused(gru, tmp_path):
    path, data, _, inputs = gru
    model = open_checkpoint(path)
    with pytest.raises(InputError, match="cannot be read"):
        FileSource(path, model)
    save_file({"a": inputs, "b": inputs.clone()}, data)
    with pytest.raises(
        RecipeError, match="a is not a recurrent layer of the model; those are 'rnn'"
    ):
        FileSource(data, model)
    save_file({"rnn": inputs[..., :5].contiguous()}, data)
    with pytest.raises(
        RecipeError, match=r"rnn: expected floats of shape \(batch, time, 6\), got \(12, 9, 5\)"
    ):
        FileSource(data, model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(0, 9, 6), "holds no inputs"),
        (torch.zeros(2, 0, 6), "holds no inputs"),
        (torch.tensor([float("nan"), 0, 0, 0, 0, 0]).expand(2, 3, 6), "6 of 36 values are NaN"),
        (
            torch.tensor([float("inf"), 0, 0, 0, 0, 0]).expand(1, 1, 6),
            "1 of 6 values are NaN or inf",
        ),
    ],
)
def test_inputs_that_mean_nothing_are_refused(gru, tmp_path, values, message):
    path, data, _, _ = gru
    save_file({"rnn": values.contiguous()}, data)
    with pytest.raises(RecipeError, match=message):
        FileSource(data, open_checkpoint(path))


def test_a_model_that_overflows_on_the_data_is_refused(gru):
    path, data, _, inputs = gru
    save_file({"rnn": inputs.double().mul(1e200)}, data)  # infinite once it is float32
    with pytest.raises(RecipeError, match=r"the inputs of rnn.weight_ih_l0 hold NaN or infinity"):
        compress(path, {"version": 1, "budget": {"factor": 4}, "calibration": {"data": str(data)}})


def test_a_layer_with_dropped_weights_is_not_run_by_itself(gru, tmp_path):
    path, data, module, _ = gru
    tensors = {f"rnn.{name}": tensor for name, tensor in module.state_dict().items()}
    raw = {f"{n}_raw" if "weight_hh" in n else n: tensor for n, tensor in tensors.items()}
    torch.save(raw, path)
    with pytest.raises(
        RecipeError, match="rnn is not a recurrent layer of the model; those are none"
    ):
        FileSource(data, open_checkpoint(path))


def test_without_data_there_is_a_cure(case):
    with pytest.raises(RecipeError, match="Add --task"):
        compress(case.path, {**RECIPE, "calibration": True})


def test_weights_that_no_data_reach_are_not_refitted(case):
    shown = calibrate(case.checkpoint, source(case))
    alone = replace(shown, inputs=dict.fromkeys(shown.inputs, 0))
    made = decompose(case.checkpoint, recipe_from(RECIPE))
    same = refit(case.checkpoint, made, alone)
    assert same.report.calibration["refitted"] == []
    assert all(
        torch.equal(a, b)
        for a, b in zip(made.state_dict().values(), same.state_dict().values(), strict=True)
    )


@dataclass
class Counting:
    """A source that counts at the end of each pass what all tensors take."""

    source: ModuleSource
    living: Callable[[], int]
    found: list[int] = field(default_factory=list)

    @property
    def batches(self) -> int:
        return self.source.batches

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        yield from self.source.run(tensors)
        self.found.append(self.living())


def test_memory_does_not_grow_with_the_batches(case, living):
    few, many = _counted(case, 2, living), _counted(case, 8, living)
    assert len(few) == len(many) == 9  # two models, three times for the layer, once for the head
    for before, after in zip(few, many, strict=True):
        assert after < 1.02 * before


def _counted(case, batches: int, living: Callable[[], int]) -> list[int]:
    """Bytes at the end of each pass over so many batches, through calibration and refit."""
    counting = Counting(source(case, batches), living)
    assert len(list(counting.source.run(_tensors(case)))) == batches
    shown = calibrate(case.checkpoint, counting)
    recipe = recipe_from({**RECIPE, "calibration": {"batches": batches}})
    made = decompose(case.checkpoint, recipe, shown)
    refit(case.checkpoint, made, shown)
    return counting.found


def _tensors(case) -> dict[str, Tensor]:
    return {name: case.checkpoint.tensor(name) for name in case.task.build().state_dict()}


def test_a_source_shows_the_same_every_time(case):
    first, second = (list(source(case, 3).run(_tensors(case))) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.stacks["lstm."][0][0].outputs, two.stacks["lstm."][0][0].outputs)
        assert torch.equal(one.linears["head"][0], two.linears["head"][0])
    assert not torch.equal(first[0].linears["head"][0], first[1].linears["head"][0])


def test_a_file_is_shown_a_few_sequences_at_a_time(gru, tmp_path):
    path, _, module, _ = gru
    inputs = torch.randn(2 * SEQUENCES + 3, 4, 6).half()
    save_file({"rnn": inputs}, tmp_path / "long.safetensors")
    found = FileSource(tmp_path / "long.safetensors", open_checkpoint(path))
    tensors = {f"rnn.{name}": tensor for name, tensor in module.state_dict().items()}
    seen = [one.stacks["rnn."][0][0].inputs for one in found.run(tensors)]
    assert [len(values) for values in seen] == [SEQUENCES, SEQUENCES, 3]
    assert found.batches == 3
    assert torch.equal(torch.cat(seen), inputs.float())


def test_of_a_long_file_a_part_is_shown_from_all_over_it(tmp_path):
    """One sequence of five times as many steps as are shown, which are numbered."""
    steps = 5 * POSITIONS
    numbers = torch.arange(steps, dtype=torch.float32)[None, :, None]
    save_file({"x": numbers}, tmp_path / "long.safetensors")
    lstm = nn.LSTM(1, 2, batch_first=True)
    found = FileSource(tmp_path / "long.safetensors", open_checkpoint(lstm))
    passes = list(found.run(lstm.state_dict()))
    seen = torch.cat([one.stacks[""][0][0].inputs.flatten() for one in passes])
    assert 0.9 * POSITIONS <= len(seen) <= POSITIONS and len(seen.unique()) == len(seen)
    assert torch.histc(seen, 5, 0, steps).tolist() == pytest.approx([len(seen) / 5] * 5, rel=0.1)
    assert found.batches == len(passes)


def test_a_pipe_is_no_data_and_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        FileSource(tmp_path / "pipe", open_checkpoint(nn.LSTM(6, 4)))


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_file_of_data_that_is_cut_short(length: int, tmp_path) -> None:
    save_file({"rnn": torch.zeros(2, 3, 6)}, tmp_path / "data")
    content = (tmp_path / "data").read_bytes()
    (tmp_path / "data").write_bytes(content[:length])
    with pytest.raises(
        InputError, match=r"data: .*(truncated|ends early|end at byte|fit its bytes)"
    ):
        FileSource(tmp_path / "data", open_checkpoint(nn.LSTM(6, 4)))
