"""What a tracer sees of a layer: `torch.fx` a leaf, `torch.jit.trace` dense weights.

Call these from a layer's `forward`. A compiler's graphs are another matter: see `matrices.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn


def is_traced() -> bool:
    """Whether `torch.jit.trace` is recording.

    It would record a loop over the time steps as long as its example, so that another length would
    give a wrong result. It records torch's fused kernels as they are, for any length and batch.
    """
    return torch._C._get_tracing_state() is not None


def call_node(module: nn.Module, input: fx.Proxy, *others: Any) -> Any:
    """Record a layer's call as one node of an `fx` graph, which only torch's own layers are."""
    tracer = input.tracer
    path = tracer.path_of_module(module)  # type: ignore[attr-defined]
    return tracer.create_proxy("call_module", path, (input, *others), {})
