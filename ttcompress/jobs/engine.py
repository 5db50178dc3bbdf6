"""Where jobs run, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Engine:
    """Where jobs run: worker processes of this machine (`loky`), or a Dask cluster.

    `jobs` run at once, by default one for each core here, or for each worker of the cluster at the
    address `scheduler`; without an address Dask has a cluster of its own on this machine. A
    fine-tuning has its products in `mixed_precision`: no, bf16 or fp16.
    """

    name: Literal["loky", "dask"] = "loky"
    jobs: int | None = None
    scheduler: str | None = None
    mixed_precision: str = "no"


HERE = Engine()
"""The default."""
