"""In: the text inside this Python. Out: the sample models trained again, their measured baselines.

    python sample_models/make.py charlm|highlighter|all [--epochs N] [--threads N] [--bfloat16]

Each model is embedding -> LSTM -> linear, written beside this file as a user would have saved it.
`--bfloat16` halves the time where the processor has instructions for it; what is measured is
always measured in float32.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from ttcompress.samples import corpus, highlighting
from ttcompress.samples.corpus import SPLITS, Split
from ttcompress.tasks import metrics

HERE = Path(__file__).parent
BASELINES = HERE / "baselines.json"

SEED = 0
PEAK_LEARNING_RATE = 4.0e-3
WARM_UP = 0.05  # of all steps; the rest decays as a cosine to almost nothing
LARGEST_GRADIENT = 1.0

Batch = tuple[Tensor, Tensor]  # inputs and targets: each (batch, time), int64
State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Config:
    """The sizes of a sample model, kept in its file."""

    embedding_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool


class SampleModel(nn.Module):
    """Embedding -> LSTM -> linear: the model of both samples."""

    def __init__(self, config: Config, symbols: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, config.embedding_size)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            dropout=dropout,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.hidden_size * (1 + config.bidirectional), classes)

    def forward(self, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(batch, time) symbols -> (batch, time, classes) logits, and the state at the end."""
        outputs, state = self.lstm(self.embedding(inputs), state)
        return self.head(self.dropout(outputs)), state


class Charlm:
    """A character language model of Python's documentation; state goes on from batch to batch."""

    name = "charlm"
    config = Config(embedding_size=64, hidden_size=256, num_layers=2, bidirectional=False)
    dropout = 0.1
    epochs = 16
    carries_state = True
    window = 128
    at_least = 50

    def __init__(self) -> None:
        texts = {split: corpus.load(split) for split in SPLITS}
        self.characters = len(texts["train"])
        self.vocab = corpus.vocabulary(texts["train"], self.at_least)
        self.classes = len(self.vocab)
        self.extras: dict[str, list[str]] = {}
        self._symbols = {
            split: torch.tensor(corpus.encode(text, self.vocab)) for split, text in texts.items()
        }

    def batches(self) -> list[Batch]:
        """An epoch: windows of parallel streams through the whole text, from a random place on."""
        symbols = self._symbols["train"]
        return self._windows(symbols.roll(int(torch.randint(len(symbols), ()))))

    def held_out(self, split: Split) -> list[Batch]:
        """The head of `split`, and one character more: the first one is not predicted."""
        return self._windows(self._symbols[split][: corpus.EVALUATED_CHARACTERS + 1])

    def metrics(self, nats: Tensor, confusion: Tensor) -> dict[str, float]:
        """The named metrics, the counting one first."""
        characters = int(confusion.sum())
        return {
            "bits_per_character": metrics.bits_per_character(nats, characters),
            "perplexity": metrics.perplexity(nats, characters),
            "accuracy": metrics.accuracy(confusion),
        }

    def _windows(self, symbols: Tensor) -> list[Batch]:
        length = (len(symbols) - 1) // corpus.STREAMS
        shifted = (symbols[k : k + corpus.STREAMS * length] for k in (0, 1))
        inputs, targets = (part.view(corpus.STREAMS, length) for part in shifted)
        windows = (torch.split(part, self.window, 1) for part in (inputs, targets))
        return list(zip(*windows, strict=True))


class Highlighter:
    """A tagger of Python source, character by character; every window stands alone."""

    name = "highlighter"
    config = Config(embedding_size=48, hidden_size=128, num_layers=2, bidirectional=True)
    dropout = 0.1
    epochs = 3
    carries_state = False
    batch = 32
    at_least = 200

    def __init__(self) -> None:
        self._sources = {split: highlighting.load(split) for split in SPLITS}
        text, _ = self._sources["train"]
        self.characters = len(text)
        self.vocab = corpus.vocabulary(text, self.at_least)
        self.classes = len(highlighting.LABELS)
        self.extras = {"labels": list(highlighting.LABELS)}
        self._train = self._encoded(*self._sources["train"])

    def batches(self) -> list[Batch]:
        """An epoch: windows of the whole text in random order, cut elsewhere each time."""
        count = self.characters // highlighting.WINDOW - 1
        start = int(torch.randint(highlighting.WINDOW, ()))
        used = slice(start, start + count * highlighting.WINDOW)
        inputs, targets = (part[used].view(count, -1) for part in self._train)
        order = torch.split(torch.randperm(count), self.batch)
        return [(inputs[chosen], targets[chosen]) for chosen in order]

    def held_out(self, split: Split) -> list[Batch]:
        """Windows from all over `split`."""
        windows = highlighting.windows(*self._sources[split], highlighting.EVALUATED_WINDOWS)
        encoded = zip(*(self._encoded(*window) for window in windows), strict=True)
        inputs, targets = (torch.split(torch.stack(part), self.batch) for part in encoded)
        return list(zip(inputs, targets, strict=True))

    def metrics(self, nats: Tensor, confusion: Tensor) -> dict[str, float]:
        """The named metrics, the counting one first."""
        return {
            "accuracy": metrics.accuracy(confusion),
            "macro_f1": metrics.macro_f1(confusion),
        }

    def _encoded(self, text: str, labels: bytes) -> Batch:
        return torch.tensor(corpus.encode(text, self.vocab)), torch.tensor(list(labels))


