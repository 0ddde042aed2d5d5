"""Who runs, in which order, and what becomes of those who cannot."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from redline.core.errors import InputError, RequestError
from redline.core.tensor import Array
from redline.serving.scheduling import Batching, RunDesk, Scheduler, Timing, scheduler_of

LIMIT_S = 10.0
Answer = tuple[dict[str, Array], Timing]


def rows_of(*values: float, width: int = 2) -> dict[str, Array]:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


def until(condition: Callable[[], bool]) -> None:
    """Give other threads the processor until they have come that far."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it never came about"
        os.sched_yield()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Doubles; while held, a call stays inside; remembers what it was given."""

    def __init__(self, *, held: bool = False) -> None:
        self.calls: list[dict[str, Array]] = []
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()
        self.overlapped = False
        self._mutex = threading.Lock()
        if not held:
            self.go.set()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if not self._mutex.acquire(blocking=False):
            self.overlapped = True
            raise AssertionError("two threads in one run")
        try:
            self.calls.append(dict(inputs))
            self.inside.release()
            assert self.go.wait(LIMIT_S)
            if any(np.isnan(array).any() for array in inputs.values() if array.dtype.kind == "f"):
                raise ValueError(f"not a number in {len(inputs['x'])} rows")
            return {"y": inputs["x"] * 2}
        finally:
            self._mutex.release()

    def entered(self) -> None:
        assert self.inside.acquire(timeout=LIMIT_S)

    @property
    def seen(self) -> list[list[float]]:
        """The first column of each call."""
        return [[float(row[0]) for row in call["x"]] for call in self.calls]


@contextmanager
def served(scheduler: Scheduler, *models: Model) -> Iterator[ThreadPoolExecutor]:
    """Callers' threads; at the end nobody is held and nothing is left over."""
    with ThreadPoolExecutor(64) as callers:
        try:
            yield callers
        finally:
            for model in models:
                model.go.set()
            assert scheduler.close(LIMIT_S)
    assert (scheduler.waiting, scheduler.running) == (0, 0)
    assert not any(model.overlapped for model in models)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("redline-batch")]


WAYS = pytest.mark.parametrize("batch", [None, Batching(max_rows=1)], ids=["gate", "batcher"])


@WAYS
def test_a_request_is_answered_and_timed(batch: Batching | None) -> None:
    clock, ran = Clock(), []

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        clock.now += 2.0
        return {"y": inputs["x"] + 1}

    scheduler = scheduler_of([run], batch=batch, queue=4, clock=clock, on_executed=lambda *told: ran.append(told))
    with served(scheduler):
        outputs, timing = scheduler.run(rows_of(1, 2, 3), rows=3, deadline=None)
        assert outputs["y"][:, 0].tolist() == [2, 3, 4]
        assert timing == Timing(queue_s=0.0, run_s=2.0, batch_rows=3)
        _, timing = scheduler.run({"x": np.float32(1)}, rows=None, deadline=None)  # type: ignore[dict-item]
        assert timing == Timing(queue_s=0.0, run_s=2.0, batch_rows=1)
        assert ran == [(3, 2.0), (1, 2.0)]


def test_the_callers_own_thread_runs_the_model_where_nothing_is_batched() -> None:
    threads: list[threading.Thread] = []

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        threads.append(threading.current_thread())
        return {}

    scheduler = scheduler_of([run], batch=None, queue=0)
    with served(scheduler):
        scheduler.run(rows_of(1), rows=1, deadline=None)
    assert threads == [threading.main_thread()]


@WAYS
def test_as_many_run_at_once_as_there_are_runs_each_in_its_own(batch: Batching | None) -> None:
    models = [Model(held=True) for _ in range(3)]
    scheduler = scheduler_of(models, batch=batch, queue=64)
    with served(scheduler, *models) as callers:
        asked = [callers.submit(scheduler.run, rows_of(value), rows=1, deadline=None) for value in range(20)]
        for model in models:
            model.entered()
        until(lambda: scheduler.waiting == 17)
        assert scheduler.running == 3
        for model in models:
            model.go.set()
        for value, answer in enumerate(asked):
            assert answer.result(LIMIT_S)[0]["y"].tolist() == [[2 * value] * 2]
    assert sum(len(model.calls) for model in models) == 20


