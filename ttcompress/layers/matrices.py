"""Holds the matrices that layers multiply by: decomposed (`TrainWeight`) or dense (`DenseMatrix`).

A decomposed matrix is a submodule with the name of the dense parameter, so that state dict keys are
`weight_ih_l0.cores.0`, ...; a dense one stays a parameter of its layer. `put_matrix` stores either
kind, and `matrix_of` returns it with the interface that both share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttcompress.layers.products import ChainProduct, DenseProduct, FactorProduct, Product
from ttcompress.layers.speed import CALLS_OF_A_CORE, MatrixWork
from ttcompress.planning.formats import Layout
from ttcompress.trains.formats import train_of
from ttcompress.trains.train import Train

Place = tuple[nn.Module, str]
"""A parameter, as its owner and its name there."""

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class _Cached(Generic[Value]):
    """A value computed from cores, with a record of the cores it was computed from.

    `aliases` keep the cores' memory alive, so that an equal address means the same memory.
    """

    value: Value
    aliases: tuple[Tensor, ...]
    seen: list[tuple[int, int]]

    def is_current(self, cores: tuple[Tensor, ...]) -> bool:
        return self.seen == _versions(cores)


class TrainWeight(nn.Module):
    """The cores of one matrix as parameters, and the products and the matrix computed from them.

    Where the train has rows or columns that are always zero, so has the matrix.
    In evaluation without gradients the results are cached until a core changes. `shape`, `dtype`,
    `device`, `size` and `new_zeros` behave as the dense parameter's.
    """

    zero_rows: Tensor | None
    zero_columns: Tensor | None

    def __init__(self, train: Train) -> None:
        super().__init__()
        self.layout = train.layout
        self.ranks = train.ranks
        self.work = _work(train.layout, train.ranks)
        self.cores = nn.ParameterList(nn.Parameter(copy_values(core)) for core in train.cores)
        # Not in the state dict: they say what the weight was, and no training changes them.
        self.register_buffer("zero_rows", train.zero_rows, persistent=False)
        self.register_buffer("zero_columns", train.zero_columns, persistent=False)
        self.views = nn.ModuleList()
        self._product: _Cached[Product] | None = None
        self._dense: _Cached[Tensor] | None = None

    def set_views(self, views: Sequence[nn.Module]) -> None:
        """Compute from now on with each core as its view shows it, one view for each core.

        Training uses it to compute with the rounded values that a store will keep, while the
        optimizer updates the cores themselves.
        """
        self.views = nn.ModuleList(views)
        self._product = self._dense = None

    def as_train(self) -> Train:
        """The train of the current cores, attached to their graph."""
        cores = self._cores
        if self.views:
            cores = tuple(view(core) for view, core in zip(self.views, cores, strict=True))
        return train_of(self.layout, cores, self.zero_rows, self.zero_columns)

    def dense(self) -> Tensor:  # (rows, columns)
        """The matrix, rebuilt."""
        if not self._may_cache():
            return self.as_train().to_dense()
        self._dense = self._refresh(self._dense, lambda: self.as_train().to_dense())
        return self._dense.value

    def product(self) -> Product:
        """How to multiply: by two factors if there are any, else core by core if cheaper."""
        if not self._may_cache():
            return self._make_product()
        self._product = self._refresh(self._product, self._make_product)
        return self._product.value

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the cores are."""
        return tuple((self.cores, str(k)) for k in range(len(self.cores)))

    @property
    def trained(self) -> bool:
        """Whether gradients must reach the cores."""
        return torch.is_grad_enabled() and any(core.requires_grad for core in self._cores)

    def _make_product(self) -> Product:
        train = self.as_train()
        if factors := train.factors():
            left, right = factors
            return FactorProduct(right.contiguous().mT, left.mT.contiguous())
        if self.work.factored < self.work.dense and not torch.compiler.is_exporting():
            return ChainProduct(train)
        # In an exported graph the dense matrix is folded once; a chain would be many small nodes.
        return DenseProduct(train.to_dense())

    def _may_cache(self) -> bool:
        """Whether results may be cached: not while cores may be trained, nor while compiling."""
        return not (self.training or self.trained or torch.compiler.is_compiling())

    def _refresh(self, cached: _Cached[Value] | None, make: Callable[[], Value]) -> _Cached[Value]:
        cores = self._cores
        if cached is not None and cached.is_current(cores):
            return cached
        with torch.inference_mode(False), torch.no_grad():
            return _Cached(make(), tuple(core.detach() for core in cores), _versions(cores))

    def train(self, mode: bool = True) -> TrainWeight:
        """Like `nn.Module.train`, but clears the cache: training may write through `.data`."""
        self._product = self._dense = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_product": None, "_dense": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrainWeight:
        self._product = self._dense = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def _cores(self) -> tuple[Tensor, ...]:
        # Not tuple(self.cores), which looks every core up by name: microseconds at every call.
        return tuple(core for core in self.cores._parameters.values() if core is not None)

    @property
    def shape(self) -> torch.Size:
        """(rows, columns)."""
        return torch.Size(self.layout.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The cores' number type."""
        return self._cores[0].dtype

    @property
    def device(self) -> torch.device:
        """The cores' device."""
        return self._cores[0].device

    def size(self, dim: int | None = None) -> torch.Size | int:
        """`shape`, or one side of it."""
        return self.shape if dim is None else self.shape[dim]

    def new_zeros(self, *size: Any, **options: Any) -> Tensor:
        """Zeros of the cores' type and device; much code makes its first hidden state this way."""
        return self._cores[0].new_zeros(*size, **options)

    def extra_repr(self) -> str:
        """Format, modes and ranks."""
        rows, columns = list(self.layout.row_modes), list(self.layout.column_modes)
        modes = f"row_modes={rows}, column_modes={columns}"
        return f"{self.layout.format}, {modes}, ranks={list(self.ranks)}"


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """A matrix that stayed a parameter of its layer.

    The parameter is looked up at every use: it may have been replaced, or be rounded by a
    parametrization.
    """

    owner: nn.Module
    name: str

    def dense(self) -> Tensor:  # (rows, columns)
        """The parameter."""
        held: Tensor = getattr(self.owner, self.name)
        return held

    def product(self) -> Product:
        """Multiply by the parameter itself."""
        return DenseProduct(self.dense())

    @property
    def work(self) -> MatrixWork:
        """The cost of multiplying by it, the same in both ways."""
        values = self.dense().numel()
        return MatrixWork(values, values, calls=1, rebuild=0)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it is."""
        return ((self.owner, self.name),)

    def set_views(self, views: Sequence[nn.Module]) -> None:
        """Compute from now on with the parameter as its one view shows it."""
        (view,) = views
        parametrize.register_parametrization(self.owner, self.name, view)


Matrix = TrainWeight | DenseMatrix
"""What a layer multiplies by; both kinds have the same interface."""


def put_matrix(owner: nn.Module, name: str, value: Train | Tensor) -> None:
    """Store a copy of a matrix in a layer under a name; a train becomes a `TrainWeight`."""
    held = TrainWeight(value) if isinstance(value, Train) else nn.Parameter(copy_values(value))
    setattr(owner, name, held)


def matrix_of(owner: nn.Module, name: str) -> Matrix:
    """The matrix that a layer has under a name."""
    child = owner._modules.get(name)  # getattr would compute a parametrization
    return child if isinstance(child, TrainWeight) else DenseMatrix(owner, name)


def copy_values(tensor: Tensor) -> Tensor:
    """Copy the values into new memory.

    Never an inference tensor, even under inference_mode: those do not record that they changed.
    """
    with torch.inference_mode(False):
        return tensor.detach().clone()


def _work(layout: Layout, ranks: tuple[int, ...]) -> MatrixWork:
    rows, columns = layout.shape
    whole = rows * columns
    rebuild = whole * layout.rebuilding_rank(ranks)
    if layout.middle is not None:  # through two factors
        return MatrixWork(whole, (rows + columns) * ranks[layout.middle], calls=2, rebuild=rebuild)
    chain = layout.chain_multiply_adds(ranks)
    if chain < whole:
        return MatrixWork(whole, chain, CALLS_OF_A_CORE * layout.cores, rebuild)
    return MatrixWork(whole, whole, 1, rebuild)


def batch_for_choice(batch: int) -> int:
    """The batch size to choose a way for: 1 while compiling, or the graph would fix the size."""
    return 1 if torch.compiler.is_compiling() else batch


def _versions(cores: tuple[Tensor, ...]) -> list[tuple[int, int]]:
    """Where each core is and how often it was written; cheap, because every call needs it."""
    return [(core.data_ptr(), core._version) for core in cores]
