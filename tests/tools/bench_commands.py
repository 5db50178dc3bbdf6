"""Time and memory of every command on both samples: a table in markdown.

    python tests/tools/bench_commands.py [REPEATS]

Each command is a process of its own and runs three times, or as often as asked; the row has the
medians of the times and the most memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from statistics import median
from tempfile import TemporaryDirectory

from measure import Measured, ttcompress

ROOT = Path(__file__).parents[2]
SAMPLES = ("charlm", "highlighter")
REPEATS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
COMMANDS = (
    "inspect {name}.pt",
    "plan {name}.pt",
    "decompose {name}.pt -o small.safetensors --overwrite",
    "decompose {name}.pt -r fast -o fast.safetensors --overwrite",
    "decompose {name}.pt --format mpo -o mpo.safetensors --overwrite",
    "decompose {name}.pt --task {name} --calibrate 24 -o fitted.safetensors --overwrite",
    "evaluate small.safetensors --task {name}",
    "finetune small.safetensors -r hundred.yaml --original {name}.pt -o tuned.safetensors "
    "--overwrite",
    "compare {name}.pt --task {name}",
    "sweep {name}.pt --task {name} --force",
    "report fitted.safetensors",
    "report fitted.safetensors --as html -o report.html --overwrite",
    "verify small.safetensors --against {name}.pt",
    "restore small.safetensors -o dense.pt --overwrite",
    "export fast.safetensors -o model.onnx --overwrite",
    "export fast.safetensors --quantize int8 -o model8.onnx --overwrite",
    "bench fast.safetensors",
    "batch manifest.yaml --force",
    "recipes list",
    "recipes check small {name}.pt",
)
MANIFEST = "{{version: 1, matrix: {{models: [{name}.pt], recipes: [balanced, small]}}}}"
HUNDRED = "{{version: 1, budget: {{factor: 8}}, task: {name}, finetune: {{max_steps: 100}}}}"


def rows(name: str, folder: Path) -> Iterator[tuple[str, Measured]]:
    for line in COMMANDS:
        arguments = line.format(name=name).split()
        runs = [ttcompress(*arguments, "-q", folder=folder) for _ in range(REPEATS)]
        yield (
            line.format(name=name).replace(" --overwrite", "").replace(" --force", ""),
            Measured(
                median(run.seconds for run in runs),
                median(run.processor for run in runs),
                max(run.peak for run in runs),
            ),
        )


def main() -> None:
    print("| command | seconds | processor s | memory MB |")
    print("|---|--:|--:|--:|")
    for name in SAMPLES:
        with TemporaryDirectory() as path:
            folder = Path(path)
            copytree(ROOT / "sample_models", folder, dirs_exist_ok=True)
            (folder / "manifest.yaml").write_text(MANIFEST.format(name=name), encoding="utf-8")
            (folder / "hundred.yaml").write_text(HUNDRED.format(name=name), encoding="utf-8")
            for line, found in rows(name, folder):
                print(
                    f"| `{line}` | {found.seconds:.1f} | {found.processor:.1f} "
                    f"| {found.peak / 1e6:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