@WAYS
def test_first_come_first_served(batch: Batching | None) -> None:
    model = Model(held=True)
    scheduler = scheduler_of([model], batch=batch, queue=64)
    with served(scheduler, model) as callers:
        first = callers.submit(scheduler.run, rows_of(-1), rows=1, deadline=None)
        model.entered()
        for value in range(12):
            callers.submit(scheduler.run, rows_of(value), rows=1, deadline=None)
            until(lambda value=value: scheduler.waiting == value + 1)  # type: ignore[misc]
        model.go.set()
        first.result(LIMIT_S)
        assert scheduler.drain(LIMIT_S)
    assert model.seen == [[-1.0], *([float(value)] for value in range(12))]


@WAYS
def test_a_full_queue_says_when_to_come_again(batch: Batching | None) -> None:
    clock, model = Clock(), Model()
    scheduler = scheduler_of([model], batch=batch, queue=3, clock=clock)
    with served(scheduler, model) as callers:
        model.go.clear()
        asked = [callers.submit(scheduler.run, rows_of(0), rows=1, deadline=None)]
        model.entered()
        clock.now += 4.0  # so long does a run take
        model.go.set()
        asked[0].result(LIMIT_S)
        until(lambda: scheduler.running == 0)
        model.go.clear()
        asked = [callers.submit(scheduler.run, rows_of(value), rows=1, deadline=None) for value in range(4)]
        model.entered()
        until(lambda: scheduler.waiting == 3)
        with pytest.raises(RequestError, match="the queue is full: 3 requests wait already; try again in 16 s") as full:
            scheduler.run(rows_of(9), rows=1, deadline=None)
        assert (full.value.status, full.value.retry_after_s) == (503, 16.0)
        model.go.set()
        for answer in asked:
            answer.result(LIMIT_S)
    assert [9.0] not in model.seen


@WAYS
def test_no_queue_serves_one_behind_the_other_and_asks_to_wait_a_second_at_least(batch: Batching | None) -> None:
    model = Model()
    scheduler = scheduler_of([model], batch=batch, queue=0)
    with served(scheduler, model) as callers:
        for value in range(200):
            scheduler.run(rows_of(value), rows=1, deadline=None)
            assert model.inside.acquire(blocking=False)
        model.go.clear()
        asked = callers.submit(scheduler.run, rows_of(0), rows=1, deadline=None)
        model.entered()
        with pytest.raises(RequestError) as full:
            scheduler.run(rows_of(9), rows=1, deadline=None)
        assert (full.value.status, full.value.retry_after_s) == (503, 1.0)
        model.go.set()
        asked.result(LIMIT_S)


@WAYS
def test_a_request_that_comes_too_late_never_runs(batch: Batching | None) -> None:
    clock, model = Clock(), Model()
    scheduler = scheduler_of([model], batch=batch, queue=4, clock=clock)
    with served(scheduler, model):
        with pytest.raises(RequestError, match="deadline") as late:
            scheduler.run(rows_of(1), rows=1, deadline=clock.now)
        assert late.value.status == 504
    assert model.calls == []


@WAYS
def test_a_waiter_leaves_at_its_deadline_while_another_still_runs(batch: Batching | None) -> None:
    model = Model(held=True)
    scheduler = scheduler_of([model], batch=batch, queue=2)
    with served(scheduler, model) as callers:
        first = callers.submit(scheduler.run, rows_of(0), rows=1, deadline=None)
        model.entered()
        for _ in range(5):  # more than fit into the queue at once: each one leaves room
            with pytest.raises(RequestError) as late:
                scheduler.run(rows_of(9), rows=1, deadline=time.monotonic() + 0.01)
            assert late.value.status == 504
            assert scheduler.waiting == 0
        assert not first.done()
        behind = callers.submit(scheduler.run, rows_of(1), rows=1, deadline=time.monotonic() + LIMIT_S)
        model.go.set()
        first.result(LIMIT_S)
        behind.result(LIMIT_S)
    assert model.seen == [[0.0], [1.0]]


