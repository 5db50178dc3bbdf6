"""Text that a language model writes: what it is like, and for which models there is none."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import RecipeError
from ttcompress.tasks.synthetic import Synthetic


def test_the_text_is_the_model_s(case) -> None:
    """The trained model writes what it learned: most pairs of characters occur in its text."""
    task = Synthetic(case.checkpoint)
    written = task.write(8, 100, torch.Generator().manual_seed(0))
    text = torch.cat([batch.inputs[0] for batch in case.task.train_batches(0, 0)])
    pairs = set(pairwise(text.tolist()))
    found = [pair in pairs for row in written.tolist() for pair in pairwise(row)]
    assert written.shape == (8, 100) and sum(found) / len(found) > 0.9


def test_the_seed_and_the_epoch_decide_what_is_written(case) -> None:
    task = Synthetic(case.checkpoint, batch=4, steps=16, batches=3)
    texts = [
        torch.cat([window.symbols for window in task.train_batches(epoch, seed)], 1)
        for epoch, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert torch.equal(texts[0], texts[1]) and texts[0].shape == (4, 48)
    assert not torch.equal(texts[0], texts[2]) and not torch.equal(texts[0], texts[3])


def test_every_page_begins_with_an_empty_state(case) -> None:
    task = Synthetic(case.checkpoint, batch=100, steps=256, batches=8)
    windows = list(task.train_batches(0, 0))
    assert len(windows) == 8
    assert [window.fresh for window in windows] == [k % 2 == 0 for k in range(8)]


def test_the_original_agrees_with_itself(case) -> None:
    task = Synthetic(case.checkpoint)
    model = task.build()
    model.load_state_dict(case.checkpoint.state_dict())
    assert task.evaluate(model) == {"divergence": pytest.approx(0, abs=1e-6), "agreement": 1.0}
    with torch.no_grad():
        model.head.bias[0] += 3  # type: ignore[union-attr, operator, index]
    found = task.evaluate(model)
    assert found["divergence"] > 0.05 and found["agreement"] < 1


class Model(nn.Module):
    def __init__(self, outputs: int = 9, **options: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.rnn = nn.LSTM(4, 8, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, outputs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model(bidirectional=True), "is bidirectional"),
        (Model(outputs=5), "gives 5 outputs"),
        (nn.LSTM(4, 8), "not part of a larger model"),
        (nn.Sequential(nn.Embedding(9, 4), nn.RNN(4, 8), nn.Linear(8, 9)), "tanh or relu"),
        (nn.Sequential(nn.LSTM(4, 8), nn.Linear(8, 4)), "no vocabulary of 4 characters"),
        (nn.Sequential(nn.LSTM(4, 8), nn.Linear(8, 64)), "no vocabulary of 4 characters"),
    ],
)
def test_a_model_that_cannot_write_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Synthetic(open_checkpoint(model))


@pytest.mark.parametrize("names", [list("abcd"), ["load", "price", "heat", "wind"]])
def test_one_hot_characters_are_known_by_their_vocabulary(names, tmp_path) -> None:
    """Without it, or with names of columns, the same tensors may be a forecaster's."""
    state = nn.Sequential(nn.LSTM(4, 8), nn.Linear(8, 4)).state_dict()
    torch.save({"state_dict": state, "names": names}, tmp_path / "model.pt")
    checkpoint = open_checkpoint(tmp_path / "model.pt")
    if names[0] == "a":
        assert Synthetic(checkpoint).write(2, 5, torch.Generator()).max() < 4
    else:
        with pytest.raises(RecipeError, match="may take values instead of symbols"):
            Synthetic(checkpoint)
