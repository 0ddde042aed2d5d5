"""Whatever comes, from however many threads: each caller gets exactly the answer to its own rows, or its own error."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.core.errors import RequestError
from redline.core.tensor import Array
from redline.serving.batching import join, kind_of, split
from redline.serving.scheduling import Batching, Timing, scheduler_of

LIMIT_S = 30.0
Answer = tuple[dict[str, Array], Timing] | BaseException


@dataclass(frozen=True)
class Request:
    """What one caller asks for."""

    rows: int
    width: int
    counted: bool
    bad: bool
    when: str

    def inputs(self, number: int) -> dict[str, Array]:
        values = number * 100 + np.arange(self.rows * self.width, dtype=np.float64).reshape(self.rows, self.width)
        return {"x": values, "bad": np.full((self.rows, 1), self.bad)}

    def deadline(self) -> float | None:
        now = time.monotonic()
        return {"never": None, "past": now - 1, "soon": now + 0.001, "far": now + LIMIT_S}[self.when]


class BadError(Exception):
    pass


class Model:
    """Squares, once it may; refuses a batch with a bad row in it; notes what it was given."""

    def __init__(self, go: threading.Event) -> None:
        self.batches: list[tuple[frozenset[int], int, bool]] = []
        self._go = go
        self._mutex = threading.Lock()

    @property
    def inside(self) -> int:
        """Requests in its first batch, which is the one that it is held in."""
        return len(self.batches[0][0]) if self.batches else 0

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert self._mutex.acquire(blocking=False), "two threads in one run"
        try:
            x, bad = inputs["x"], bool(inputs["bad"].any())
            self.batches.append((frozenset(int(value) // 100 for value in x[:, 0]), len(x), bad))
            assert self._go.wait(LIMIT_S)
            if bad:
                raise BadError(sorted({int(value) // 100 for value in x[inputs["bad"][:, 0], 0]}))
            return {"square": x**2, "total": x.sum(axis=1)}
        finally:
            self._mutex.release()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it never came about"
        os.sched_yield()


REQUESTS = st.builds(
    Request,
    rows=st.integers(1, 5),
    width=st.sampled_from([3, 3, 3, 4]),
    counted=st.sampled_from([True, True, True, False]),
    bad=st.sampled_from([False] * 5 + [True]),
    when=st.sampled_from(["never", "never", "far", "soon", "past"]),
)
BATCHING = st.none() | st.builds(
    Batching, max_rows=st.integers(1, 9), max_delay_s=st.sampled_from([0.0, 0.0, 0.0005, 0.003])
)


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=16),
    batch=BATCHING,
    runs=st.integers(1, 3),
    queue=st.sampled_from([0, 2, 64, 64]),
    crowded=st.booleans(),
)
def test_each_caller_gets_what_is_its_own(
    requests: list[Request], batch: Batching | None, runs: int, queue: int, crowded: bool
) -> None:
    go = threading.Event()
    if not crowded:
        go.set()
    models = [Model(go) for _ in range(runs)]
    told: list[int] = []
    scheduler = scheduler_of(models, batch=batch, queue=queue, on_executed=lambda rows, _: told.append(rows))
    got: list[Answer] = [RuntimeError("no answer")] * len(requests)
    settled: list[int] = []
    begin = threading.Barrier(len(requests))

    def call(number: int) -> None:
        request = requests[number]
        inputs = request.inputs(number)
        begin.wait(LIMIT_S)
        try:
            got[number] = scheduler.run(
                inputs, rows=request.rows if request.counted else None, deadline=request.deadline()
            )
        except (RequestError, BadError) as error:
            got[number] = error
        finally:
            settled.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(len(requests))]
    for caller in callers:
        caller.start()
    if crowded:  # nobody gets through before everybody is there
        until(lambda: len(settled) + scheduler.waiting + sum(model.inside for model in models) == len(requests))
        go.set()
    for caller in callers:
        caller.join(LIMIT_S)
        assert not caller.is_alive(), "a caller was forgotten"
    assert scheduler.drain(LIMIT_S)
    assert (scheduler.waiting, scheduler.running) == (0, 0)
    assert scheduler.close(LIMIT_S)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("redline-batch")]

    batches = [entry for model in models for entry in model.batches]
    for number, (request, answer) in enumerate(zip(requests, got, strict=True)):
        _check(number, request, answer, queue=queue)
        ran = [entry for entry in batches if number in entry[0]]
        if isinstance(answer, RequestError):
            assert all(entry[2] for entry in ran), "it was turned away, but had run"
        else:
            assert len(ran) - sum(len(entry[0]) > 1 and entry[2] for entry in ran) == 1
    _check_batches(requests, batches, batch)
    assert sorted(told) == sorted(
        rows if all(requests[number].counted for number in numbers) else 1 for numbers, rows, bad in batches if not bad
    )


def _check(number: int, request: Request, answer: Answer, *, queue: int) -> None:
    if isinstance(answer, RequestError):
        assert (answer.status == 504 and request.when in ("past", "soon")) or (answer.status == 503 and queue < 64)
    elif request.bad:
        assert isinstance(answer, BadError)
        assert answer.args == ([number],)
    else:
        assert request.when != "past"
        assert isinstance(answer, tuple), answer
        outputs, timing = answer
        x = request.inputs(number)["x"]
        np.testing.assert_array_equal(outputs["square"], x**2)
        np.testing.assert_array_equal(outputs["total"], x.sum(axis=1))
        assert outputs["square"].base is None or outputs["square"].base.size == x.size
        assert timing.queue_s >= 0
        assert timing.batch_rows >= (request.rows if request.counted else 1)


def _check_batches(
    requests: list[Request], batches: list[tuple[frozenset[int], int, bool]], batch: Batching | None
) -> None:
    for numbers, rows, _ in batches:
        assert rows == sum(requests[number].rows for number in numbers)
        if len(numbers) > 1:
            assert batch is not None
            assert rows <= batch.max_rows
            assert all(requests[number].counted for number in numbers)
            assert len({requests[number].width for number in numbers}) == 1


@given(
    rows=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    tail=st.lists(st.integers(0, 3), max_size=2),
    dtype=st.sampled_from(["float32", "float16", "int64", "bool", "uint8", ">f4", "object"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_joined_and_split_is_what_it_was(rows: list[int], tail: list[int], dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = [{name: rng.integers(0, 2, (count, *tail)).astype(dtype) for name in ("a", "b")} for count in rows]
    assert len({kind_of(request, count) for request, count in zip(requests, rows, strict=True)}) == 1
    parts = split(join(requests), rows)
    assert parts is not None
    for part, request in zip(parts, requests, strict=True):
        assert list(part) == list(request)
        for name, array in part.items():
            np.testing.assert_array_equal(array, request[name])
            assert array.dtype == np.dtype(dtype).newbyteorder("=")


@given(rows=st.lists(st.integers(1, 4), min_size=1, max_size=4), off=st.sampled_from([-1, 1, 3]))
def test_outputs_of_another_first_size_are_not_split(rows: list[int], off: int) -> None:
    total = sum(rows)
    assert split({"y": np.zeros((total, 2)), "z": np.zeros(total + off)}, rows) is None
    assert split({"y": np.zeros(())}, rows) is None