@WAYS
def test_a_waiter_whose_turn_comes_too_late_passes_it_on(batch: Batching | None) -> None:
    clock, model = Clock(), Model(held=True)
    scheduler = scheduler_of([model], batch=batch, queue=4, clock=clock)
    with served(scheduler, model) as callers:
        first = callers.submit(scheduler.run, rows_of(0), rows=1, deadline=clock.now + 10)
        model.entered()
        late = callers.submit(scheduler.run, rows_of(1), rows=1, deadline=clock.now + LIMIT_S)
        until(lambda: scheduler.waiting == 1)
        behind = callers.submit(scheduler.run, rows_of(2), rows=1, deadline=None)
        until(lambda: scheduler.waiting == 2)
        clock.now += LIMIT_S
        model.go.set()
        assert first.result(LIMIT_S)[0]["y"].tolist() == [[0, 0]]  # it began in time
        error = late.exception(LIMIT_S)
        assert isinstance(error, RequestError)
        assert error.status == 504
        behind.result(LIMIT_S)
    assert model.seen == [[0.0], [2.0]]


@WAYS
def test_a_deadline_far_beyond_what_a_lock_can_wait(batch: Batching | None) -> None:
    model = Model(held=True)
    scheduler = scheduler_of([model], batch=batch, queue=4)
    with served(scheduler, model) as callers:
        asked = [callers.submit(scheduler.run, rows_of(1), rows=1, deadline=when) for when in (1.8e13, float("inf"))]
        model.entered()
        until(lambda: scheduler.waiting == 1)
        model.go.set()
        for answer in asked:
            answer.result(LIMIT_S)


@WAYS
def test_what_the_model_raises_reaches_its_caller_as_it_is(batch: Batching | None) -> None:
    error = SystemExit("the model's own")

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"][0, 0] < 0:
            raise error
        return {"y": inputs["x"]}

    ran: list[tuple[int, float]] = []
    scheduler = scheduler_of([run], batch=batch, queue=0, on_executed=lambda *told: ran.append(told))
    with served(scheduler):
        for _ in range(3):
            with pytest.raises(SystemExit) as raised:
                scheduler.run(rows_of(-1), rows=1, deadline=None)
            assert raised.value is error
            scheduler.run(rows_of(1), rows=1, deadline=None)
    assert len(ran) == 3


@WAYS
def test_closing_turns_waiters_away_and_lets_the_running_one_finish(batch: Batching | None) -> None:
    model = Model(held=True)
    scheduler = scheduler_of([model], batch=batch, queue=8)
    with served(scheduler, model) as callers:
        first = callers.submit(scheduler.run, rows_of(0), rows=1, deadline=None)
        model.entered()
        waiters = [callers.submit(scheduler.run, rows_of(9), rows=1, deadline=None) for _ in range(3)]
        until(lambda: scheduler.waiting == 3)
        assert not scheduler.close(0.0)
        for waiter in waiters:
            error = waiter.exception(LIMIT_S)
            assert isinstance(error, RequestError)
            assert (error.status, error.retry_after_s) == (503, 1.0)
        assert not first.done()
        closing = callers.submit(scheduler.close, LIMIT_S)
        model.go.set()
        assert closing.result(LIMIT_S)
        first.result(LIMIT_S)
        with pytest.raises(RequestError, match="is being closed") as closed:
            scheduler.run(rows_of(9), rows=1, deadline=None)
        assert closed.value.status == 503
        assert scheduler.close()
    assert model.seen == [[0.0]]


