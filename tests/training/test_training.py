import math
from dataclasses import replace
from itertools import islice

import pytest
import torch

from ttcompress.errors import RecipeError, TrainingError
from ttcompress.recipe import Finetune
from ttcompress.tasks.evaluation import load_model, measure_metrics
from ttcompress.training.finetune import Conditions, add_control, finetune
from ttcompress.training.loop import Training, steps_in
from ttcompress.training.machine import OneDevice
from ttcompress.training.resume import resume_progress, save_progress
from ttcompress.workflows.evaluate import metrics_before_after

SHORT = Finetune(epochs=2, learning_rate=1e-2, distill=0.5)


def tensors_of(model):
    return model.stored_tensors()


def assert_same_tensors(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_training_wins_accuracy_back(case):
    teacher = load_model(case.task, case.checkpoint)
    tuned = Training(case.compressed, case.task, SHORT, teacher=teacher).run()
    dense = measure_metrics(case.task, case.checkpoint)
    counting = case.task.metrics[0].name
    assert tuned.before[counting] > 1.1 * dense[counting]  # else there is nothing to win back
    lost = tuned.before[counting] - dense[counting]
    assert tuned.after[counting] - dense[counting] < 0.5 * lost
    assert tuned.after == pytest.approx(measure_metrics(case.task, tuned.model))


def test_the_result_is_never_worse_than_the_start(case):
    wild = Finetune(epochs=1, learning_rate=50.0, distill=0.0, warmup=0.0, clip=1e9)
    tuned = Training(case.compressed, case.task, wild).run()
    assert tuned.after == tuned.before
    assert_same_tensors(tensors_of(tuned.model), tensors_of(case.compressed))


def test_repeats_give_the_same_model(case):
    first, again = (Training(case.compressed, case.task, SHORT, seed=3).run() for _ in range(2))
    assert_same_tensors(tensors_of(first.model), tensors_of(again.model))


@pytest.mark.parametrize("stop", [3, 17])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(case, tmp_path, stop):
    whole = Training(case.compressed, case.task, SHORT, seed=1).run()
    cut = Training(case.compressed, case.task, SHORT, seed=1)

    def interrupt(report):
        if report.step == stop:
            save_progress(cut, tmp_path / "run.resume")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.run(interrupt)
    resumed = Training(case.compressed, case.task, SHORT, seed=1)
    resume_progress(resumed, tmp_path / "run.resume")
    assert resumed.step == stop
    ended = resumed.run()
    assert ended.steps == whole.steps
    assert_same_tensors(tensors_of(ended.model), tensors_of(whole.model))


def test_interrupting_saves_and_running_again_goes_on(case, tmp_path):
    path, seen = tmp_path / "run.resume", []

    def interrupt(report):
        if report.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(case.compressed, case.task, SHORT, Conditions(resume=path, watch=interrupt))
    assert path.exists()
    conditions = Conditions(resume=path, watch=lambda report: seen.append(report.step))
    done = finetune(case.compressed, case.task, SHORT, conditions)
    assert seen[0] == 6
    seen.clear()  # what has ended but is not written yet is not trained again
    again = finetune(case.compressed, case.task, SHORT, conditions)
    assert not seen
    assert_same_tensors(tensors_of(again), tensors_of(done))
    conditions.forget()
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_run_is_refused(case, tmp_path):
    path = tmp_path / "run.resume"
    save_progress(Training(case.compressed, case.task, SHORT, seed=1), path)
    other = Training(case.compressed, case.task, SHORT, seed=2)
    with pytest.raises(RecipeError, match="belongs to another run"):
        resume_progress(other, path)
    path.write_bytes(b"not a file of torch")
    with pytest.raises(RecipeError, match="cannot be resumed from"):
        resume_progress(other, path)


@pytest.mark.parametrize("key", ["student", "optimizer", "best", "step", "metrics", "random"])
def test_a_file_without_all_of_a_run_is_refused(case, tmp_path, key):
    path = tmp_path / "run.resume"
    save_progress(Training(case.compressed, case.task, SHORT), path)
    content = torch.load(path, weights_only=True)
    for damaged in ({key: None}, {key: {"x": torch.ones(2)}}):
        torch.save(content | damaged, path)
        with pytest.raises(RecipeError, match="cannot be resumed from"):
            resume_progress(Training(case.compressed, case.task, SHORT), path)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (4, r"nan at step 5 of \d+\. Use a learning rate below 0\.01"),
        (0, r"nan at step 1 of \d+\. Nothing was trained yet: check the data"),
    ],
)
def test_a_loss_that_is_not_finite_names_the_step(case, monkeypatch, first, message):
    calls = iter(range(100))
    true_loss = case.task.loss

    def loss(outputs, batch):
        return true_loss(outputs, batch) * (math.nan if next(calls) == first else 1.0)

    monkeypatch.setattr(case.task, "loss", loss)
    with pytest.raises(TrainingError, match=message):
        Training(case.compressed, case.task, SHORT).run()


def test_no_training_data_is_refused(case, monkeypatch):
    monkeypatch.setattr(type(case.task), "batches_per_epoch", 0)
    with pytest.raises(RecipeError, match="0 batches"):
        steps_in(case.task, SHORT, OneDevice())


@pytest.mark.parametrize("given", [0, 3])
def test_an_epoch_that_ends_early_is_refused(case, monkeypatch, given):
    whole = type(case.task).train_batches
    monkeypatch.setattr(
        type(case.task), "train_batches", lambda *asked: islice(whole(*asked), given)
    )
    with pytest.raises(RecipeError, match=f"train_batches gave {given}"):
        Training(case.compressed, case.task, SHORT).run()


def test_max_steps_stops_earlier(case):
    short = Finetune(epochs=2, max_steps=3, learning_rate=1e-2)
    assert Training(case.compressed, case.task, short).run().steps == 3


def test_kept_tensors_can_be_left_alone(case):
    cores_only = Finetune(epochs=1, learning_rate=1e-2, distill=0.0, kept=False)
    tuned = Training(case.compressed, case.task, cores_only).run()
    assert tuned.after != tuned.before
    assert_same_tensors(dict(tuned.model.kept), dict(case.compressed.kept))


def test_the_report_has_the_control_and_the_errors_of_the_trained_cores(case):
    conditions = Conditions(control=True)
    tuned = finetune(case.compressed, case.task, SHORT, conditions, case.checkpoint)
    metrics = metrics_before_after(case.checkpoint, tuned, case.task)
    tuned = replace(tuned, report=replace(tuned.report, metrics=metrics))
    tuned = add_control(tuned, case.task, SHORT, conditions, case.checkpoint)
    counting = case.task.metrics[0].name
    entry = tuned.report.control[counting]
    assert entry["after"] == metrics[counting]["after"]
    assert entry["drop"] == pytest.approx(entry["after"] - entry["control"])
    assert entry["control"] <= measure_metrics(case.task, case.checkpoint)[counting]
    for weight in tuned.report.weights:
        source = case.checkpoint.tensor(weight.name).double()
        stored = tuned.state_dict()[weight.name].double()
        error = float((source - stored).norm() / source.norm())
        assert weight.relative_error == pytest.approx(error, rel=1e-4)


def test_the_control_needs_the_original(case):
    with pytest.raises(RecipeError, match="--original"):
        finetune(case.compressed, case.task, SHORT, Conditions(control=True))
