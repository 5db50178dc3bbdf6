"""What only the result can tell, the length of the header and the rounding, is within budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ttcompress.errors import PlanError
from ttcompress.pipeline import compress, plan


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose file, compressed, is a header for the larger part."""
    path = tmp_path_factory.mktemp("small") / "small.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(torch.nn.LSTM(8, 24).state_dict(), path)
    return path


def recipe(store: str = "auto", **budget: Any) -> dict[str, Any]:
    return {"version": 1, "format": "mps", "store": store, "budget": budget}


def test_a_size_is_reached_wherever_a_file_of_that_size_can_be(small: Path) -> None:
    size = compress(small, recipe(factor=8)).file_bytes + 1_000  # what measuring may add
    assert compress(small, recipe(size=size)).file_bytes <= size
    _, planned = plan(small, recipe(size=size))
    assert planned.model_totals.bytes_after < size


def test_the_bytes_said_to_be_needed_are_enough(small: Path) -> None:
    tensors = plan(small, recipe(factor=10))[1].model_totals.bytes_after
    for run in (compress, plan):
        with pytest.raises(PlanError, match=r"at least [\d,]+ bytes are needed") as caught:
            run(small, recipe(size=tensors))
        needed = int(str(caught.value).split("at least ")[1].split(" ")[0].replace(",", ""))
        assert needed > tensors + 1_000  # the header was measured
        run(small, recipe(size=needed))


def test_where_not_even_the_tensors_fit_the_header_comes_on_top(small: Path) -> None:
    for run in (compress, plan):
        with pytest.raises(PlanError, match=r"at least [\d,]+ bytes and the file's header"):
            run(small, recipe(size=300))
