"""Trains the sample models again and measures their baselines, on data that Python brings along.

    python sample_models/make.py NAME|all [--epochs N] [--threads N] [--bfloat16]

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

from ttcompress.samples import corpus, highlighting, oscillators
from ttcompress.samples.corpus import SPLITS, Split
from ttcompress.tasks import metrics

HERE = Path(__file__).parent
BASELINES = HERE / "baselines.json"

SEED = 0
PEAK_LEARNING_RATE = 4.0e-3
WARM_UP = 0.05  # of all steps; the rest decays as a cosine to almost nothing
LARGEST_GRADIENT = 1.0

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, (batch, time) each; of values (batch, time, features). Where there are fewer
targets than steps, they are those of the last ones.
"""

State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Config:
    """The sizes of a sample model, kept in its file; without an embedding it takes values."""

    embedding_size: int | None
    hidden_size: int
    num_layers: int
    bidirectional: bool


class SampleModel(nn.Module):
    """Embedding -> LSTM -> linear, or without the embedding: the model of all samples."""

    def __init__(self, config: Config, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.embedding: nn.Module = nn.Identity()
        if config.embedding_size is not None:
            self.embedding = nn.Embedding(inputs, config.embedding_size)
        self.lstm = nn.LSTM(
            config.embedding_size or inputs,
            config.hidden_size,
            config.num_layers,
            dropout=dropout,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.hidden_size * (1 + config.bidirectional), outputs)

    def forward(self, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(batch, time) symbols -> (batch, time, outputs), and the state at the end."""
        outputs, state = self.lstm(self.embedding(inputs), state)
        return self.head(self.dropout(outputs)), state


class TextSample:
    """What the samples that read text have in common: classes, and their cross entropy."""

    loss_name = "nats_per_character"
    unit = "characters"

    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross entropy."""
        return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    @staticmethod
    def tally(outputs: Tensor, batch: Batch) -> list[Tensor]:
        """What adds up from batch to batch: the loss, how many there are, and the confusion."""
        confusion = metrics.confusion(outputs, batch[1])
        return [metrics.nats(outputs, batch[1]), confusion.sum(), confusion]


class Charlm(TextSample):
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
        self.trained = len(texts["train"])
        self.vocab = corpus.vocabulary(texts["train"], self.at_least)
        self.inputs = self.outputs = len(self.vocab)
        self.extras = {"vocab": self.vocab}
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

    def metrics(self, nats: Tensor, characters: int, confusion: Tensor) -> dict[str, float]:
        """The named metrics, the counting one first."""
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


class Highlighter(TextSample):
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
        self.trained = len(text)
        self.vocab = corpus.vocabulary(text, self.at_least)
        self.inputs, self.outputs = len(self.vocab), len(highlighting.LABELS)
        self.extras = {"vocab": self.vocab, "labels": list(highlighting.LABELS)}
        self._train = self._encoded(*self._sources["train"])

    def batches(self) -> list[Batch]:
        """An epoch: windows of the whole text in random order, cut elsewhere each time."""
        count = len(self._train[0]) // highlighting.WINDOW - 1
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

    def metrics(self, nats: Tensor, characters: int, confusion: Tensor) -> dict[str, float]:
        """The named metrics, the counting one first."""
        return {
            "accuracy": metrics.accuracy(confusion),
            "macro_f1": metrics.macro_f1(confusion),
        }

    def _encoded(self, text: str, labels: bytes) -> Batch:
        return torch.tensor(corpus.encode(text, self.vocab)), torch.tensor(list(labels))


class Forecaster:
    """Forecasts four coupled oscillators; it is trained to do so at each of the later steps."""

    name = "forecaster"
    config = Config(embedding_size=None, hidden_size=128, num_layers=2, bidirectional=False)
    dropout = 0.0
    epochs = 8
    carries_state = False
    loss_name = "mse"
    unit = "windows"
    batch = 64
    trained_steps = 48  # of a window: before these, too little was seen

    def __init__(self) -> None:
        raw = {s: torch.tensor(oscillators.load(s), dtype=torch.float64) for s in SPLITS}
        self._mean, self._deviation = raw["train"].mean(0), raw["train"].std(0, correction=0)
        self._series = {s: ((x - self._mean) / self._deviation).float() for s, x in raw.items()}
        self.trained = len(raw["train"]) - oscillators.WINDOW - oscillators.HORIZON + 1
        self.inputs = len(oscillators.NAMES)
        self.outputs = oscillators.HORIZON * self.inputs
        self.extras: dict[str, object] = {}

    def batches(self) -> list[Batch]:
        """An epoch: a window from each row on, in random order."""
        return self._windows("train", self.trained_steps, shuffled=True)

    def held_out(self, split: Split) -> list[Batch]:
        """A window from each row on, with a forecast after its last step."""
        return self._windows(split, 1)

    loss = staticmethod(nn.functional.mse_loss)

    def tally(self, outputs: Tensor, batch: Batch) -> list[Tensor]:
        """What adds up from batch to batch: errors, how many there are, errors of the naive one."""
        inputs, targets = batch[0], batch[1].squeeze(1)  # the last step is left
        forecast, naive = outputs.squeeze(1), inputs[:, -1].repeat(1, oscillators.HORIZON)
        raw = (self._in_units_of_the_data(one) for one in (forecast, targets))
        return [
            metrics.squared_error(forecast, targets),
            torch.tensor(len(targets)),
            metrics.absolute_error(forecast, targets),
            metrics.symmetric_error(*raw),
            metrics.squared_error(naive, targets),
        ]

    def metrics(self, squared: Tensor, windows: int, *errors: Tensor) -> dict[str, float]:
        """The named metrics, the counting one first."""
        absolute, symmetric, naive = errors
        return {
            "mse": squared.item() / windows,
            "mae": absolute.item() / windows,
            "smape": symmetric.item() / windows,
            "mse_to_naive": (squared / naive).item(),
        }

    def _windows(self, split: Split, steps: int, shuffled: bool = False) -> list[Batch]:
        """Windows of a split, and what follows each of their last `steps` rows."""
        series, size = self._series[split], oscillators.WINDOW
        pieces = series.unfold(0, size + oscillators.HORIZON, 1)  # (windows, features, rows)
        order = torch.randperm(len(pieces)) if shuffled else torch.arange(len(pieces))
        batches = []
        for chosen in torch.split(order, self.batch):
            following = pieces[chosen].unfold(2, oscillators.HORIZON, 1)[:, :, -steps:]
            targets = following.permute(0, 2, 3, 1).flatten(2)  # (batch, steps, outputs)
            batches.append((pieces[chosen, :, :size].transpose(1, 2), targets))
        return batches

    def _in_units_of_the_data(self, values: Tensor) -> Tensor:
        mean, deviation = (x.repeat(oscillators.HORIZON) for x in (self._mean, self._deviation))
        return values * deviation + mean


Sample = Charlm | Highlighter | Forecaster

SAMPLES: dict[str, type[Sample]] = {
    "charlm": Charlm,
    "highlighter": Highlighter,
    "forecaster": Forecaster,
}


@torch.no_grad()
def evaluate(model: SampleModel, sample: Sample, split: Split) -> tuple[float, dict[str, float]]:
    """The mean loss and the named metrics on the evaluated part of `split`."""
    model.eval()
    tallies, state = [], None
    for batch in sample.held_out(split):
        outputs, state = model(batch[0], state if sample.carries_state else None)
        tallies.append(sample.tally(outputs[:, -batch[1].shape[1] :], batch))
    loss, count, *others = (sum(parts, torch.tensor(0)) for parts in zip(*tallies, strict=True))
    return loss.item() / int(count), sample.metrics(loss, int(count), *others)


def train_epoch(
    model: SampleModel,
    sample: Sample,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    bfloat16: bool,
) -> Iterator[float]:
    """One epoch; yields the loss of each step."""
    model.train()
    state: State | None = None
    for inputs, targets in sample.batches():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs, (hidden, cell) = model(inputs, state)
        state = (hidden.detach(), cell.detach()) if sample.carries_state else None
        loss = sample.loss(outputs[:, -targets.shape[1] :].float(), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        yield loss.item()


def train(model: SampleModel, sample: Sample, epochs: int, bfloat16: bool) -> list[float]:
    """Train `model` and leave the weights of its best epoch in it.

    Returns:
        The loss on the valid split after each epoch.
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
    """Write the checkpoint: weights, sizes and what the sample has besides, in plain containers."""
    content = {
        "model_state_dict": model.state_dict(),
        "config": asdict(sample.config),
        **sample.extras,
    }
    torch.save(content, HERE / f"{sample.name}.pt")


def make(name: str, epochs: int | None, bfloat16: bool) -> dict[str, object]:
    """Train and save the sample `name`; returns what was measured and how it was made."""
    sample = SAMPLES[name]()
    torch.manual_seed(SEED)
    model = SampleModel(sample.config, sample.inputs, sample.outputs, sample.dropout)
    started = time.monotonic()
    curve = train(model, sample, sample.epochs if epochs is None else epochs, bfloat16)
    seconds = time.monotonic() - started
    save(model, sample)
    _, named = evaluate(model, sample, "test")
    return {
        "metrics": {metric: round(value, 6) for metric, value in named.items()},
        f"evaluated_{sample.unit}": sum(len(y.flatten(0, 1)) for _, y in sample.held_out("test")),
        f"trained_{sample.unit}": sample.trained,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": len(curve),
        f"valid_{sample.loss_name}": [round(loss, 4) for loss in curve],
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
