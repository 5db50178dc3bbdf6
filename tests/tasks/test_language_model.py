import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ttcompress.errors import InputError, RecipeError
from ttcompress.layers.recurrent_model import Chain
from ttcompress.model.weights import RecurrentStack
from ttcompress.tasks.language_model import LanguageModel, SymbolTask

WORDS = "the cat sat on the mat"
CHARACTERS = {symbol: k for k, symbol in enumerate(sorted(set(WORDS)))}
WORD_INDICES = {symbol: k for k, symbol in enumerate(["<unk>", *sorted(set(WORDS.split()))])}
CHAIN = Chain("e", 9, (RecurrentStack("r.", "gru", 4, 5),), "d", 9, bias=True, tied=False)


def model(symbols: int, classes: int | None = None, bidirectional: bool = False) -> nn.Module:
    return nn.ModuleDict(
        {
            "encoder": nn.Embedding(symbols, 4),
            "rnn": nn.LSTM(4, 5, bidirectional=bidirectional),
            "decoder": nn.Linear(5 * (1 + bidirectional), classes or symbols),
        }
    )


def task_of(symbols: list[int], batch: int, steps: int) -> SymbolTask:
    class Named(SymbolTask):
        name = "symbols"

    return Named(CHAIN, lambda: symbols, lambda: symbols, True, batch, steps)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 50)
    return path


@given(n=st.integers(2, 400), batch=st.integers(1, 8), steps=st.integers(1, 9))
def test_windows_predict_every_next_symbol_in_order(n, batch, steps):
    symbols = torch.arange(n)
    task = task_of(symbols.tolist(), batch, steps)
    batches = list(task.held_out_batches())
    inputs = torch.cat([b.inputs for b in batches], 1)
    targets = torch.cat([b.targets for b in batches], 1)
    assert torch.equal(inputs + 1, targets)
    used = inputs.flatten()
    assert torch.equal(used, symbols[: len(used)])
    assert n - 1 - len(used) < len(inputs)  # no whole step of all streams is left over
    assert all(b.inputs.shape[1] <= steps for b in batches)


