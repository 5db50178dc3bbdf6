"""`torch.nn.Embedding` with a tensor train as its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ttcompress.layers.linear import train_like
from ttcompress.layers.matrices import TrainWeight, batch_for_choice
from ttcompress.layers.speed import Run, Way, check_run
from ttcompress.layers.tracing import call_node, is_traced
from ttcompress.trains.train import Train


class Embedding(nn.Module):
    """`torch.nn.Embedding` with a train (rows = the vocabulary) as its table.

    Gradients of the cores are dense. Rows above `max_norm` are scaled in the result, not in the
    table, whose rows share cores.

    Args:
        train: the table.
        padding_idx: a row that no gradient reaches.
        max_norm: rows with a larger norm are scaled down to it.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide a row's gradient by how often the call uses it.
        run: "factored" makes only the rows needed, "rebuilt" the whole table, "auto" the fewer.
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
        self.run: Run = check_run(run)
        self.weight = TrainWeight(train)

    @classmethod
    def from_dense(
        cls, module: nn.Embedding, tensors: Mapping[str, Train | Tensor], *, run: Run = "auto"
    ) -> Self:
        """The same layer with its "weight" replaced.

        Raises:
            ArtifactError: the weight is not a train, or has another shape.
        """
        return cls(
            train_like(tensors, module.weight),
            padding_idx=module.padding_idx,
            max_norm=module.max_norm,
            norm_type=module.norm_type,
            scale_grad_by_freq=module.scale_grad_by_freq,
            run=run,
        ).train(module.training)

    def how(self, count: int = 1) -> Way:
        """The way in which a call with `count` indices would run."""
        # Frequencies are counted over the table's rows, which only the rebuilt way has.
        if self.scale_grad_by_freq or is_traced():
            return "rebuilt"
        if self.run != "auto":
            return self.run
        return "factored" if count < self.num_embeddings else "rebuilt"

    def forward(self, input: Tensor) -> Tensor:
        """(...) of indices -> (..., embedding_dim)."""
        if isinstance(input, fx.Proxy):
            return call_node(self, input)
        indices = input.reshape(-1)
        if self.how(batch_for_choice(indices.shape[0])) == "rebuilt":
            rows = functional.embedding(
                indices,
                self.weight.dense(),
                self.padding_idx,
                scale_grad_by_freq=self.scale_grad_by_freq,
            )
        else:
            rows = self.weight.as_train().rows(indices)
            if self.padding_idx is not None:
                padding = (indices == self.padding_idx).unsqueeze(1)
                rows = torch.where(padding, rows.detach(), rows)
        return self._cap_norms(rows).reshape(*input.shape, self.embedding_dim)

    def _cap_norms(self, rows: Tensor) -> Tensor:  # (count, embedding_dim)
        """Scale rows down to `max_norm`; like torch's, no gradient goes through the scale."""
        if self.max_norm is None:
            return rows
        norms = rows.detach().norm(self.norm_type, dim=1, keepdim=True)
        return torch.where(norms > self.max_norm, rows * (self.max_norm / (norms + 1e-7)), rows)

    def extra_repr(self) -> str:
        """Sizes, padding and way to run."""
        sizes = f"{self.num_embeddings}, {self.embedding_dim}"
        return f"{sizes}, padding_idx={self.padding_idx}, run={self.run!r}"