@WAYS
def test_draining_waits_for_the_queue_too_and_refuses_nobody(batch: Batching | None) -> None:
    model = Model(held=True)
    scheduler = scheduler_of([model], batch=batch, queue=8)
    with served(scheduler, model) as callers:
        assert scheduler.drain(0.0)
        asked = [callers.submit(scheduler.run, rows_of(value), rows=1, deadline=None) for value in range(3)]
        model.entered()
        until(lambda: scheduler.waiting == 2)
        assert not scheduler.drain(0.0)
        draining = callers.submit(scheduler.drain, LIMIT_S)
        asked.append(callers.submit(scheduler.run, rows_of(3), rows=1, deadline=None))
        until(lambda: scheduler.waiting == 3)
        assert not draining.done()
        model.go.set()
        assert draining.result(LIMIT_S)
        assert len(model.calls) == 4
        for answer in asked:
            answer.result(LIMIT_S)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="a queue of -1 requests"):
        scheduler_of([Model()], batch=None, queue=-1)
    with pytest.raises(InputError, match="got no run"):
        scheduler_of([], batch=None, queue=1)
    with pytest.raises(InputError, match="at most 0 rows"):
        Batching(max_rows=0)
    for delay_s in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="waits"):
            Batching(max_rows=1, max_delay_s=delay_s)


def batched(
    requests: list[dict[str, Array]], *, max_rows: int, rows: list[int | None] | None = None
) -> tuple[Model, list[Answer | BaseException]]:
    """What becomes of requests that wait, in this order, while another one runs."""
    model = Model(held=True)
    scheduler = scheduler_of([model], batch=Batching(max_rows=max_rows), queue=64)
    with served(scheduler, model) as callers:
        first = callers.submit(scheduler.run, rows_of(-1), rows=None, deadline=None)
        model.entered()
        asked = []
        for index, inputs in enumerate(requests):
            counted = len(inputs["x"]) if rows is None else rows[index]
            asked.append(callers.submit(scheduler.run, inputs, rows=counted, deadline=None))
            until(lambda index=index: scheduler.waiting == index + 1)  # type: ignore[misc]
        model.go.set()
        first.result(LIMIT_S)
        answers = [answer.exception(LIMIT_S) or answer.result() for answer in asked]
    assert model.seen[0] == [-1.0]
    del model.calls[0]
    return model, answers


def test_what_waits_is_run_together_up_to_the_most_rows() -> None:
    model, answers = batched([rows_of(1, 2), rows_of(3), rows_of(4), rows_of(5), rows_of(6, 7)], max_rows=4)
    assert model.seen == [[1, 2, 3, 4], [5, 6, 7]]
    for answer, own, batch_rows in zip(answers, ([2, 4], [6], [8], [10], [12, 14]), (4, 4, 4, 3, 3), strict=True):
        assert isinstance(answer, tuple)
        assert answer[0]["y"][:, 0].tolist() == own
        assert answer[1].batch_rows == batch_rows
        assert answer[0]["y"].base is None, "it keeps the whole batch alive"


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    model, _ = batched([rows_of(1, 2, 3), rows_of(4, 5), rows_of(6)], max_rows=4)
    assert model.seen == [[1, 2, 3], [4, 5, 6]]


def test_a_request_with_more_rows_than_a_batch_may_have_runs_alone() -> None:
    model, answers = batched([rows_of(1), rows_of(2, 3, 4), rows_of(5)], max_rows=2)
    assert model.seen == [[1], [2, 3, 4], [5]]
    assert all(isinstance(answer, tuple) for answer in answers)


def test_unlike_requests_are_never_mixed() -> None:
    other_type = {"x": np.full((1, 2), 3, np.float64)}
    other_name = {"x": np.full((1, 2), 4, np.float32), "z": np.zeros((1, 1), np.float32)}
    model, answers = batched(
        [rows_of(1), rows_of(2, width=3), other_type, other_name, rows_of(5), rows_of(6, width=3)], max_rows=8
    )
    assert model.seen == [[1, 5], [2, 6], [3], [4]]
    assert [answer[0]["y"].shape for answer in answers if isinstance(answer, tuple)] == [
        (1, 2),
        (1, 3),
        (1, 2),
        (1, 2),
        (1, 2),
        (1, 3),
    ]


