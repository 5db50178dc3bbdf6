"""Threads: told where more are asked for than there are cores."""

from __future__ import annotations

import pytest

from ttcompress.system.threads import count_cores, remark_on_environment, remark_on_threads


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
