"""What Triton's clients read, and what the page shows."""

from __future__ import annotations

import threading

import pytest

from redline.serving.statistics import RECENT, Statistics

# The keys of a model_stat as Triton's docs/protocol/extension_statistics.md has them.
DURATIONS = {
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
}


def test_a_model_that_did_nothing() -> None:
    found = Statistics("resnet", "3").to_v2()
    assert found == {
        "name": "resnet",
        "version": "3",
        "last_inference": 0,
        "inference_count": 0,
        "execution_count": 0,
        "inference_stats": {name: {"count": 0, "ns": 0} for name in DURATIONS},
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }


def test_requests_rows_and_executions_are_counted_apart() -> None:
    statistics = Statistics("resnet", "3", now=lambda: 1_700_000_000.1239)
    statistics.executed(5, 0.004)  # one batch of two requests
    statistics.success(0.001, 0.002, 0.004, 0.0005, 2)
    statistics.success(0.003, 0.001, 0.004, 0.0005, 3)
    statistics.executed(1, 0.002)
    statistics.success(0.0, 0.001, 0.002, 0.0005, 1)
    found = statistics.to_v2()
    assert found["last_inference"] == 1_700_000_000_123
    assert (found["inference_count"], found["execution_count"]) == (6, 2)
    assert found["inference_stats"] == {
        "success": {"count": 3, "ns": 19_500_000},
        "fail": {"count": 0, "ns": 0},
        "queue": {"count": 3, "ns": 4_000_000},
        "compute_input": {"count": 3, "ns": 4_000_000},
        "compute_infer": {"count": 3, "ns": 10_000_000},
        "compute_output": {"count": 3, "ns": 1_500_000},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert found["batch_stats"] == [
        {
            "batch_size": 1,
            "compute_input": {"count": 1, "ns": 0},
            "compute_infer": {"count": 1, "ns": 2_000_000},
            "compute_output": {"count": 1, "ns": 0},
        },
        {
            "batch_size": 5,
            "compute_input": {"count": 1, "ns": 0},
            "compute_infer": {"count": 1, "ns": 4_000_000},
            "compute_output": {"count": 1, "ns": 0},
        },
    ]


def test_a_failure_is_no_inference() -> None:
    statistics = Statistics("resnet", "3")
    statistics.failure(400, 0.002)
    statistics.failure(503, 0.001)
    statistics.failure(400, 0.002)
    found = statistics.to_v2()
    assert found["inference_stats"]["fail"] == {"count": 3, "ns": 5_000_000}
    assert found["inference_stats"]["success"]["count"] == found["inference_count"] == found["last_inference"] == 0
    assert statistics.snapshot()["statuses"] == {"400": 2, "503": 1}


def test_times_are_whole_nanoseconds_that_never_fall() -> None:
    statistics = Statistics("mlp", "1")
    before = 0
    for _ in range(1000):
        statistics.success(0.0, 1e-7, 9.3e-6, 1e-7, 1)
        ns = statistics.to_v2()["inference_stats"]["success"]["ns"]
        assert type(ns) is int
        assert ns > before
        before = ns
    assert before == 9_500_000


def test_the_page_sees_the_last_answers_only() -> None:
    seconds = iter(range(10_000))
    statistics = Statistics("mlp", "1", now=lambda: float(next(seconds)))
    for index in range(RECENT + 88):
        statistics.success(0.0, 0.0, index / 1000, 0.0, 1)
    recent = statistics.snapshot()["recent"]
    assert len(recent) == RECENT == 512
    assert recent[0] == (88.0, 0.088)
    assert recent[-1] == (RECENT + 87.0, pytest.approx((RECENT + 87) / 1000))
    assert statistics.snapshot()["requests"] == RECENT + 88


def test_threads_lose_no_count() -> None:
    statistics = Statistics("mlp", "1")
    each, threads = 500, 8
    begin = threading.Barrier(threads)

    def work() -> None:
        begin.wait()
        for _ in range(each):
            statistics.success(0.001, 0.0, 0.001, 0.0, 2)
            statistics.executed(2, 0.001)
            statistics.failure(500, 0.001)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = statistics.to_v2()
    assert found["inference_count"] == 2 * each * threads
    assert found["execution_count"] == found["batch_stats"][0]["compute_infer"]["count"] == each * threads
    assert found["inference_stats"]["fail"]["count"] == found["inference_stats"]["success"]["count"] == each * threads
    assert found["inference_stats"]["queue"]["ns"] == each * threads * 1_000_000
