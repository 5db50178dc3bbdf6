"""Runs training on one device in plain torch, or in the processes that accelerate launched.

    accelerate launch -m ttcompress finetune small.safetensors ...          (accelerators)
    torchrun --nproc_per_node 2 -m ttcompress finetune small.safetensors ...   (CPUs)

Every process holds the whole model and trains on its part of an epoch; gradients are averaged.
The first process measures, saves and prints.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ttcompress.errors import MissingExtraError, RecipeError
from ttcompress.system.launch import count_processes
from ttcompress.tasks.protocol import Batch

PRECISIONS = ("no", "bf16", "fp16")
"""accelerate's names for the number type of matrix products; all else is float32."""

Found = TypeVar("Found")


class Machine(Protocol):
    """A device, and how the processes on it work together.

    Attributes:
        device: where the model and its batches go.
        processes: how many train together.
        rank: the number of this process; the first is 0.
    """

    device: torch.device
    processes: int
    rank: int

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer, ready for this machine's precision."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        ...

    def backward(self, loss: Tensor, trained: Sequence[nn.Parameter], clip: float) -> None:
        """Give `trained` gradients: averaged over the processes, then clipped to a norm."""
        ...

    def from_first(self, make: Callable[[], Found]) -> Found:
        """What the first process makes, sent to all, so that they decide alike."""
        ...


class OneDevice:
    """One device in plain torch."""

    processes, rank = 1, 0

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return it unchanged."""
        return optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """Everything in float32."""
        return torch.autocast(self.device.type, enabled=False)

    def backward(self, loss: Tensor, trained: Sequence[nn.Parameter], clip: float) -> None:
        """Gradients of one process."""
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, clip)

    def from_first(self, make: Callable[[], Found]) -> Found:
        """Make it: there is only one process."""
        return make()


class Accelerated:
    """The device and processes that accelerate finds, with its mixed precision.

    The model is not wrapped: a task may reach into it. The gradients are averaged as one vector.
    """

    def __init__(self, device: str | None, precision: str) -> None:
        from accelerate import Accelerator  # an extra
        from accelerate.state import AcceleratorState  # an extra

        # One process may train more than once, and accelerate keeps the first precision for good.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
        self.device: torch.device = self._accelerator.device
        self.processes: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        if self.processes > 1:
            # Gloo's threads must end before the interpreter does, or it aborts now and then.
            atexit.register(_leave)

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Add the gradient scaler of fp16."""
        prepared: torch.optim.Optimizer = self._accelerator.prepare_optimizer(optimizer)
        return prepared

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in the chosen precision."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def backward(self, loss: Tensor, trained: Sequence[nn.Parameter], clip: float) -> None:
        """Gradients averaged over all processes."""
        self._accelerator.backward(loss)
        if self.processes > 1:
            missing = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
            flat = torch.cat([gradient.reshape(-1) for gradient in missing])
            mean = self._accelerator.reduce(flat, "mean").split([p.numel() for p in trained])
            for parameter, part in zip(trained, mean, strict=True):
                parameter.grad = part.view_as(parameter).clone()
        self._accelerator.clip_grad_norm_(trained, clip)

    def from_first(self, make: Callable[[], Found]) -> Found:
        """Make it in the first process and send it to the others."""
        from accelerate.utils import broadcast_object_list  # an extra

        made = [make() if self.rank == 0 else None]
        (found,) = broadcast_object_list(made)
        sent: Found = found
        return sent


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def make_machine(device: str | None = None, precision: str = "no") -> Machine:
    """Make the machine for these options and for how this process was launched.

    Args:
        device: such as "cuda:0"; by default accelerate's choice, or the CPU without accelerate.
        precision: one of `PRECISIONS`.

    Raises:
        RecipeError: the precision or the device is unknown, or the device is not there.
        MissingExtraError: several processes or mixed precision, but accelerate is not installed.
    """
    if precision not in PRECISIONS:
        raise RecipeError(
            f"mixed precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}."
        )
    together = count_processes() > 1 or precision != "no"
    if not together and device is not None:
        return OneDevice(_check_device(device))
    try:
        return Accelerated(device, precision)
    except ImportError as error:
        if together:
            raise MissingExtraError(
                "accelerate is not installed, but several processes and mixed precision need it. "
                "Install it: pip install 'ttcompress[train]'"
            ) from error
        return OneDevice()


def steps_per_process(batches: int, machine: Machine) -> int:
    """Steps in an epoch of that many batches: the same number on every process."""
    return -(-batches // machine.processes)


def share(batches: Iterator[Batch], count: int, machine: Machine) -> Iterator[Batch]:
    """This process's part of an epoch: neighbours stay together, for a state that is carried on.

    Every batch goes to a process; if they do not divide evenly, a few go to two.
    """
    start = machine.rank * count // machine.processes
    return islice(batches, start, start + steps_per_process(count, machine))


def _check_device(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"device {device!r}: torch cannot use it here ({str(error).splitlines()[0]}). "
            "Omit --device, or name one that torch.accelerator finds."
        ) from error
    return device
