"""Linear and Embedding whose weight may be a train: torch's inputs enter, torch's outputs leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ttcompress.errors import ArtifactError
from ttcompress.modules.lookup import lookup_rows
from ttcompress.modules.running import Run, Way, checked_run, faster_product
from ttcompress.modules.weights import TrainWeight, choosing_batch, copied
from ttcompress.trains.train import Train


class Linear(nn.Module):
    """`torch.nn.Linear` with a train (rows = out_features, columns = in_features) for its weight.

    Args:
        train: the weight.
        bias: (out_features,) or None; copied.
        run: "factored" multiplies by the train, "rebuilt" by the dense matrix, "auto" as is faster.
    """

    bias: Tensor | None

    def __init__(self, train: Train, bias: Tensor | None = None, *, run: Run = "auto") -> None:
        super().__init__()
        self.out_features, self.in_features = train.shape
        self.run: Run = checked_run(run)
        self.weight = TrainWeight(train)
        self.register_parameter("bias", None if bias is None else nn.Parameter(copied(bias)))

    @classmethod
    def from_dense(
        cls, module: nn.Linear, tensors: Mapping[str, Train | Tensor], *, run: Run = "auto"
    ) -> Self:
        """The same layer with "weight", and "bias" if it is given, replaced.

        Raises:
            ArtifactError: the weight is no train, or of another shape.
        """
        bias = tensors.get("bias", module.bias)
        if isinstance(bias, Train):
            raise ArtifactError("bias is a train; only matrices can be")
        return cls(_weight(tensors, module.weight), bias, run=run).train(module.training)

    def how(self, batch: int = 1) -> Way:
        """The way that so many input vectors would run."""
        if self.run != "auto":
            return self.run
        return faster_product(self.weight.work, batch, rebuild=self.weight.trained)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        vectors = input.reshape(-1, self.in_features)
        if self.how(choosing_batch(vectors.shape[0])) == "rebuilt":
            return functional.linear(input, self.weight.dense(), self.bias)
        output = self.weight.product()(vectors, self.bias)
        return output.reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes and way to run."""
        bias = self.bias is not None
        return f"{self.in_features}, {self.out_features}, bias={bias}, run={self.run!r}"


class Embedding(nn.Module):
    """`torch.nn.Embedding` with a train (rows = the vocabulary) for its table.

    Gradients of the cores are dense. Rows above `max_norm` are scaled in the result: the table
    itself cannot be, its rows share cores.

    Args:
        train: the table.
        padding_idx: a row that no gradient reaches.
        max_norm: rows of a larger norm are scaled down to it.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide a row's gradient by how often the call uses it.
        run: "factored" makes only the rows asked for, "rebuilt" the whole table, "auto" as is less.
    """

    def __init__(
        self,
        train: Train,
        *,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        run: Run = "auto",
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = train.shape
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.run: Run = checked_run(run)
        self.weight = TrainWeight(train)

    @classmethod
    def from_dense(
        cls, module: nn.Embedding, tensors: Mapping[str, Train | Tensor], *, run: Run = "auto"
    ) -> Self:
        """The same layer with its "weight" replaced.

        Raises:
            ArtifactError: the weight is no train, or of another shape.
        """
        return cls(
            _weight(tensors, module.weight),
            padding_idx=module.padding_idx,
            max_norm=module.max_norm,
            norm_type=module.norm_type,
            scale_grad_by_freq=module.scale_grad_by_freq,
            run=run,
        ).train(module.training)

    def how(self, count: int = 1) -> Way:
        """The way that a call with so many indices would run."""
        if self.scale_grad_by_freq:
            return "rebuilt"  # the count belongs to rows of the table, which only that way has
        if self.run != "auto":
            return self.run
        return "factored" if count < self.num_embeddings else "rebuilt"

    def forward(self, input: Tensor) -> Tensor:
        """(...) of indices -> (..., embedding_dim)."""
        indices = input.reshape(-1)
        if self.how(choosing_batch(indices.shape[0])) == "rebuilt":
            rows = functional.embedding(
                indices,
                self.weight.dense(),
                self.padding_idx,
                scale_grad_by_freq=self.scale_grad_by_freq,
            )
        else:
            rows = lookup_rows(self.weight.as_train(), indices)
            if self.padding_idx is not None:
                padding = (indices == self.padding_idx).unsqueeze(1)
                rows = torch.where(padding, rows.detach(), rows)
        return self._capped(rows).reshape(*input.shape, self.embedding_dim)

    def _capped(self, rows: Tensor) -> Tensor:  # (count, embedding_dim)
        """Scale rows down to `max_norm`; like torch's, no gradient goes through the scale."""
        if self.max_norm is None:
            return rows
        norms = rows.detach().norm(self.norm_type, dim=1, keepdim=True)
        return torch.where(norms > self.max_norm, rows * (self.max_norm / (norms + 1e-7)), rows)

    def extra_repr(self) -> str:
        """Sizes, padding and way to run."""
        sizes = f"{self.num_embeddings}, {self.embedding_dim}"
        return f"{sizes}, padding_idx={self.padding_idx}, run={self.run!r}"


def _weight(tensors: Mapping[str, Train | Tensor], dense: Tensor) -> Train:
    weight = tensors.get("weight")
    if not isinstance(weight, Train):
        raise ArtifactError("weight is no train; a layer without one needs no replacement")
    if weight.shape != tuple(dense.shape):
        raise ArtifactError(
            f"weight is {weight.shape}, but the layer needs {tuple(dense.shape)}. "
            "Use the file with the model that it was made from."
        )
    return weight
