"""Threads: told where more are asked for than there are cores; work is shared among them."""

from __future__ import annotations

from threading import Barrier

import pytest
import torch

from ttcompress.system.threads import (
    count_cores,
    remark_on_environment,
    remark_on_threads,
    side_by_side,
    torch_threads,
)


def test_as_many_threads_as_cores_need_no_remark() -> None:
    assert remark_on_threads(count_cores(), "--threads") == ""


def test_more_threads_than_cores_are_told_with_both_numbers() -> None:
    there = count_cores()
    remark = remark_on_threads(there + 3, "--threads")
    assert remark.startswith(f"--threads asks for {there + 3} threads")
    assert f"has {there} core" in remark


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_environment_asks_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(name, "4000")
    assert f"{name} asks for 4,000" in remark_on_environment()
    monkeypatch.setenv(name, "all")  # not ours to judge
    assert remark_on_environment() == ""


def test_work_runs_at_once_each_in_one_thread_of_torch_and_comes_in_order() -> None:
    together = Barrier(3, timeout=20)

    def work(item: int) -> tuple[int, int]:
        together.wait()  # passes only where three run at once
        return item, torch.get_num_threads()

    told: list[tuple[int, int]] = []
    with torch_threads(3):
        found = side_by_side(work, range(10, 16), lambda done, item: told.append((done, item)))
        assert [*found] == [(item, 1) for item in range(10, 16)]
        assert torch.get_num_threads() == 3
    assert told == [*enumerate(range(10, 16))]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_item_that_fails_is_the_error_and_no_more_are_begun(threads: int) -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item > 1:
            raise ValueError(f"item {item}")
        return item

    with torch_threads(threads), pytest.raises(ValueError, match="item 2"):
        list(side_by_side(work, range(90)))
    assert len(begun) < 9
    assert torch.get_num_threads() == 1
