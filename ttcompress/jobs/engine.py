"""The choice of where jobs run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Engine:
    """Where jobs run: worker processes of this machine (`loky`), or a Dask cluster.

    `jobs` run at once, by default one per core here, or per worker of the cluster at the address
    `scheduler`; without an address Dask starts a cluster on this machine. Fine-tuning multiplies in
    `mixed_precision`: no, bf16 or fp16.
    """

    name: Literal["loky", "dask"] = "loky"
    jobs: int | None = None
    scheduler: str | None = None
    mixed_precision: str = "no"


HERE = Engine()
"""The default: local worker processes."""