@given(n=st.integers(2, 400), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_an_epoch_is_the_text_from_a_place_on(n, seed, epoch):
    task = task_of(list(range(n)), 4, 3)
    batches = list(task.train_batches(epoch, seed))
    used = torch.cat([b.inputs for b in batches], 1).flatten()
    assert len(batches) == task.batches_per_epoch
    assert torch.equal(used, (used[0] + torch.arange(len(used))) % n)


def test_a_model_that_knows_nothing_needs_the_bits_of_all_symbols():
    task = task_of([0, 1, 2, 3, 4, 5, 6, 7, 8] * 20, 4, 5)
    built = task.build()
    for parameter in built.parameters():
        nn.init.zeros_(parameter)
    metrics = task.evaluate(built)
    assert metrics["bits_per_character"] == pytest.approx(math.log2(9), rel=1e-6)
    assert metrics["perplexity"] == pytest.approx(9, rel=1e-6)


def test_the_metric_is_that_of_one_pass_over_each_stream():
    torch.manual_seed(0)
    symbols = torch.randint(9, (301,))
    task = task_of(symbols.tolist(), 3, 10)
    built = task.build().double()
    streams = symbols[:300].view(3, 100), symbols[1:301].view(3, 100)
    with torch.no_grad():
        logits = built(streams[0])[0]
    nats = nn.functional.cross_entropy(logits.flatten(0, 1), streams[1].flatten()).item()
    assert task.evaluate(built)["bits_per_character"] == pytest.approx(nats / math.log(2), 1e-12)


def test_the_vocabulary_tells_characters_from_words(describe, text):
    characters = describe(model(len(CHARACTERS)), vocab=CHARACTERS)
    task = LanguageModel(characters, text=str(text))
    assert [metric.name for metric in task.metrics] == ["bits_per_character", "perplexity"]
    words = describe(model(len(WORD_INDICES)), vocab=WORD_INDICES)
    task = LanguageModel(words, text=str(text))
    assert [metric.name for metric in task.metrics] == ["perplexity"]
    assert not any(metric.higher_is_better for metric in task.metrics)


def test_words_stand_between_spaces_and_lines_end_if_the_vocabulary_says_so(describe, tmp_path):
    valid = tmp_path / "valid"
    valid.write_text(" the  cat\non the mat \n")
    ending = {**WORD_INDICES, "<eos>": len(WORD_INDICES)}
    for vocabulary, words in (
        (WORD_INDICES, ["the", "cat", "on", "the", "mat"]),
        (ending, ["the", "cat", "<eos>", "on", "the", "mat", "<eos>"]),
    ):
        structure = describe(model(len(vocabulary)), vocab=vocabulary)
        (batch,) = LanguageModel(structure, valid=str(valid)).held_out_batches()
        assert batch.inputs[0].tolist() == [vocabulary[word] for word in words[:-1]]
        assert batch.targets[0].tolist() == [vocabulary[word] for word in words[1:]]


def test_the_last_tenth_of_a_text_is_held_out(describe, text):
    structure = describe(model(len(CHARACTERS)), vocab=CHARACTERS)
    task = LanguageModel(structure, text=str(text), batch=1, steps=7)
    held_out = torch.cat([b.targets for b in task.held_out_batches()], 1)
    trained = torch.cat([b.targets for b in task.train_batches(0, 0)], 1)
    assert (held_out.numel(), trained.numel()) == (110 - 1, 990 - 1)


def test_only_measuring_needs_no_training_text(describe, text):
    structure = describe(model(len(CHARACTERS)), vocab=CHARACTERS)
    task = LanguageModel(structure, valid=str(text))
    task.evaluate(task.build())
    with pytest.raises(RecipeError, match="no data to train on"):
        next(task.train_batches(0, 0))


BAD_OPTIONS = {
    "no text": ({}, "no data to measure on"),
    "both": ({"text": "a", "train": "b"}, "text and train are both given"),
    "batch": ({"text": "a", "batch": 0}, "batch: expected a whole number of at least 1, got 0"),
    "steps": (
        {"text": "a", "steps": "many"},
        "steps: expected a whole number of at least 1, got 'many'",
    ),
    "tokens": ({"text": "a", "tokens": "bytes"}, "tokens: expected one of characters, words, got"),
    "nonlinearity": (
        {"text": "a", "nonlinearity": "elu"},
        "nonlinearity: expected one of tanh, relu, got",
    ),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_a_bad_option_is_told(name, describe):
    options, fact = BAD_OPTIONS[name]
    with pytest.raises(RecipeError) as caught:
        LanguageModel(describe(model(len(CHARACTERS)), vocab=CHARACTERS), **options)
    assert fact in str(caught.value)
    assert str(caught.value).startswith("task language-model: ")


def test_bad_text_is_told(describe, tmp_path):
    structure = describe(model(len(CHARACTERS)), vocab=CHARACTERS)

    def measure(content: str) -> None:
        (tmp_path / "text").write_text(content)
        task = LanguageModel(structure, valid=str(tmp_path / "text"))
        task.evaluate(task.build())

    with pytest.raises(RecipeError, match="1 symbols to measure on"):
        measure("t")
    with pytest.raises(RecipeError, match=r"text: 1 of 8 symbols are not in .* \('x'\)"):
        measure("the xcat")
    with pytest.raises(RecipeError, match="is empty"):
        measure("")
    task = LanguageModel(structure, text=str(tmp_path / "absent"))
    with pytest.raises(InputError, match="no such file"):
        task.evaluate(task.build())


def test_a_model_that_cannot_predict_its_input_is_refused(describe):
    with pytest.raises(RecipeError, match=r"rnn\.\* is bidirectional, so it sees"):
        LanguageModel(describe(model(9, bidirectional=True)), text="text")
    with pytest.raises(RecipeError, match="takes 9 symbols, but decoder gives 4 outputs"):
        LanguageModel(describe(model(9, 4)), text="text")
