"""Holds the matrices that layers multiply by: decomposed (`TrainWeight`) or dense (`DenseMatrix`).

A decomposed matrix is a submodule with the name of the dense parameter, so that state dict keys are
`weight_ih_l0.cores.0`, ...; a dense one stays a parameter of its layer. `put_matrix` stores either
kind, and `matrix_of` returns it with the interface that both share.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttcompress.layers.products import ChainProduct, DenseProduct, FactorProduct, Product
from ttcompress.layers.speed import CALLS_OF_A_CORE, MatrixWork
from ttcompress.layers.tracing import is_traced
from ttcompress.planning.formats import Layout
from ttcompress.trains.formats import train_of
from ttcompress.trains.train import Train

Place = tuple[nn.Module, str]
"""A parameter, as its owner and its name there."""

Value = TypeVar("Value")


_memcmp = (ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Cached:
    """A value computed from tensors, which can tell whether it still is what they would give.

    The version counter of a tensor does not show every write: not those of fused optimizers, nor
    through `.data` or numpy. So their bytes are compared with a copy, unless the value reads the
    tensors' own memory, or they are frozen. `torch.equal` takes six times as long as `memcmp`.

    Args:
        value: what was computed.
        tensors: what it was computed from, contiguous.
        copies: of the tensors, in the processor's memory; none if nothing need be compared.
    """

    def __init__(self, value: Any, tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
        self.value = value
        aliases = [tensor.detach() for tensor in tensors]  # they keep the memory, so its address
        self._held = list(zip(tensors, aliases, strict=True))
        self._copies = copies
        self._compared = [
            (alias.data_ptr(), copy.data_ptr(), copy.nbytes)
            for alias, copy in zip(aliases, copies, strict=False)
        ]

    def is_current(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the same tensors, in the same memory, with the same bytes in it."""
        # A plain loop, and C below: at 64 units generators would take a twentieth of a call.
        for tensor, (held, alias) in zip(tensors, self._held, strict=True):
            if tensor is not held or not tensor.is_set_to(alias):
                return False
        return not any(starmap(_memcmp, self._compared))


