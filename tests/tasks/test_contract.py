"""What every built-in task keeps to, because fine-tuning and distillation rely on it."""

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ttcompress.samples import corpus, highlighting, oscillators
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.registry import BUILT_IN, make_task

SENTENCE = "the cat sat on the mat\n"
VOCABULARY = {symbol: k for k, symbol in enumerate(["<unk>", *sorted(set(SENTENCE))])}
SOURCE = 'x = 1  # one\ny = "two"\n'
SOURCE_VOCABULARY = {symbol: k for k, symbol in enumerate(["<unk>", *sorted(set(SOURCE))])}


def model(symbols: int, classes: int, bidirectional: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "embedding": nn.Embedding(symbols, 4),
            "lstm": nn.LSTM(4, 5, batch_first=True, bidirectional=bidirectional),
            "head": nn.Linear(5 * (1 + bidirectional), classes),
        }
    )


def forecasting(inputs: int, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    layers = {"rnn": nn.GRU(inputs, 9, batch_first=True), "out": nn.Linear(9, outputs)}
    return nn.ModuleDict(layers)


@pytest.fixture
def make(describe, tmp_path, monkeypatch) -> Callable[[str], Task]:
    """Each built-in task on little data, for a model of its kind."""
    monkeypatch.setattr(corpus, "load", lambda split: SENTENCE * 100)
    labels = highlighting.label(SOURCE)
    count = 1 + 40 * highlighting.WINDOW // len(SOURCE)
    monkeypatch.setattr(highlighting, "load", lambda split: (SOURCE * count, labels * count))
    monkeypatch.setattr("ttcompress.tasks.highlighter.EVALUATED_WINDOWS", 10)
    text, tagged, classified = (tmp_path / name for name in ("text", "tagged", "classified"))
    rows = [tuple(math.sin(k * w) for w in (0.2, 0.3, 0.4, 0.6)) for k in range(300)]
    monkeypatch.setattr(oscillators, "load", lambda split: rows)
    series = tmp_path / "series"
    series.write_text("".join(f"{a},{b}\n" for a, b, _, _ in rows))
    text.write_text(SENTENCE * 100)  # three streams of eleven windows
    tagged.write_text("t X\nh Y\n\nc X\na Y\nt X\n\n" * 30)
    classified.write_text("the cat\tX\nmat\tY\n" * 30)
    two, size = ["X", "Y"], len(VOCABULARY)
    cases = {
        "language-model": (model(size, size), {"vocab": VOCABULARY}, {"text": str(text)}),
        "tagger": (model(size, 2, True), {"vocab": VOCABULARY, "tags": two}, {"data": str(tagged)}),
        "classifier": (
            model(size, 2, True),
            {"vocab": VOCABULARY, "labels": two},
            {"data": str(classified), "pooling": "mean"},
        ),
        "forecast": (
            forecasting(inputs=2, outputs=3),
            {},
            {"data": str(series), "target": "1", "window": 8, "pooling": "none"},
        ),
        "forecaster": (forecasting(inputs=4, outputs=8), {}, {}),
        "charlm": (model(size, size), {"vocab": VOCABULARY}, {}),
        "highlighter": (model(len(SOURCE_VOCABULARY), 7), {"vocab": SOURCE_VOCABULARY}, {}),
    }

    def made(name: str) -> Task:
        users, content, options = cases[name]
        return make_task(name, describe(users, **content), options)

    return made


pytestmark = pytest.mark.parametrize("name", BUILT_IN)


def seen(task: Task, epoch: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    return [(batch.inputs, batch.targets) for batch in task.train_batches(epoch, seed)]


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    flat = [list(itertools.chain(*batches)) for batches in (one, other)]
    return len(flat[0]) == len(flat[1]) and all(map(torch.equal, *flat))


def test_epoch_and_seed_decide_the_batches(name, make):
    first = seen(make(name), epoch=1, seed=3)
    assert equal(first, seen(make(name), epoch=1, seed=3))
    assert not equal(first, seen(make(name), epoch=2, seed=3))
    assert not equal(first, seen(make(name), epoch=1, seed=4))


def test_it_knows_how_many_batches_an_epoch_has(name, make):
    task = make(name)
    assert task.batches_per_epoch == len(seen(task, 0, 0)) > 0


def test_outputs_are_of_real_positions_and_the_loss_is_their_mean(name, make):
    task = make(name)
    built = task.build()
    for batch in itertools.islice(task.train_batches(0, 0), 2):
        logits, _ = task.outputs(built, batch, None)
        assert logits.shape == (len(batch.real_targets), logits.shape[1])
        if task.predicts == "values":
            errors = (logits - batch.real_targets) ** 2
        else:
            errors = -logits.log_softmax(1)[range(len(logits)), batch.real_targets]
        torch.testing.assert_close(task.loss(logits, batch), errors.mean())


def test_state_goes_on_without_its_graph(name, make):
    task = make(name)
    built = task.build()
    first, second = itertools.islice(task.train_batches(0, 0), 2)
    logits, state = task.outputs(built, first, None)
    assert logits.requires_grad
    fresh, _ = task.outputs(built, second, None)
    following, _ = task.outputs(built, second, state)
    carried = name in ("language-model", "charlm")
    assert (state is not None) is carried
    assert torch.equal(fresh, following) is not carried
    torch.autograd.backward(task.loss(following, second))


def test_training_makes_it_better_by_the_counting_metric(name, make):
    task = make(name)
    torch.manual_seed(1)
    built = task.build()
    counting = task.metrics[0]
    before = task.evaluate(built)
    optimizer = torch.optim.Adam(built.parameters(), 0.05)
    for epoch in range(3):
        state = None
        for batch in task.train_batches(epoch, 0):
            logits, state = task.outputs(built, batch, state)
            optimizer.zero_grad()
            torch.autograd.backward(task.loss(logits, batch))
            optimizer.step()
    after = task.evaluate(built)
    assert list(before) == list(after) == [metric.name for metric in task.metrics]
    gain = after[counting.name] - before[counting.name]
    assert gain > 0 if counting.higher_is_better else gain < 0


def test_evaluation_repeats_and_leaves_the_model_as_it_was(name, make):
    task = make(name)
    built = task.build().train()
    weights = copy.deepcopy(built.state_dict())
    assert task.evaluate(built) == task.evaluate(built)
    assert all(module.training for module in built.modules())
    assert all(torch.equal(weights[key], value) for key, value in built.state_dict().items())
    assert all(parameter.grad is None for parameter in built.parameters())


def test_dropout_is_off_in_evaluation_only(name, make):
    task = make(name)
    built = task.build()
    quiet = task.evaluate(built)
    built.register_forward_hook(
        lambda module, _, output: (output[0] * 0, output[1]) if module.training else output
    )
    assert task.evaluate(built.train()) == quiet