def test_several_inputs_are_joined_by_name_in_whatever_order_they_come() -> None:
    one = {"x": np.full((1, 2), 1, np.float32), "z": np.full((1, 3), 10, np.float32)}
    two = {"z": np.full((2, 3), 20, np.float32), "x": np.full((2, 2), 2, np.float32)}
    model, _ = batched([one, two], max_rows=8)
    assert model.seen == [[1, 2, 2]]
    assert model.calls[0]["z"][:, 0].tolist() == [10, 20, 20]


def test_requests_without_rows_are_never_batched() -> None:
    side = {"x": np.zeros((2, 2), np.float32), "limit": np.zeros(1, np.float32)}  # not every input has the rows
    scalar = {"x": np.zeros((1, 2), np.float32), "limit": np.zeros((), np.float32)}
    model, _ = batched([rows_of(1), rows_of(2), side, side, scalar], max_rows=8, rows=[None, None, 2, 2, 1])
    assert model.seen == [[1], [2], [0, 0], [0, 0], [0]]


def test_a_bad_request_fails_alone() -> None:
    model, answers = batched([rows_of(1), rows_of(np.nan, 2), rows_of(3), rows_of(np.nan)], max_rows=8)
    assert [len(call["x"]) for call in model.calls] == [5, 1, 2, 1, 1]
    assert isinstance(answers[0], tuple)
    assert isinstance(answers[2], tuple)
    assert (answers[0][1].batch_rows, answers[2][0]["y"].tolist()) == (1, [[6, 6]])
    assert [str(answers[index]) for index in (1, 3)] == ["not a number in 2 rows", "not a number in 1 rows"]
    assert answers[1] is not answers[3]


