"""Worker processes: contained, timed, measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import psutil
import pytest
from tests.measurement.fakes import Doubler

from redline.core.errors import WorkerError
from redline.core.session import Session
from redline.measurement.interleave import Schedule, Window, interleave
from redline.measurement.latency import time_calls, warm_up
from redline.measurement.worker import Json, Source, Worker, call_in_fresh_process

X = {"x": np.ones((1, 2), np.float32)}


def source(function: str = "make", **arguments: Json) -> Source:
    return Source(factory=f"tests.measurement.fakes:{function}", arguments=arguments)


def test_a_worker_is_a_session() -> None:
    with Worker(source()) as worker:
        assert isinstance(worker, Session)
        np.testing.assert_array_equal(worker(X)["y"], 2 * X["x"])
        assert worker.attribute("layers") == ("fp32", 1)
        with pytest.raises(WorkerError, match="got inputs"):
            worker({})
        np.testing.assert_array_equal(worker(X)["y"], 2 * X["x"])


def test_its_memory_is_its_own_and_never_negative() -> None:
    with Worker(source()) as small, Worker(source(megabytes=100)) as large:
        for worker in (small, large):
            worker.prepare(1, [X], limit_s=0.0)
        few, many = small.memory(), large.memory()
    assert 90e6 < many.private_peak_bytes - few.private_peak_bytes < 120e6
    assert 0 < few.private_before_bytes <= few.private_peak_bytes <= few.rss_peak_bytes


def test_a_failure_to_load_has_its_reason_in_one_line() -> None:
    with pytest.raises(WorkerError, match=r"^no such operator$"):
        Worker(source("refuse"))


def test_a_killed_worker_is_an_error_and_not_a_crash() -> None:
    with Worker(source(die_at=2)) as worker:
        worker(X)
        with pytest.raises(WorkerError, match="killed by signal 9"):
            worker(X)


def test_a_hanging_worker_is_stopped() -> None:
    before = set(psutil.Process().children())
    with pytest.raises(WorkerError, match="no answer in 1 s"):
        Worker(source("hang"), timeout_s=1)
    assert set(psutil.Process().children()) == before


def test_a_step_runs_in_a_process_of_its_own() -> None:
    assert call_in_fresh_process(source("add", a=1, b=2), timeout_s=60) == 3


def test_rounds_are_interleaved_and_a_death_costs_one_variant() -> None:
    windows: list[Window] = []
    failures: dict[str, str] = {}
    with Worker(source()) as healthy, Worker(source(die_at=40)) as doomed:
        workers: Mapping[str, Worker] = {"healthy": healthy, "doomed": doomed}
        for worker in workers.values():
            worker.prepare(1, [X], limit_s=0.0)
        schedule = Schedule(rounds=4, window_s=0.0, min_calls=20)
        done = {("healthy", 0)}
        interleave(
            workers, 1, schedule, done=done, on_window=windows.append, on_failure=lambda n, r: failures.update({n: r})
        )
    assert [w.round for w in windows if w.variant == "healthy"] == [1, 2, 3]
    assert len([w for w in windows if w.variant == "doomed"]) < 4
    assert failures.keys() == {"doomed"}
    assert all(len(window.samples_s) == 20 for window in windows)


class Clock:
    """A clock that only a session moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(Doubler):
    """Takes the seconds that it is told, call by call."""

    def __init__(self, clock: Clock, durations: list[float]) -> None:
        super().__init__()
        self.clock, self.durations = clock, durations

    def __call__(self, inputs: Mapping[str, np.ndarray], /) -> dict[str, np.ndarray]:
        self.clock.now += self.durations.pop(0) if len(self.durations) > 1 else self.durations[0]
        return super().__call__(inputs)


def test_time_is_that_of_the_call() -> None:
    clock = Clock()
    assert time_calls(Slow(clock, [7, 1, 2, 3]), [X], duration_s=5.5, clock=clock) == [1, 2, 3]
    assert time_calls(Slow(clock, [9]), [X], duration_s=0, min_calls=2, clock=clock) == [9, 9]


def test_warm_up_goes_on_until_stable() -> None:
    clock = Clock()
    result = warm_up(Slow(clock, [5.0, 0.5, 0.4, 0.4, 0.3, 0.2, 0.2, 0.1]), [X], window_s=0.1, limit_s=100, clock=clock)
    assert result.first_call_s == 5.0
    assert result.stable
    assert result.calls >= 8


def test_warm_up_gives_up_at_its_limit() -> None:
    clock = Clock()
    drifting = [1.0 * 1.2**i for i in range(100)]
    assert not warm_up(Slow(clock, drifting), [X], window_s=0.1, limit_s=30, clock=clock).stable
