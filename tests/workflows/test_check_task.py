"""One batch through a task: what each member gave, as far as the task has it."""

from __future__ import annotations

import pytest
import torch

from tests.tasks.test_of import Tagger
from ttcompress.errors import RecipeError
from ttcompress.tasks.of import task_of
from ttcompress.workflows.check_task import check_task

BATCHES = [(torch.randn(5, 6, 3), torch.randint(4, (5, 6)))]


def test_a_task_that_only_measures_has_no_batch_and_no_loss() -> None:
    model = Tagger()
    task = task_of(model, valid=BATCHES, loss="cross_entropy")
    found = {one.member: one.found for one in check_task(model, task=task)}
    assert found["build"].startswith("Tagger, ")
    assert found["train_batches"] == "no batch: the task measures only"
    assert "loss" not in found and float(found["evaluate: cross_entropy"]) > 0


def test_a_distance_of_the_tasks_own_is_said() -> None:
    model = Tagger()
    task = task_of(model, train=BATCHES, valid=BATCHES, loss="cross_entropy")
    usual = {one.member: one.found for one in check_task(model, task=task)}
    assert usual["distillation"] == "of classes"
    task.distillation = lambda ours, theirs, _: (ours - theirs).square().mean()
    own = {one.member: one.found for one in check_task(model, task=task)}
    assert own == usual | {"distillation": "the task's own"}


def test_without_a_task_there_is_nothing_to_check() -> None:
    with pytest.raises(RecipeError, match=r"nothing to check\. Add --task"):
        list(check_task(Tagger(), {"version": 1}))
