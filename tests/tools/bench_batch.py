"""What a batch costs: both samples under four recipes, and many checkpoints with flat memory.

python tests/tools/bench_batch.py samples      # -j 1, -j 2, and again from the cache
python tests/tools/bench_batch.py memory 200   # memory of parent and workers over time
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "recipes" / "batch" / "samples.yaml").read_text(encoding="utf-8")
MANIFEST = """
version: 1
output: out
matrix: {models: [models/*.pt], recipes: [balanced]}
"""


def batch(folder: Path, *arguments: str, watch: Callable[[int], None] = lambda pid: None) -> float:
    """Seconds of one `ttcompress batch` as a process; `watch` is called while it runs."""
    command = [sys.executable, "-m", "ttcompress", "batch", "manifest.yaml", "-q", *arguments]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            watch(process.pid)
            time.sleep(0.02)
        assert process.stdout is not None
        shown = process.stdout.read()
    assert process.returncode == 0, shown
    print(shown.strip().splitlines()[-1], flush=True)
    return time.perf_counter() - started


def start_up() -> float:
    """Seconds until the command line has started, and does nothing."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ttcompress", "--version"], check=True, stdout=-3)
    return time.perf_counter() - started


def samples() -> None:
    text = EXAMPLE.replace("../../sample_models", str(ROOT / "sample_models"))
    text = text.replace("../../compressed", "out")
    print(f"start-up: {min(start_up() for _ in range(3)):.2f} s")
    for jobs in ("1", "2"):
        with TemporaryDirectory() as name:
            (Path(name) / "manifest.yaml").write_text(text, encoding="utf-8")
            print(f"-j {jobs}: {batch(Path(name), '-j', jobs):.1f} s")
            print(f"again: {min(batch(Path(name)) for _ in range(3)):.2f} s")


def memory(count: int) -> None:
    """Checkpoints of 4 MB; a line for each tenth of them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        for seed in range(count):
            torch.manual_seed(seed)
            torch.save(nn.LSTM(256, 256, 2).state_dict(), folder / "models" / f"{seed:03}.pt")
        (folder / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
        print("done  parent MB  workers MB", flush=True)
        told = -1

        def watch(pid: int) -> None:
            nonlocal told
            done = len(list((folder / "out").glob("*.safetensors")))
            if done // (count // 10) > told:
                told = done // (count // 10)
                sizes = _sizes(pid)
                workers = " ".join(f"{size:.0f}" for size in sizes[1:])
                print(f"{done:4}  {sizes[0]:9.0f}  {workers}", flush=True)

        print(f"{batch(folder, '-j', '2', watch=watch):.1f} s")


def _sizes(pid: int) -> list[float]:
    """Resident megabytes of a process, then of those of its children that have loaded torch."""
    try:
        parent = psutil.Process(pid)
        sizes = [process.memory_info().rss / 1e6 for process in (parent, *parent.children())]
    except psutil.NoSuchProcess:
        return [0.0]
    return [sizes[0], *(size for size in sizes[1:] if size > 50)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory(int(sys.argv[2]))
    else:
        samples()
