"""Several processes, other devices and precisions; what happens without accelerate."""

import json
import os
import subprocess
import sys

import pytest

from ttcompress.artifact import load
from ttcompress.errors import MissingExtraError, RecipeError
from ttcompress.recipe import Finetune
from ttcompress.tasks.evaluation import load_model, measure_metrics
from ttcompress.training.loop import Training
from ttcompress.training.machine import OneDevice, make_machine, share, steps_per_process

SHORT = Finetune(epochs=2, learning_rate=1e-2, distill=0.5)


class Member(OneDevice):
    def __init__(self, rank, processes):
        super().__init__()
        self.rank, self.processes = rank, processes


@pytest.mark.parametrize("count", [1, 2, 7, 12])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_every_batch_has_a_process_and_all_take_as_many_steps(count, processes):
    members = [Member(rank, processes) for rank in range(processes)]
    shares = [list(share(iter(range(count)), count, member)) for member in members]
    assert {len(part) for part in shares} == {steps_per_process(count, members[0])}
    assert set().union(*shares) == set(range(count))
    assert all(part == list(range(part[0], part[0] + len(part))) for part in shares)


def tuned_on(machine, case):
    teacher = load_model(case.task, case.checkpoint)
    return Training(case.compressed, case.task, SHORT, teacher=teacher, machine=machine).run()


def test_accelerate_and_plain_torch_agree(case):
    pytest.importorskip("accelerate")
    plain, accelerated = (tuned_on(m, case) for m in (OneDevice(), make_machine()))
    assert accelerated.after == pytest.approx(plain.after, rel=0.005)


def test_a_mixed_precision_trains_as_well(case):
    pytest.importorskip("accelerate")
    plain, mixed = (tuned_on(m, case) for m in (OneDevice(), make_machine("cpu", "bf16")))
    counting = case.task.metrics[0].name
    dense = measure_metrics(case.task, case.checkpoint)[counting]
    assert mixed.after[counting] - dense < 0.5 * (mixed.before[counting] - dense)
    assert mixed.after != plain.after  # else the products were never in bfloat16


def test_without_accelerate_one_device_remains(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert isinstance(make_machine(), OneDevice)
    with pytest.raises(MissingExtraError, match=r"ttcompress\[train\]"):
        make_machine(precision="bf16")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MissingExtraError, match=r"ttcompress\[train\]"):
        make_machine("cpu")


def test_an_unknown_device_or_precision_is_refused():
    with pytest.raises(RecipeError, match="'nowhere'"):
        make_machine("nowhere")
    with pytest.raises(RecipeError, match="expected one of no, bf16, fp16, got"):
        make_machine("cpu", "int3")


TOGETHER = """
import torch
from ttcompress.training.machine import make_machine
machine = make_machine("cpu")
weight, unused = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))
machine.backward((weight * (machine.rank + 1)).sum(), [weight, unused], clip=1e9)
assert machine.processes == 2
assert weight.grad.tolist() == [1.5] * 3, weight.grad
assert machine.from_first(lambda: machine.rank) == 0
"""


def launch(folder, *arguments):
    """Two processes; `accelerate launch` is for accelerators and, on CPUs, for mpirun."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    command = [sys.executable, *launcher, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_gradients_are_averaged_over_processes(tmp_path):
    pytest.importorskip("accelerate")
    (tmp_path / "together.py").write_text(TOGETHER)
    launch(tmp_path, "together.py")


@pytest.mark.slow
def test_two_processes_train_one_model(case, tmp_path):
    pytest.importorskip("accelerate")
    case.compressed.save(tmp_path / "small.safetensors")
    text = case.path.parent / "text.txt"
    (tmp_path / "tuned.yaml").write_text(
        "version: 1\nbudget: {factor: 16}\n"
        f"task: {{name: language-model, text: {text}, batch: 8, steps: 20}}\n"
        "finetune: {epochs: 4, learning_rate: 1.0e-2}\n"
    )
    named = ("finetune", "small.safetensors", "-r", "tuned.yaml", "--original", case.path)
    given = ("-o", "tuned.safetensors", "--device", "cpu", "--json")
    done = launch(tmp_path, "-m", "ttcompress", *named, *given)
    report = json.loads(done.stdout)  # one document: the other process is silent
    steps = 4 * case.task.batches_per_epoch
    assert report["finetune"]["steps"] == pytest.approx(steps / 2, abs=4)
    found = measure_metrics(case.task, load(tmp_path / "tuned.safetensors"))
    counting = case.task.metrics[0].name
    assert found[counting] == pytest.approx(report["metrics"][counting]["after"])
    start = measure_metrics(case.task, case.compressed)[counting]
    dense = measure_metrics(case.task, case.checkpoint)[counting]
    assert found[counting] - dense < 0.5 * (start - dense)
    assert not list(tmp_path.glob("*.resume*"))
