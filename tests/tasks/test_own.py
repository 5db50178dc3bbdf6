"""What goes wrong in a user's task is one message that names the user's file and line."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import nn

from ttcompress.errors import OutOfMemoryError, RecipeError, TaskError
from ttcompress.tasks.own import OwnTask
from ttcompress.tasks.registry import find_task, make_task, task_for

MODEL = """\
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 5)

    def forward(self, x):
        return self.rnn(x)[0] @ nn.Linear(4, 2).weight.T  # line 9

def build():
    return Net()

net = Net()
"""
TASK = """\
import json
from model import Net
from torch import nn
from torch.nn import functional
from ttcompress import Metric

class Own:
    name, metrics = "own", (Metric("score", True),)

    def __init__(self, structure, level=1):
        self.level = 1 // level  # line 11

    @property
    def batches_per_epoch(self):
        return len(self.data)  # line 15

    def build(self):
        return Net()

    def train_batches(self, epoch, seed):
        yield 1
        json.loads("no json")  # line 22

    def outputs(self, model, batch, state):
        return model(batch), None

    def loss(self, outputs, batch):
        return functional.mse_loss(outputs, batch)  # line 28

    def evaluate(self, model):
        raise ValueError()  # line 31
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("ttcompress_task_") or n == "model"]:
        del sys.modules[name]


@pytest.fixture
def structure(describe):
    return describe(nn.ModuleDict({"rnn": nn.GRU(3, 5)}))


@pytest.fixture
def inner(folder, structure):
    """The user's object."""
    return find_task("task.py:Own")(structure)


@pytest.fixture
def task(inner):
    """The same as the program has it."""
    return OwnTask(inner, "task.py:Own")


CALLS = {
    "batches_per_epoch: task.py:15: AttributeError: 'Own' object has no attribute 'data'": (
        lambda task: task.batches_per_epoch
    ),
    "outputs: model.py:9: RuntimeError: mat1 and mat2 shapes cannot be multiplied": (
        lambda task: task.outputs(task.build(), torch.zeros(2, 1, 3), None)
    ),
    "train_batches: task.py:22: JSONDecodeError: Expecting value": (
        lambda task: list(task.train_batches(0, 0))
    ),
    "loss: task.py:28: UserWarning: Using a target size (torch.Size([4])) that is different to the "
    "input size (torch.Size([4, 1]))": lambda task: task.loss(torch.ones(4, 1), torch.ones(4)),
    "evaluate: task.py:31: ValueError. Correct": lambda task: task.evaluate(task.build()),
}


@pytest.mark.parametrize("message", CALLS)
def test_an_exception_is_one_message_with_the_users_file_and_line(message, task):
    with pytest.raises(TaskError) as caught:
        CALLS[message](task)
    assert str(caught.value).startswith(f"task task.py:Own: {message}")
    assert str(caught.value).endswith("Correct the task.")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2 and caught.value.__cause__ is not None


def test_so_is_one_when_it_is_made_or_imported(folder, structure):
    with pytest.raises(TaskError, match=r"^task task\.py:Own: task\.py:11: ZeroDivisionError: "):
        make_task("task.py:Own", structure, {"level": 0})
    (folder / "broken.py").write_text("x = 1\nif x\n")
    with pytest.raises(TaskError, match=r"imported: broken\.py:2: SyntaxError: expected ':'"):
        make_task("broken.py:Own", structure)


def test_a_lack_of_memory_and_the_programs_own_errors_stay_what_they_are(task, inner):
    for raised, seen in (
        (MemoryError(), OutOfMemoryError),
        (RecipeError("theirs"), RecipeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(3), SystemExit),
    ):
        inner.evaluate = raising(raised)
        with pytest.raises(seen) as caught:
            task.evaluate(task.build())
        assert type(caught.value) is seen


def raising(error: BaseException) -> Any:
    def fail(model: nn.Module) -> None:
        raise error

    return fail


