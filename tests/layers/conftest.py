"""Dense layers whose matrices are trains exactly: the truth is built first, then held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ttcompress.planning.formats import FORMATS
from ttcompress.trains.formats import train_of
from ttcompress.trains.train import Train

FLOAT64 = torch.float64


@pytest.fixture(scope="session")
def random_train() -> Callable[..., Train]:
    return _random_train


@pytest.fixture(scope="session")
def with_trains() -> Callable[..., dict[str, Train]]:
    return _with_trains


@pytest.fixture(scope="session")
def largest_result() -> Callable[[Callable[[], object]], int]:
    return _largest_result


@pytest.fixture(scope="session")
def core_gradients() -> Callable[..., dict[str, Tensor]]:
    return _core_gradients


def _random_train(
    format: str, rows: int, columns: int, rank: int, dtype: torch.dtype = FLOAT64
) -> Train:
    """A train with up to two modes on each side, scaled so that its matrix has entries near 0.3."""
    layout = FORMATS[format](_two_modes(rows), _two_modes(columns))
    ranks = layout.attainable((rank,) * (layout.cores - 1))
    cores = [torch.randn(shape, dtype=dtype) for shape in layout.core_shapes(ranks)]
    scale = 0.3 * (rows * columns) ** 0.5 / train_of(layout, tuple(cores)).to_dense().norm()
    return train_of(layout, (cores[0] * scale, *cores[1:]))


def _two_modes(size: int) -> tuple[int, ...]:
    first = max(mode for mode in range(1, isqrt(size) + 1) if size % mode == 0)
    return (first, size // first)


def _with_trains(
    module: nn.Module, format: str = "mps", rank: int = 3, keep: tuple[str, ...] = ()
) -> dict[str, Train]:
    """Give every matrix of the module but `keep` the values of a random train; return these."""
    trains = {}
    for name, parameter in module.named_parameters():
        if parameter.dim() == 2 and not name.startswith(keep):
            rows, columns = parameter.shape
            trains[name] = _random_train(format, rows, columns, rank, parameter.dtype)
            with torch.no_grad():
                parameter.copy_(trains[name].to_dense())
    return trains


def _core_gradients(trains: Mapping[str, Train], dense: nn.Module) -> dict[str, Tensor]:
    """What the dense layer's gradients are in the cores, by the chain rule."""
    gradients = {}
    for name, train in trains.items():
        cores = tuple(core.clone().requires_grad_() for core in train.cores)
        matrix = train_of(train.layout, cores).to_dense()
        upstream = dense.get_parameter(name).grad
        for k, gradient in enumerate(torch.autograd.grad(matrix, cores, upstream)):
            gradients[f"{name}.cores.{k}"] = gradient
    return gradients


class _Results(TorchDispatchMode):
    """Records the size of every tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.sizes += [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return result


def _largest_result(call: Callable[[], object]) -> int:
    """Values in the largest tensor that the call makes."""
    with _Results() as results:
        call()
    return max(results.sizes)
