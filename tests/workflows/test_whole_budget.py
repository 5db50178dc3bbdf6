"""With data a budget of the whole file is shared by what errors cost the outputs; end to end."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Case
from ttcompress.planning.planner import ESTIMATED
from ttcompress.tasks.evaluation import load_model
from ttcompress.tasks.of import task_of
from ttcompress.tasks.record import record
from ttcompress.tasks.recorded import RecordedTask
from ttcompress.training.sensitivity import measure_sensitivity
from ttcompress.workflows.compress import compress
from ttcompress.workflows.job import prepare
from ttcompress.workflows.plan import plan

RULES = [{"weights": role} for role in ("recurrent", "embedding", "linear")]


def recipe(**keys: Any) -> dict[str, Any]:
    base = {"version": 1, "format": "auto", "rules": RULES, "default": "keep"}
    return base | {"budget": {"size": 9000}} | keys


def test_costs_are_measured_on_the_task_and_in_the_unit_of_the_weightings(case: Case) -> None:
    weights = case.checkpoint.weights
    sensitivity = measure_sensitivity(case.task, load_model(case.task, case.checkpoint), weights)
    assert sensitivity.keys() == {weight.name for weight in weights}
    assert prepare(case.checkpoint, recipe(), task=case.task).costs == sensitivity
    calibrated = prepare(case.checkpoint, recipe(calibration={"batches": 4}), task=case.task)
    for name, weighting in calibrated.weightings.items():
        white = float((weighting.rows[:, None] * weighting.moment.diagonal()).mean())
        assert calibrated.costs[name] * white == pytest.approx(sensitivity[name])


def test_the_models_own_text_will_do_and_without_any_the_role_is_said_to_decide(
    case: Case,
) -> None:
    written = prepare(case.checkpoint, recipe(calibration={"synthetic": 8}))
    assert written.costs.keys() == {weight.name for weight in case.checkpoint.weights}
    bare = prepare(case.checkpoint, recipe())
    assert not bare.costs
    assert ESTIMATED in plan(case.checkpoint, recipe())[1].notes
    assert not prepare(case.checkpoint, recipe(budget={"factor": 4}), task=case.task).costs


def test_recorded_inputs_and_batches_will_do_too(case: Case, tmp_path: Path) -> None:
    module = case.task.build()
    module.load_state_dict(case.checkpoint.state_dict())
    inputs = [batch.inputs for batch in islice(case.task.train_batches(0, seed=0), 4)]
    recorded = tmp_path / "inputs.safetensors"
    record(module, inputs, recorded, linear=True)
    shown = (
        RecordedTask(case.checkpoint, recorded),
        task_of(module, train=inputs, predicts="values"),
    )
    for data, task in zip((recorded, inputs), shown, strict=True):
        job = prepare(module, recipe(), data=data)
        wanted = measure_sensitivity(task, load_model(task, case.checkpoint), job.model.weights)
        assert job.costs.keys() == wanted.keys() > {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}
        for name, cost in job.costs.items():
            mean = job.weightings[name].mean if name in job.weightings else 1.0
            assert cost * mean == pytest.approx(wanted[name], rel=1e-4)


def test_a_model_factor_is_of_the_whole_file(case: Case) -> None:
    model = compress(case.checkpoint, recipe(budget={"model_factor": 1.3}))
    before = model.report.totals["model"].bytes_before
    assert before / model.file_bytes >= 1.3
    same = compress(case.checkpoint, recipe(budget={"size": int(before / 1.3)}))
    # The recipe stands in the header, and is some bytes longer in one of them.
    shares = [[w.bytes_after for w in one.report.weights] for one in (same, model)]
    assert shares[0] == pytest.approx(shares[1], rel=0.01)
