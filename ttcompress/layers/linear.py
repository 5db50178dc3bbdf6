"""`torch.nn.Linear` with a tensor train as its weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, fx, nn
from torch.nn import functional

from ttcompress.errors import ArtifactError
from ttcompress.layers.matrices import TrainWeight, batch_for_choice, copy_values
from ttcompress.layers.speed import Run, Way, check_run, faster_product
from ttcompress.layers.tracing import call_node, is_traced
from ttcompress.trains.train import Train


class Linear(nn.Module):
    """`torch.nn.Linear` with a train (rows = out_features, columns = in_features) as its weight.

    Args:
        train: the weight.
        bias: (out_features,) or None; copied.
        run: "factored" multiplies by the train, "rebuilt" by the dense matrix, "auto" the faster.
    """

    bias: Tensor | None

    def __init__(self, train: Train, bias: Tensor | None = None, *, run: Run = "auto") -> None:
        super().__init__()
        self.out_features, self.in_features = train.shape
        self.run: Run = check_run(run)
        self.weight = TrainWeight(train)
        self.register_parameter("bias", None if bias is None else nn.Parameter(copy_values(bias)))

    @classmethod
    def from_dense(
        cls, module: nn.Linear, tensors: Mapping[str, Train | Tensor], *, run: Run = "auto"
    ) -> Self:
        """The same layer with "weight", and "bias" if it is given, replaced.

        Raises:
            ArtifactError: the weight is not a train, or has another shape.
        """
        bias = tensors.get("bias", module.bias)
        if isinstance(bias, Train):
            raise ArtifactError("bias is a train, but only matrices can be. Give a tensor.")
        return cls(train_like(tensors, module.weight), bias, run=run).train(module.training)

    def how(self, batch: int = 1) -> Way:
        """The way in which a call with `batch` input vectors would run."""
        if is_traced():
            return "rebuilt"
        if self.run != "auto":
            return self.run
        return faster_product(self.weight.work, batch, rebuild=self.weight.trained)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if isinstance(input, fx.Proxy):
            return call_node(self, input)
        vectors = input.reshape(-1, self.in_features)
        if self.how(batch_for_choice(vectors.shape[0])) == "rebuilt":
            return functional.linear(input, self.weight.dense(), self.bias)
        output = self.weight.product(vectors.shape[0])(vectors, self.bias)
        return output.reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes and way to run."""
        bias = self.bias is not None
        return f"{self.in_features}, {self.out_features}, bias={bias}, run={self.run!r}"


def train_like(tensors: Mapping[str, Train | Tensor], dense: Tensor) -> Train:
    """The train that replaces a dense "weight".

    Raises:
        ArtifactError: the weight is not a train, or has another shape.
    """
    weight = tensors.get("weight")
    if not isinstance(weight, Train):
        raise ArtifactError("weight is not a train, so the layer needs no replacement")
    if weight.shape != tuple(dense.shape):
        raise ArtifactError(
            f"weight is {weight.shape}, but the layer needs {tuple(dense.shape)}. "
            "Use the file with the model that it was made from."
        )
    return weight
