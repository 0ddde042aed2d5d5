"""Worker processes: contained, timed, measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import psutil
import pytest
from tests.measurement.fakes import Doubler

from redline.core.errors import WorkerError
from redline.core.session import Session
from redline.measurement.latency import time_calls, warm_up
from redline.measurement.worker import (
    Json,
    Source,
    Worker,
    WorkerMemoryError,
    WorkerTimeoutError,
    call_in_fresh_process,
)

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


def test_a_killed_worker_ran_out_of_memory_most_likely() -> None:
    with Worker(source(die_at=1)) as worker, pytest.raises(WorkerMemoryError):
        worker(X)


@pytest.mark.parametrize(
    "words",
    [
        "MemoryError",
        "cause",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "the GPU's memory is full; take a smaller batch, or close other sessions",
        "the node failed\nBFCArena: Failed to allocate memory for requested buffer of size 4096",
        "CUDA failure 2: cudaErrorMemoryAllocation",
        "[Errno 12] Cannot allocate memory",
        "Unable to allocate 3.00 GiB for an array",
        "Error Code 2: OutOfMemory",
    ],
)
def test_memory_that_cannot_be_had_is_told_from_other_errors(words: str) -> None:
    with Worker(source("make_failing", words=words)) as worker, pytest.raises(WorkerMemoryError) as caught:
        worker(X)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", ["the shape does not fit", "memory format not supported"])
def test_other_errors_are_not_of_memory(words: str) -> None:
    with Worker(source("make_failing", words=words)) as worker, pytest.raises(WorkerError) as caught:
        worker(X)
    assert type(caught.value) is WorkerError


def test_a_hanging_worker_is_stopped() -> None:
    before = set(psutil.Process().children())
    with pytest.raises(WorkerError, match="no answer in 1 s"):
        Worker(source("hang"), timeout_s=1)
    assert set(psutil.Process().children()) == before


def test_the_limit_can_be_set_for_what_follows_and_is_no_matter_of_memory() -> None:
    with Worker(source("make_failing", words="hang")) as worker:
        assert worker.limit_s == 300
        worker.limit_s = 0.5
        for _ in range(2):
            with pytest.raises(WorkerTimeoutError, match=r"^no answer in 0.5 s; the worker was stopped$"):
                worker(X)


def test_inputs_have_names_of_any_kind_and_are_called_by_number() -> None:
    others = [{"x": np.full((1, 2), value, np.float32)} for value in (3, 4)]
    with Worker(source()) as worker:
        worker.prepare("one", [X], limit_s=0.0)
        worker.prepare(2, others, limit_s=0.0)
        assert [float(worker.call_shared(2, index)["y"][0, 0]) for index in (0, 1, 2)] == [6, 8, 6]
        assert float(worker.call_shared("one", 0)["y"][0, 0]) == 2
        with pytest.raises(WorkerError, match="prepared under the name 'other'"):
            worker.call_shared("other", 0)


def test_a_window_ends_early_at_its_most_calls() -> None:
    with Worker(source()) as worker:
        worker.prepare(1, [X], limit_s=0.0)
        assert len(worker.time(1, duration_s=1000, max_calls=7)) == 7


def test_a_step_runs_in_a_process_of_its_own() -> None:
    assert call_in_fresh_process(source("add", a=1, b=2), timeout_s=60) == 3


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
    assert time_calls(Slow(clock, [0.75, 0.125, 0.25, 0.5]), [X], duration_s=0.5, clock=clock) == [0.125, 0.25, 0.5]
    assert time_calls(Slow(clock, [9]), [X], duration_s=0, min_calls=2, clock=clock) == [9, 9]
    assert time_calls(Slow(clock, [9]), [X], duration_s=1e9, min_calls=2, max_calls=3, clock=clock) == [9, 9, 9]
    assert time_calls(Slow(clock, [9]), [X], duration_s=5, max_calls=3, clock=clock) == [9]


def test_a_long_first_call_is_a_sample() -> None:
    clock = Clock()
    assert time_calls(Slow(clock, [2, 1, 1]), [X], duration_s=0, min_calls=2, clock=clock) == [2, 1]
    assert time_calls(Slow(clock, [0.5, 1, 1]), [X], duration_s=0, min_calls=2, clock=clock) == [1, 1]


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
