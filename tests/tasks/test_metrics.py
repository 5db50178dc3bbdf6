import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.tasks import metrics


def logits_of(predictions: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


def test_a_model_that_knows_nothing_needs_all_bits() -> None:
    total = metrics.nats(torch.zeros(2, 5, 8), torch.randint(8, (2, 5)))
    assert metrics.bits_per_character(total, 10) == pytest.approx(3.0, rel=1e-14)
    assert metrics.perplexity(total, 10) == pytest.approx(8.0, rel=1e-14)


def test_a_model_beyond_all_bounds_is_infinitely_perplexed() -> None:
    assert metrics.perplexity(torch.tensor(710.0, dtype=torch.float64), 1) == math.inf


def test_nats_are_the_logarithms_of_the_right_ones_probability() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
    total = metrics.nats(probabilities.log(), torch.tensor([1, 2]))
    assert total.item() == pytest.approx(-math.log(0.25) - math.log(0.7), rel=1e-14)
    assert total.dtype == torch.float64


def test_the_sum_over_many_characters_is_taken_in_float64() -> None:
    logits = torch.full((1, 300_000, 2), 0.1)
    total = metrics.nats(logits, torch.zeros(1, 300_000, dtype=torch.int64))
    assert total.item() == pytest.approx(300_000 * math.log(2), rel=1e-12)


def test_confusion_counts_actual_by_predicted() -> None:
    counts = metrics.confusion(logits_of([0, 1, 1, 1], 3), torch.tensor([0, 0, 0, 1]))
    assert counts.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("counts", "accuracy", "macro_f1"),
    [
        ([[3, 0], [0, 1]], 1.0, 1.0),
        ([[0, 2], [2, 0]], 0.0, 0.0),
        ([[2, 1], [1, 0]], 0.5, (4 / 6 + 0) / 2),
        ([[1, 2, 0], [0, 1, 0], [0, 0, 0]], 0.5, (2 / 4 + 2 / 4) / 2),  # the third: never seen
        ([[1, 0, 1], [0, 1, 0], [0, 0, 0]], 2 / 3, (2 / 3 + 1 + 0) / 3),  # predicted in vain
    ],
)
def test_accuracy_and_macro_f1(counts: list[list[int]], accuracy: float, macro_f1: float) -> None:
    assert metrics.accuracy(torch.tensor(counts)) == pytest.approx(accuracy, rel=1e-6)
    assert metrics.macro_f1(torch.tensor(counts)) == pytest.approx(macro_f1, rel=1e-6)


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 40), st.integers(0, 2**31))
def test_sums_over_batches_are_the_sums_over_everything(
    classes: int, length: int, cut: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(length, classes, generator=generator)
    targets = torch.randint(classes, (length,), generator=generator)
    parts = [(logits[:cut], targets[:cut]), (logits[cut:], targets[cut:])]
    counts = sum(metrics.confusion(*part) for part in parts)
    assert torch.equal(counts, metrics.confusion(logits, targets))
    total = sum(metrics.nats(*part) for part in parts)
    assert total.item() == pytest.approx(metrics.nats(logits, targets).item(), rel=1e-12)
    right = (logits.argmax(-1) == targets).double().mean().item()
    assert metrics.accuracy(counts) == pytest.approx(right, rel=1e-6)


def test_errors_of_values_are_means_over_columns_and_sums_over_positions() -> None:
    outputs = torch.tensor([[1.0, -1.0], [0.0, 4.0]])
    targets = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
    assert metrics.squared_error(outputs, targets).item() == 16 / 2 + 4 / 2
    assert metrics.absolute_error(outputs, targets).item() == 4 / 2 + 2 / 2
    # 200 % for opposite signs, 0 where both are 0, 2 / 3 of the mean of 4 and 2.
    expected = 200 / 2 + 100 * (2 / 3) / 2
    assert metrics.symmetric_error(outputs, targets).item() == pytest.approx(expected)
