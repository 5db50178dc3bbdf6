"""Commands are killed at random moments; the output must be the old file or the new one, whole.

    python tests/tools/kill.py [--kills 200] [--seed 0] [--only COMMAND ...]

Each command first runs to its end, which shows how long it takes and what it writes. Then it is
started over the old output again and again, and killed (SIGKILL, its workers too); after that it
runs once more, and nothing but its outputs may be left. Prints a table; exits 1 if a kill left
anything else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import ttcompress

TEXT = "the small boat sails over the quiet lake and the wind sings to the trees. " * 60
TASK = "task: {name: language-model, text: text.txt, batch: 8, steps: 20}\n"
RECIPES = {
    "old.yaml": "version: 1\nbudget: {factor: 2}\nstore: int8\n",
    "new.yaml": "version: 1\nbudget: {factor: 4}\nstore: int4\n" + TASK,
    "other.yaml": "version: 1\nbudget: {factor: 3}\nstore: int6\n",
    "tuned.yaml": "version: 1\nbudget: {factor: 4}\n" + TASK + "finetune: {epochs: 3}\n",
    "manifest.yaml": "version: 1\nmatrix: {models: [model.pt], recipes: [new.yaml, other.yaml]}\n"
    "output: {folder: out}\n",
}


@dataclass(frozen=True)
class Command:
    """A command line, and the outputs that it may replace, below the folder it runs in."""

    line: str
    outputs: tuple[str, ...]


COMMANDS = {
    "decompose": Command("decompose model.pt -r new.yaml -o out/small --overwrite", ("out/small",)),
    "finetune": Command(
        "finetune small -r tuned.yaml --original model.pt -o out/tuned --overwrite", ("out/tuned",)
    ),
    "export": Command("export small -o out/layer.onnx --overwrite", ("out/layer.onnx",)),
    "batch": Command(
        "batch manifest.yaml -j 2 --force",
        ("out/model.new.safetensors", "out/model.other.safetensors"),
    ),
}


class CharacterModel(nn.Module):
    """As a user would write it."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 8)
        self.lstm = nn.LSTM(8, 24)
        self.head = nn.Linear(24, symbols)


def prepare(folder: Path) -> None:
    """A model, its text, recipes, and an artifact to go on from."""
    (folder / "text.txt").write_text(TEXT)
    vocabulary = {character: index for index, character in enumerate(sorted(set(TEXT)))}
    torch.manual_seed(0)
    content = {"model": CharacterModel(len(vocabulary)).state_dict(), "vocab": vocabulary}
    torch.save(content, folder / "model.pt")
    for name, text in RECIPES.items():
        (folder / name).write_text(text)
    ttcompress.compress(folder / "model.pt", folder / "old.yaml").save(folder / "small")
    (folder / "out").mkdir()


def start(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    """In a process group of its own, so that its workers can be killed with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "ttcompress", *command.line.split(), "-q"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(command: Command, folder: Path) -> float:
    """To its end; the seconds it took."""
    began = time.monotonic()
    process = start(command, folder)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command.line}: exit {process.returncode}: {said.decode()}")
    return time.monotonic() - began


def hashes(command: Command, folder: Path) -> tuple[str, ...]:
    """Of the outputs."""
    return tuple(hashlib.sha256((folder / o).read_bytes()).hexdigest() for o in command.outputs)


def remains(command: Command, folder: Path) -> list[str]:
    """Files that are not outputs; what a batch knows of its jobs has its own folder."""
    found = (path.relative_to(folder) for path in (folder / "out").rglob("*") if path.is_file())
    kept = ("out/.ttcompress-batch/", *command.outputs)
    partial = [path for path in found if path.suffix == ".part" or not str(path).startswith(kept)]
    return [str(path) for path in partial]


def kill(name: str, kills: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """What was there after each kill, and what should not have been."""
    command, chance = COMMANDS[name], random.Random(f"{name} {seed}")
    seconds = run(command, folder)
    new = hashes(command, folder)
    old = (hashlib.sha256((folder / "small").read_bytes()).hexdigest(),) * len(new)
    assert not set(old) & set(new), "what was there before must be told from what comes"
    outcomes, defects = Counter[str](), list[str]()
    for k in range(kills):
        for output in command.outputs:
            shutil.copy(folder / "small", folder / output)
        process = start(command, folder)
        try:
            process.wait(chance.uniform(0.2, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        there = hashes(command, folder)
        kinds = [
            {was: "old", comes: "new"}.get(found, "other")
            for was, comes, found in zip(old, new, there, strict=True)
        ]
        outcomes[" and ".join(kinds)] += 1
        if "other" in kinds:
            defects.append(f"{name}, seed {seed}, kill {k}: {kinds}")
    run(command, folder)
    if hashes(command, folder) != new:
        defects.append(f"{name}, seed {seed}: after the kills another output is written")
    return outcomes, [*defects, *(f"{name}: left {left}" for left in remains(command, folder))]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(COMMANDS), choices=COMMANDS)
    asked = parser.parse_args()
    defects: list[str] = []
    for name in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            kills = -(-asked.kills // len(asked.only))
            outcomes, found = kill(name, kills, asked.seed, Path(folder))
        counts = ", ".join(f"{kind} {count}" for kind, count in outcomes.most_common())
        print(f"{name:10} {kills:4} kills: {counts}", flush=True)
        defects += found
    print("\n".join(defects), file=sys.stderr)
    print(f"{len(defects)} defects")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
