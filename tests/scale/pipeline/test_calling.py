"""Models whose calls overlap: the same results as of plain calls, arrays written again only when they are free."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.scale.detector_models import spot_model
from tests.scale.fake_slide import FakeSlide
from tests.scale.pipeline.fakes import RectangleRunner, scattered
from tests.scale.pipeline.test_run import HEIGHT, WIDTH, plan_for, run, same

from redline.core.errors import DataError
from redline.core.session import Session
from redline.core.tensor import Array
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx
from scale.models.loaded import OpenFile, OpenModel, loaded
from scale.models.opening import open_model
from scale.models.spec import ModelSpec
from scale.models.uint8_input import with_uint8_input
from scale.pipeline import models as pipeline_models
from scale.pipeline.models import runner_of
from scale.pipeline.run_options import RunOptions
from scale.pipeline.runners import DetectorRunner, OverlappedRunner, calls_of

MOST = 3


class Overlapped(RectangleRunner):
    """Holds up to three batches before it gives the first answer, as a session on a GPU does."""

    def __init__(self, *arguments: Any, broken: Iterable[int] = (), **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.broken = set(broken)
        self.most = self.asked = 0

    def stream(self, batches: Iterable[Any], /) -> Generator[Any, None, None]:
        under_way: deque[Any] = deque()
        for batch in batches:
            self.asked += 1
            if self.asked in self.broken:
                raise RuntimeError("illegal memory access")
            if len(under_way) == MOST:
                yield self.infer(under_way.popleft())
            under_way.append(batch)
            self.most = max(self.most, len(under_way))
        while under_way:
            yield self.infer(under_way.popleft())


def found(runner: RectangleRunner, **options: Any) -> list[Any]:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    plan = plan_for(slide, [runner], strip_windows=9)
    results = run(slide, plan, [runner], **options)
    assert sorted(results) == list(range(len(plan.strips)))
    return [results[index] for index in sorted(results)]


def all_same(one: list[Any], other: list[Any]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(same(a.found[0], b.found[0]) and a.failures == b.failures for a, b in pairs)


@pytest.mark.parametrize("readers", [1, 6])
@pytest.mark.parametrize("broken", [(), (1,), (3,), range(1, 100)])
def test_overlapped_calls_give_what_plain_ones_give(readers: int, broken: Iterable[int]) -> None:
    runner = Overlapped(broken=broken)
    assert all_same(found(runner, readers=readers), found(RectangleRunner()))
    assert len(runner.threads) == 1
    assert set(runner.calls) == {4}


def test_a_model_that_cannot_overlap_at_all_is_soon_asked_plainly() -> None:
    runner = Overlapped(broken=range(1, 100))
    found(runner)
    assert runner.asked == 3


def test_a_batch_that_is_refused_both_ways_is_reported() -> None:
    class Refusing(Overlapped):
        def infer(self, inputs: Any, /) -> Any:
            with self._lock:
                self.refused = getattr(self, "refused", 0) + 1
                fails = 4 <= self.refused <= 7  # in the stream, then three times by itself
            if fails:
                raise RuntimeError("out of memory")
            return super().infer(inputs)

    results = found(Refusing(), readers=1)
    failures = [failure for result in results for failure in result.failures]
    assert {failure.stage for failure in failures} == {"infer"}
    assert {failure.reason for failure in failures} == {"RuntimeError: out of memory"}
    assert 1 <= len(failures) <= 4


def test_one_that_refuses_everything_ends_the_slide() -> None:
    class Refusing(Overlapped):
        def infer(self, inputs: Any, /) -> Any:
            raise RuntimeError("out of memory")

    with pytest.raises(DataError, match="model rectangles refuses all"):
        found(Refusing())


def test_batches_for_overlapping_are_held_beside_those_that_fill() -> None:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    plan = plan_for(slide, [RectangleRunner()])
    options = RunOptions(readers=1)
    assert options.batches(plan, [RectangleRunner()]) == 3
    assert options.batches(plan, [Overlapped()]) == 6
    # Sixteen readers may have begun four batches of four.
    assert RunOptions(readers=16).batches(plan, [RectangleRunner()]) == 6


def test_threads_grow_with_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    for cores in (1, 2, 16, 200):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: range(cores))
        threads.append((RunOptions().reader_threads, RunOptions().decoder_threads))
    assert threads == [(1, 1), (2, 1), (16, 4), (32, 8)]
    assert (RunOptions(readers=3).reader_threads, RunOptions(decoders=2).decoder_threads) == (3, 2)


class StreamingSession:
    """ONNX Runtime behind the interface of a session on a GPU, which sees when a batch is written too early."""

    def __init__(self, inner: Session) -> None:
        self.inner, self.signature = inner, inner.signature
        self.allocated: list[Array] = []
        self.seen: set[int] = set()
        self.streams = 0

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        return self.inner(inputs)

    def stream(self, batches: Iterable[Mapping[str, Array]], /) -> Iterator[dict[str, Array]]:
        self.streams += 1
        under_way: deque[tuple[Mapping[str, Array], bytes]] = deque()
        for batch in batches:
            if len(under_way) == MOST:
                yield self._answer(*under_way.popleft())
            under_way.append((batch, batch["images"].tobytes()))
        while under_way:
            yield self._answer(*under_way.popleft())

    def _answer(self, batch: Mapping[str, Array], before: bytes) -> dict[str, Array]:
        assert batch["images"].tobytes() == before
        self.seen.add(batch["images"].ctypes.data)
        return self.inner(batch)

    def allocate_inputs(self, batch: int) -> dict[str, Array]:
        self.allocated.append(np.zeros((batch, 3, 64, 64), np.uint8))
        return {"images": self.allocated[-1]}

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def models(tmp_path: Path) -> Iterator[tuple[OpenModel, OpenModel, StreamingSession]]:
    """The same model as floats with plain calls, and as bytes with a stream."""
    plain = read_onnx(spot_model(tmp_path / "m.onnx"))
    raw = with_uint8_input(plain, tmp_path / "raw.onnx")
    session = StreamingSession(open_onnx(raw))
    spec = ModelSpec(name="m", path=plain.path, window_px=64, batch=4, confidence=0.1)
    files = (
        OpenFile(session=one, usage=model.usage, runtime="onnxruntime", precision="fp32")
        for one, model in ((open_onnx(plain), plain), (session, raw))
    )
    one, other = (loaded(spec, plain.path, file) for file in files)
    yield one, other, session
    one.close()
    other.close()


def test_a_session_that_streams_is_used_so_with_arrays_that_go_round(
    models: tuple[OpenModel, OpenModel, StreamingSession],
) -> None:
    plain, streaming, session = models
    rng = np.random.default_rng(0)
    slide = FakeSlide(rng.integers(0, 256, (1200, 1200, 3)).astype(np.uint8))
    runners = [runner_of(plain), runner_of(streaming)]
    assert [type(runner) for runner in runners] == [DetectorRunner, OverlappedRunner]
    assert runners[0].shape.form != runners[1].shape.form
    session.allocated.clear()
    answers = []
    for runner in runners:
        plan = plan_for(slide, [runner])
        assert len(plan.strips) > 1
        answers.append(run(slide, plan, [runner], readers=3))
    assert sum(map(len, answers[0].values())) > 1000
    for strip, result in answers[0].items():
        assert same(result.found[0], answers[1][strip].found[0])
    assert session.streams >= 1
    assert 1 <= len(session.allocated) <= RunOptions(readers=3).batches(plan, runners[1:])
    assert session.seen == {array.ctypes.data for array in session.allocated}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scale ")]


class AtOnce(RectangleRunner):
    """Each thread's first answer waits for those of the others, which one thread alone never ends."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls_at_once = calls
        self._all_there = threading.Barrier(calls)
        self.callers: set[int] = set()

    def infer(self, inputs: Any, /) -> Any:
        if threading.get_ident() not in self.callers:
            self._all_there.wait(timeout=60)
            self.callers.add(threading.get_ident())
        return super().infer(inputs)