Sample = Charlm | Highlighter

SAMPLES: dict[str, type[Sample]] = {"charlm": Charlm, "highlighter": Highlighter}


@torch.no_grad()
def evaluate(model: SampleModel, sample: Sample, split: Split) -> tuple[float, dict[str, float]]:
    """The loss in nats per character and the named metrics on the evaluated part of `split`."""
    model.eval()
    nats, confusion, state = torch.tensor(0.0), torch.tensor(0), None
    for inputs, targets in sample.held_out(split):
        logits, state = model(inputs, state if sample.carries_state else None)
        nats = nats + metrics.nats(logits, targets)
        confusion = confusion + metrics.confusion(logits, targets)
    return nats.item() / int(confusion.sum()), sample.metrics(nats, confusion)


def train_epoch(
    model: SampleModel,
    sample: Sample,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    bfloat16: bool,
) -> Iterator[float]:
    """One epoch; yields the loss of each step, in nats per character."""
    model.train()
    state: State | None = None
    for inputs, targets in sample.batches():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits, (hidden, cell) = model(inputs, state)
        state = (hidden.detach(), cell.detach()) if sample.carries_state else None
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        yield loss.item()


def train(model: SampleModel, sample: Sample, epochs: int, bfloat16: bool) -> list[float]:
    """Train `model` and leave the weights of its best epoch in it.

    Returns:
        The loss on the valid split after each epoch, in nats per character.
    """
    steps = epochs * len(sample.batches())
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=WARM_UP
    )
    curve: list[float] = []
    best = model.state_dict()
    with Progress() as progress:
        bar = progress.add_task(sample.name, total=steps)
        for epoch in range(1, epochs + 1):
            for loss in train_epoch(model, sample, optimizer, schedule, bfloat16):
                progress.update(bar, advance=1, description=f"{sample.name} {loss:.3f}")
            valid, named = evaluate(model, sample, "valid")
            if valid < min(curve, default=float("inf")):
                best = copy.deepcopy(model.state_dict())
            curve.append(valid)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in named.items())
            progress.console.print(f"{sample.name} epoch {epoch}: valid {valid:.4f}  {shown}")
    model.load_state_dict(best)
    return curve


def save(model: SampleModel, sample: Sample) -> None:
    """Write the checkpoint: weights, vocabulary and sizes in plain containers."""
    content = {
        "model_state_dict": model.state_dict(),
        "vocab": sample.vocab,
        "config": asdict(sample.config),
        **sample.extras,
    }
    torch.save(content, HERE / f"{sample.name}.pt")


def make(name: str, epochs: int | None, bfloat16: bool) -> dict[str, object]:
    """Train and save the sample `name`; returns what was measured and how it was made."""
    sample = SAMPLES[name]()
    torch.manual_seed(SEED)
    model = SampleModel(sample.config, len(sample.vocab), sample.classes, sample.dropout)
    started = time.monotonic()
    curve = train(model, sample, sample.epochs if epochs is None else epochs, bfloat16)
    seconds = time.monotonic() - started
    save(model, sample)
    _, named = evaluate(model, sample, "test")
    return {
        "metrics": {metric: round(value, 6) for metric, value in named.items()},
        "evaluated_characters": sum(targets.numel() for _, targets in sample.held_out("test")),
        "trained_characters": sample.characters,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": len(curve),
        "valid_nats_per_character": [round(loss, 4) for loss in curve],
        "seconds": round(seconds),
        "precision": "bfloat16" if bfloat16 else "float32",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Make what the command line asks for; the baselines of the other sample stay as they are."""
    parser = argparse.ArgumentParser(description="Train the sample models again.")
    parser.add_argument("sample", choices=[*SAMPLES, "all"])
    parser.add_argument("--epochs", type=int, help="instead of the sample's own number")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bfloat16", action="store_true", help="half the time on newer processors")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in SAMPLES if options.sample == "all" else [options.sample]:
        baseline = make(name, options.epochs, options.bfloat16)
        # Read after the training: the other sample may have been trained beside this one.
        baselines = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
        baselines[name] = baseline
        BASELINES.write_text(json.dumps(baselines, indent=2) + "\n")


if __name__ == "__main__":
    main()
