"""In: a text file. Out: a 2 x 512 character LSTM of its first 90 %, as a user would have saved it.

    python tests/tools/train_text_model.py input.txt text512.pt [--epochs N] [--bfloat16]

The larger model that compression is measured on beside the samples; it is trained as they are, and
measured by `ttcompress evaluate text512.pt -r text.yaml`, a recipe in which stands
`task: {name: language-model, text: input.txt}`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "sample_models"))
import make

CONFIG = make.Config(embedding_size=64, hidden_size=512, num_layers=2, bidirectional=False)
EPOCHS = 12
DROPOUT = 0.25
TRAINED = 0.9


class TextSample(make.Charlm):
    """The text of a file in place of Python's documentation."""

    name = "text"
    config = CONFIG
    dropout = DROPOUT

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        cut = int(TRAINED * len(text))
        self.vocab = {character: index for index, character in enumerate(sorted(set(text)))}
        self.classes, self.extras = len(self.vocab), {}
        symbols = torch.tensor([self.vocab[character] for character in text])
        self._symbols = {"train": symbols[:cut], "valid": symbols[cut:], "test": symbols[cut:]}


def main() -> None:
    """Train, say how each epoch went, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    sample = TextSample(options.text)
    torch.manual_seed(make.SEED)
    model = make.SampleModel(sample.config, len(sample.vocab), sample.classes, sample.dropout)
    make.train(model, sample, options.epochs, options.bfloat16)
    content = {
        "model_state_dict": model.state_dict(),
        "vocab": sample.vocab,
        "config": asdict(sample.config),
    }
    torch.save(content, options.output)


if __name__ == "__main__":
    main()