class TrainWeight(nn.Module):
    """The cores of one matrix as parameters, and the products and the matrix computed from them.

    In evaluation without gradients the results are cached. On the CPU every use compares the cores
    with a copy, so that no write is missed; elsewhere only frozen cores are cached. Where the train
    has rows or columns that are always zero, so has the matrix. `shape`, `dtype` and the like
    behave as the dense parameter's.
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
        self.views, self._seen = nn.ModuleList(), False
        self._made: dict[str, _Cached] = {}
        self._frozen = False

    def freeze(self) -> None:
        """Take no gradients and compare no cores from now on; see the function `freeze`."""
        self.requires_grad_(False)
        self._forget(frozen=True)

    def set_views(self, views: Sequence[nn.Module]) -> None:
        """Compute from now on with each core as its view shows it, one view for each core.

        Training uses it to compute with the rounded values that a store will keep, while the
        optimizer updates the cores themselves.
        """
        self.views = nn.ModuleList(views)
        self._seen = len(views) > 0
        self._forget()

    def as_train(self) -> Train:
        """The train of the current cores, attached to their graph."""
        return self._train_of(self._cores)

    def _train_of(self, cores: Sequence[Tensor]) -> Train:
        if self._seen:
            cores = [view(core) for view, core in zip(self.views, cores, strict=True)]
        return train_of(self.layout, cores, self.zero_rows, self.zero_columns)

    def dense(self) -> Tensor:  # (rows, columns)
        """The matrix, rebuilt."""
        return self._once("dense", lambda cores: self._train_of(cores).to_dense())

    def product(self, batch: int = 1, times: int = 1) -> Product:
        """How to multiply: by two factors if there are any, else core by core if cheaper.

        One or two vectors are multiplied faster if the left factor is in another order. That is a
        copy, which must be compared with the cores unless they are frozen, so it has to pay.

        Args:
            batch: how many vectors are multiplied together.
            times: how often the call multiplies.
        """
        if torch.compiler.is_compiling():  # a choice by size would fix the sizes of the graph
            reorder = torch.compiler.is_exporting()
        else:
            reorder = batch < 3 and (times > 3 or self._frozen)
        if self.layout.middle is None:
            reads_cores = self.work.factored < self.work.dense
        else:
            masked = self.zero_rows is not None or self.zero_columns is not None
            reads_cores = len(self.cores) == 2 and not reorder and not masked
        return self._once(
            "reordered" if reorder else "product",
            lambda cores: self._make_product(cores, reorder),
            reads_cores=reads_cores,
        )

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the cores are."""
        return tuple((self.cores, str(k)) for k in range(len(self.cores)))

    @property
    def trained(self) -> bool:
        """Whether gradients must reach the cores."""
        return torch.is_grad_enabled() and any(core.requires_grad for core in self._cores)

    def _make_product(self, cores: Sequence[Tensor], reorder: bool) -> Product:
        train = self._train_of(cores)
        if factors := train.factors():
            left, right = factors
            return FactorProduct(right.mT, left.mT.contiguous() if reorder else left.mT)
        if self.work.factored < self.work.dense and not torch.compiler.is_exporting():
            return ChainProduct(train)
        # In an exported graph the dense matrix is folded once; a chain would be many small nodes.
        return DenseProduct(train.to_dense())

    def _once(
        self, name: str, make: Callable[[Sequence[Tensor]], Value], *, reads_cores: bool = False
    ) -> Value:
        """What `make` returns, from the cache unless what it is made from may have changed.

        Args:
            name: of the value in the cache.
            make: makes the value of the cores.
            reads_cores: it is not computed from the cores, but reads their memory whenever used.
        """
        cores = self._cores
        if not self._may_cache(cores):
            return make(cores)
        sources = cores
        if self._seen:
            sources = (*cores, *self.views.buffers(), *self.views.parameters())
        cached = self._made.get(name)
        if cached is None or not cached.is_current(sources):
            with _plain_arithmetic(cores[0].device.type):
                compared = not self._frozen and (self._seen or not reads_cores)
                copies = tuple(source.clone() for source in sources) if compared else ()
                # A view of a parameter would hold it, and `swap_tensors` refuses such.
                value = make([core.detach() for core in cores])
                cached = self._made[name] = _Cached(value, sources, copies)
        return cast(Value, cached.value)

    def _may_cache(self, cores: tuple[Tensor, ...]) -> bool:
        """Whether results may be cached: not while cores may be trained, nor in a traced graph.

        Nor where the cores are not parameters: transforms of functions put other tensors there.
        """
        if self.training or torch.compiler.is_compiling() or is_traced():
            return False
        tracked = self._frozen or torch.is_grad_enabled()
        for core in cores:
            if type(core) is not nn.Parameter or (tracked and core.requires_grad):
                return False
            if not (self._frozen or (core.is_cpu and core.is_contiguous())):
                return False
        return True

    def _forget(self, *, frozen: bool = False) -> None:
        self._made.clear()
        self._frozen = frozen

    def train(self, mode: bool = True) -> TrainWeight:
        """Like `nn.Module.train`; training mode ends the promise of `freeze`."""
        if mode:
            self._forget()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}, "_frozen": False}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrainWeight:
        self._forget(frozen=self._frozen)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._forget(frozen=self._frozen)
        super()._load_from_state_dict(*arguments)

    @property
    def _cores(self) -> tuple[Tensor, ...]:
        # Not tuple(self.cores), which looks every core up by name: microseconds at every call.
        held: dict[str, Any] = self.__dict__["_modules"]["cores"]._parameters
        # In a replica for another device they are no parameters.
        return tuple(held.values()) or tuple(self.cores)

    # What code asks of a dense parameter. Not `data`: writing to a rebuilt copy would do nothing.

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

    @property
    def is_cuda(self) -> bool:
        """Whether that is a CUDA device."""
        return self._cores[0].is_cuda

    @property
    def requires_grad(self) -> bool:
        """Whether any core requires gradients; setting it sets it for all."""
        return any(core.requires_grad for core in self._cores)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def ndim(self) -> int:
        """2."""
        return len(self.shape)

    def dim(self) -> int:
        """2."""
        return self.ndim

    def numel(self) -> int:
        """Values of the matrix, not of its cores."""
        return self.shape.numel()

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

    def product(self, batch: int = 1, times: int = 1) -> Product:
        """Multiply by the parameter itself, however often."""
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

    @property
    def views(self) -> Sequence[nn.Module]:
        """The one view that shows the parameter; none if it is used as it is."""
        if not parametrize.is_parametrized(self.owner, self.name):
            return ()
        return tuple(getattr(self.owner.parametrizations, self.name))

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
    """Copy the values into new memory, in one piece: only of such cores results are cached.

    Never an inference tensor, even under inference_mode: those do not record that they changed.
    """
    with torch.inference_mode(False):
        return tensor.detach().clone(memory_format=torch.contiguous_format)


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


def freeze(model: nn.Module) -> nn.Module:
    """Promise that the compressed weights of a model will not be written, which saves checks.

    A compressed layer in evaluation computes what it needs of its cores once. At every call it
    compares their bytes with a copy, so that no write is missed: an optimizer's, an average's, one
    by numpy. After `freeze` it does not, and keeps no copy. That saves most where large layers are
    called one step at a time.

    The cores no longer require gradients. `load_state_dict` and `to` are allowed; `train()` ends
    the promise, and copies of the model have not given it.

    Args:
        model: what `load_into` returned, or any module with layers of `ttcompress.layers`.

    Returns:
        `model`.
    """
    for module in model.modules():
        if isinstance(module, TrainWeight):
            module.freeze()
    return model


@contextlib.contextmanager
def _plain_arithmetic(device: str) -> Iterator[None]:
    """Compute what later calls use, whatever surrounds this one."""
    with torch.inference_mode(False), torch.no_grad(), contextlib.ExitStack() as stack:
        if torch._C._is_any_autocast_enabled():
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def batch_for_choice(batch: int) -> int:
    """The batch size to choose a way for: 1 while compiling, or the graph would fix the size."""
    return 1 if torch.compiler.is_compiling() else batch
