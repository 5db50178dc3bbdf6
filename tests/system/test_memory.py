"""Too little memory is an error of the program's own, with what was too large."""

from __future__ import annotations

import pytest
import torch

from ttcompress.errors import OutOfMemoryError
from ttcompress.system.memory import within_memory


def test_torch_s_refusal_says_how_much_it_was() -> None:
    with pytest.raises(OutOfMemoryError) as caught, within_memory("lstm.weight_hh_l0"):
        torch.empty(10**15)
    said = str(caught.value)
    assert said.startswith("lstm.weight_hh_l0: needs more memory than this machine has")
    assert "4000000000000000 bytes" in said
    assert said.endswith("Free some, run fewer jobs at once (-j), or use a larger machine.")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "refusal",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")],
)
def test_the_other_refusals_are_known(refusal: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match=r"^a model: needs more"), within_memory("a model"):
        raise refusal


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), within_memory("x"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