RETURNS = {
    "batches_per_epoch: expected a whole number, got float": (
        "batches_per_epoch",
        2.5,
        lambda t: t.batches_per_epoch,
    ),
    "build: expected a torch.nn.Module, got int": ("build", 3, lambda t: t.build()),
    "outputs: expected a pair (tensor, state), got Tensor of 2 x 4": (
        "outputs",
        torch.zeros(2, 4),  # would be unpacked as two rows
        lambda t: t.outputs(None, None, None),
    ),
    "outputs: expected a pair (tensor, state), got (dict, NoneType)": (
        "outputs",
        ({}, None),
        lambda t: t.outputs(None, None, None),
    ),
    "loss: expected a tensor with one number, got Tensor of 3": (
        "loss",
        torch.zeros(3),
        lambda t: t.loss(torch.ones(2, 2), None),
    ),
    "loss: expected a tensor with one number, got float": (
        "loss",
        1.5,
        lambda t: t.loss(torch.ones(2, 2), None),
    ),
    "evaluate: expected metrics by name, got float": ("evaluate", 0.5, lambda t: t.evaluate(0)),
    "evaluate: score: expected a number, got list": (
        "evaluate",
        {"score": [1]},
        lambda t: t.evaluate(0),
    ),
}


@pytest.mark.parametrize("message", RETURNS)
def test_a_result_of_another_kind_is_said_where_it_is_returned(message, task, inner):
    member, value, call = RETURNS[message]
    # On a class of its own: a property cannot be set on the object.
    made = property(lambda _: value) if member == "batches_per_epoch" else lambda *_: value
    inner.__class__ = type("Own", (type(inner),), {member: made})
    with pytest.raises(RecipeError) as caught:
        call(task)
    assert str(caught.value).startswith(f"task task.py:Own: {message}. Return ")


def test_a_state_loses_its_graph(task, inner):
    state = torch.ones(2, requires_grad=True) * 2
    outputs = torch.ones(2, requires_grad=True) * 2
    inner.outputs = lambda *_: (outputs, (state, [state, None]))
    kept, (first, (second, nothing)) = task.outputs(None, None, None)
    assert kept.requires_grad and not first.requires_grad and not second.requires_grad
    assert nothing is None


@pytest.mark.parametrize("metrics", [(), ("score",)])
def test_metrics_are_metrics(metrics, folder, structure):
    given = dedent(f"""
        from task import Own

        class Other(Own):
            metrics = {metrics}
    """)
    (folder / "other.py").write_text(given)
    with pytest.raises(RecipeError, match=r"metrics: expected at least one ttcompress\.Metric"):
        make_task("other.py:Other", structure)
    del sys.modules["task"]


def test_outputs_of_no_known_kind_are_refused_before_the_work(folder, structure):
    (folder / "other.py").write_text(
        'from task import Own\n\nclass Other(Own):\n    predicts = {"score": "vectors"}\n'
    )
    with pytest.raises(RecipeError, match=r"predicts: expected one of .*, got 'vectors'"):
        make_task("other.py:Other", structure)
    del sys.modules["task"]


@pytest.mark.parametrize(("name", "fact"), [("Net", "is"), ("net", "is"), ("build", "gives")])
def test_a_model_is_no_task_and_the_message_says_what_is(name, fact, folder, structure):
    (folder / "builds.py").write_text(MODEL.replace("def build()", "def build(structure)"))
    with pytest.raises(RecipeError) as caught:
        make_task(f"builds.py:{name}", structure)
    assert str(caught.value).startswith(f"task builds.py:{name}: {fact} a model. A task is a class")
    assert "train_batches" in str(caught.value) and "language-model" in str(caught.value)


def test_a_task_that_is_given_as_an_object_is_guarded_once(inner, save):
    model = save(nn.ModuleDict({"rnn": nn.GRU(3, 5)}).state_dict())
    guarded = task_for(model, inner)
    with pytest.raises(TaskError, match=r"^task own: evaluate: task\.py:31"):
        guarded.evaluate(nn.Linear(1, 1))
    assert task_for(model, guarded) is guarded
    assert isinstance(copy.copy(guarded), OwnTask) and guarded.level == 1


def test_a_warning_of_the_users_loss_is_shown_once(task, inner, recwarn):
    warnings.simplefilter("default")

    def loss(outputs, batch):
        warnings.warn("look", stacklevel=1)
        return outputs.sum()

    inner.loss = loss
    for positions in range(1, 9):
        task.loss(torch.ones(positions, 2), None)
    assert len([one for one in recwarn if str(one.message) == "look"]) <= 2  # not at every step