def test_a_model_that_may_be_is_called_by_several_threads_at_one_time() -> None:
    runner = AtOnce(3)
    assert all_same(found(runner, readers=2), found(RectangleRunner()))
    assert len(runner.callers) == 3
    plan = plan_for(FakeSlide(scattered(WIDTH, HEIGHT)[0]), [runner])
    assert RunOptions(readers=1).batches(plan, [runner]) == 5  # one fills, one is ready, three are answered


def test_several_threads_of_a_model_that_refuses_everything_end_the_slide() -> None:
    class Refusing(RectangleRunner):
        calls_at_once = 3

        def infer(self, inputs: Any, /) -> Any:
            raise RuntimeError("out of memory")

    with pytest.raises(DataError, match="model rectangles refuses all"):
        found(Refusing())


def test_a_thread_that_is_refused_while_others_are_answered_ends_nothing() -> None:
    class OnceRefusing(RectangleRunner):
        calls_at_once = 2
        refused = 0

        def infer(self, inputs: Any, /) -> Any:
            with self._lock:
                self.refused += 1
                fails = self.refused <= 3
            if fails:
                raise RuntimeError("busy")
            return super().infer(inputs)

    runner = OnceRefusing()
    results = found(runner)
    failures = [failure for result in results for failure in result.failures]
    assert {failure.reason for failure in failures} <= {"RuntimeError: busy"}
    assert sum(runner.calls) > 50


def test_onnx_runtime_on_a_cpu_is_called_by_as_many_threads_as_there_are_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ModelSpec(name="m", path=spot_model(tmp_path / "m.onnx"), window_px=64, batch=4, confidence=0.1)
    asked: list[tuple[int, int]] = []

    def watched(spec: ModelSpec, *, threads: int = 0, cpu_calls: int = 0, **more: Any) -> OpenModel:
        asked.append((threads, cpu_calls))
        return open_model(spec, threads=threads, cpu_calls=cpu_calls, **more)

    monkeypatch.setattr(pipeline_models, "open_model", watched)
    for cores, threads, calls in ((2, 0, 2), (16, 0, 8), (12, 0, 6), (16, 3, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores))
        with pipeline_models.open_runners([given], device="cpu", threads=threads) as (runner,):
            assert (*asked.pop(), calls_of(runner)) == (threads, calls, calls)