def test_outputs_that_are_not_by_rows_end_batching(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []
    held, inside = threading.Event(), threading.Semaphore(0)

    def total(inputs: Mapping[str, Array]) -> dict[str, Array]:
        inside.release()
        assert held.wait(LIMIT_S)
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"], "sum": inputs["x"].sum(keepdims=True)}

    scheduler = scheduler_of([total], batch=Batching(max_rows=8), queue=64)
    with served(scheduler) as callers, caplog.at_level(logging.WARNING):
        for expected in ([2, 6, 2, 2, 2], [2, 2, 2, 2]):
            del sizes[:]
            held.clear()
            first = callers.submit(scheduler.run, rows_of(1, 1), rows=2, deadline=None)
            assert inside.acquire(timeout=LIMIT_S)
            others = [callers.submit(scheduler.run, rows_of(1, 1), rows=2, deadline=None) for _ in range(3)]
            until(lambda: scheduler.waiting == 3)
            held.set()
            for asked in (first, *others):
                assert asked.result(LIMIT_S)[0]["sum"].tolist() == [[4.0]]
            assert sizes == expected
            while inside.acquire(blocking=False):
                pass
    assert [record.message for record in caplog.records] == [
        "a batch of 6 rows gave outputs of another first size: no more batches"
    ]


def test_a_batch_that_is_full_does_not_wait() -> None:
    model = Model()
    scheduler = scheduler_of([model], batch=Batching(max_rows=4, max_delay_s=3600), queue=64)
    with served(scheduler, model) as callers:
        asked = [callers.submit(scheduler.run, rows_of(value), rows=1, deadline=None) for value in range(3)]
        until(lambda: scheduler.waiting == 3)
        other = callers.submit(scheduler.run, rows_of(8, 8, 8, 8, width=3), rows=4, deadline=None)
        other.result(LIMIT_S)  # a full batch of another kind goes past one that waits
        assert scheduler.waiting == 3
        asked.append(callers.submit(scheduler.run, rows_of(3), rows=1, deadline=None))
        for answer in asked:
            assert answer.result(LIMIT_S)[1].batch_rows == 4
    assert len(model.calls) == 2


def test_a_batch_that_is_not_full_waits_no_longer_than_it_may() -> None:
    model = Model()
    scheduler = scheduler_of([model], batch=Batching(max_rows=4, max_delay_s=0.02), queue=64)
    with served(scheduler, model) as callers:
        asked = callers.submit(scheduler.run, rows_of(1), rows=1, deadline=None)
        _, timing = asked.result(LIMIT_S)
        assert timing.queue_s >= 0.02
        asked = callers.submit(scheduler.run, rows_of(1), rows=None, deadline=None)  # it can get no company
        assert asked.result(LIMIT_S)[1].queue_s < LIMIT_S


def test_a_deadline_shorter_than_the_delay_is_met() -> None:
    model = Model()
    scheduler = scheduler_of([model], batch=Batching(max_rows=4, max_delay_s=3600), queue=64)
    with served(scheduler, model) as callers:
        patient = callers.submit(scheduler.run, rows_of(1), rows=1, deadline=None)
        until(lambda: scheduler.waiting == 1)
        scheduler.run(rows_of(2), rows=1, deadline=time.monotonic() + 1.0)
        patient.result(LIMIT_S)
    assert model.seen == [[1, 2]]


def test_after_a_failed_batch_whoever_has_no_time_left_does_not_run() -> None:
    clock, calls = Clock(), []
    held, inside = threading.Event(), threading.Event()

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        calls.append(len(inputs["x"]))
        inside.set()
        assert held.wait(LIMIT_S)
        if len(inputs["x"]) > 2:
            clock.now += 2 * LIMIT_S
            raise MemoryError("the batch is too large")
        return {"y": inputs["x"]}

    scheduler = scheduler_of([run], batch=Batching(max_rows=8), queue=64, clock=clock)
    with served(scheduler) as callers:
        first = callers.submit(scheduler.run, rows_of(0), rows=1, deadline=None)
        assert inside.wait(LIMIT_S)
        hasty = callers.submit(scheduler.run, rows_of(1, 1), rows=2, deadline=clock.now + LIMIT_S)
        until(lambda: scheduler.waiting == 1)
        patient = callers.submit(scheduler.run, rows_of(2, 2), rows=2, deadline=None)
        until(lambda: scheduler.waiting == 2)
        held.set()
        first.result(LIMIT_S)
        error = hasty.exception(LIMIT_S)
        assert isinstance(error, RequestError)
        assert error.status == 504
        assert patient.result(LIMIT_S)[0]["y"].tolist() == [[2, 2], [2, 2]]
    assert calls == [1, 4, 2]


def test_whoever_is_late_is_left_out_of_the_batch() -> None:
    clock, model = Clock(), Model(held=True)
    scheduler = scheduler_of([model], batch=Batching(max_rows=3), queue=64, clock=clock)
    with served(scheduler, model) as callers:
        first = callers.submit(scheduler.run, rows_of(0), rows=1, deadline=None)
        model.entered()
        asked = []
        for value, deadline in enumerate([clock.now + LIMIT_S, None, clock.now + LIMIT_S, None, None], 1):
            asked.append(callers.submit(scheduler.run, rows_of(value), rows=1, deadline=deadline))
            until(lambda value=value: scheduler.waiting == value)  # type: ignore[misc]
        clock.now += LIMIT_S
        model.go.set()
        first.result(LIMIT_S)
        errors = [answer.exception(LIMIT_S) for answer in asked]
        assert [error and getattr(error, "status", error) for error in errors] == [504, None, 504, None, None]
    assert model.seen == [[0], [2, 4, 5]]


def test_two_batches_that_are_due_at_once_run_at_once() -> None:
    models = [Model(held=True) for _ in range(2)]
    scheduler = scheduler_of(models, batch=Batching(max_rows=4, max_delay_s=0.005), queue=64)
    with served(scheduler, *models) as callers:
        for width in (2, 3):
            callers.submit(scheduler.run, rows_of(1, width=width), rows=1, deadline=None)
        for model in models:
            model.entered()
        assert (scheduler.waiting, scheduler.running) == (0, 2)


@WAYS
def test_no_request_is_kept_alive_once_it_is_answered(batch: Batching | None) -> None:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"][0, 0] < 0:
            raise ValueError("no")
        return {"y": inputs["x"] * 2}

    scheduler = scheduler_of([run], batch=batch, queue=4)
    refs = []
    gc.disable()  # so that a cycle shows too
    try:
        with served(scheduler):
            for value in (1, -1):
                inputs = rows_of(value)
                refs.append(weakref.ref(inputs["x"]))
                with suppress(ValueError):
                    scheduler.run(inputs, rows=1, deadline=None)
                del inputs
                until(lambda: refs[-1]() is None)
    finally:
        gc.enable()


def test_a_listener_that_fails_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(rows: int, seconds: float) -> None:
        raise RuntimeError("the listener's own")

    model = Model()
    scheduler = scheduler_of([model], batch=Batching(max_rows=4), queue=4, on_executed=refuse)
    with served(scheduler, model), caplog.at_level(logging.ERROR):
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the listener's own"):
                scheduler.run(rows_of(1), rows=1, deadline=None)
    assert len(caplog.records) == 2


class SleepyGate:
    """A gate whose one run is in use, and a caller in front of it who sleeps on when called, until it is shaken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.gate = RunDesk([dict], 4, None, self.clock)
        self.held = self.gate._enter(None)
        self._caller = threading.Thread(target=lambda: self.gate._leave(self.gate._enter(None), None))
        self._caller.start()
        until(lambda: self.gate.waiting == 1)
        self._waiter = self.gate._waiters[0]
        monkeypatch.setattr(type(self._waiter), "call", lambda _: None)

    def shake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        with self.gate._lock:
            self._waiter.call()
        self._caller.join(LIMIT_S)
        assert (self.gate.waiting, self.gate.running) == (0, 0)


def test_somebody_new_may_take_a_run_before_the_first_who_waits_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    sleepy = SleepyGate(monkeypatch)
    sleepy.gate._leave(sleepy.held, None)
    assert sleepy.gate._enter(None) is sleepy.held
    assert sleepy.gate.waiting == 1
    sleepy.gate._leave(sleepy.held, None)
    sleepy.shake(monkeypatch)


def test_who_has_waited_long_enough_is_handed_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sleepy = SleepyGate(monkeypatch)
    sleepy.clock.now += 1.0
    sleepy.gate._leave(sleepy.held, None)
    assert (sleepy.gate.waiting, sleepy.gate.running) == (0, 1)
    sleepy.shake(monkeypatch)


def test_nobody_goes_past_who_has_waited_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    sleepy = SleepyGate(monkeypatch)
    sleepy.gate._leave(sleepy.held, None)
    sleepy.clock.now += 1.0
    with pytest.raises(RequestError) as told:
        sleepy.gate._enter(sleepy.clock.now)
    assert told.value.status == 504
    sleepy.shake(monkeypatch)


def test_who_gives_up_after_it_was_called_passes_the_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sleepy = SleepyGate(monkeypatch)
    later = threading.Thread(target=lambda: sleepy.gate._leave(sleepy.gate._enter(None), None))
    later.start()
    until(lambda: sleepy.gate.waiting == 2)
    sleepy.gate._leave(sleepy.held, None)
    monkeypatch.undo()
    sleepy.gate._withdraw(sleepy._waiter)
    later.join(LIMIT_S)
    assert not later.is_alive()
    sleepy._waiter.run = dict  # so that the first one ends
    sleepy.gate._idle.clear()
    sleepy.shake(monkeypatch)
