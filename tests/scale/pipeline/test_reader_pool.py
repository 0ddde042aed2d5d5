"""Processes that read give what threads give, whatever becomes of them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.scale.detector_models import spot_model
from tests.scale.fake_slide import FakeSlide
from tests.scale.pipeline.fakes import RectangleRunner, scattered
from tests.scale.pipeline.test_detect import SLIDE, options, outputs, spec
from tests.scale.pipeline.test_run import plan_for, same

from redline.core.errors import InputError, WorkerError
from redline.core.tensor import Array
from redline.detection.preparing import Preparer
from redline.formats.onnx_file import read_onnx
from scale.models.uint8_input import with_uint8_input
from scale.pipeline import reader_pool as pools
from scale.pipeline.batches import BatchFeed, StripResult
from scale.pipeline.channels import Permits
from scale.pipeline.detect import detect
from scale.pipeline.models import open_runners
from scale.pipeline.plan import Plan, PlanOptions, SlideShape, make_plan
from scale.pipeline.reader_pool import ReaderPool, processes_for, reader_pool
from scale.pipeline.run import run_strips
from scale.pipeline.run_options import Reading, RunOptions
from scale.pipeline.runners import DetectorRunner
from scale.pipeline.timing import StageClock
from scale.regions.grid import Region
from scale.slides.base import Slide
from scale.slides.opening import open_slide

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory without a name is Linux's")
BY_PROCESSES = RunOptions(readers=2, reading="processes")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that takes floats, and the same with bytes."""
    folder = tmp_path_factory.mktemp("models")
    plain = read_onnx(spot_model(folder / "m.onnx", size_px=128))
    return plain.path, with_uint8_input(plain, folder / "raw.onnx").path


@pytest.fixture
def runner(models: tuple[Path, Path]) -> Iterator[DetectorRunner]:
    with open_runners([replace(spec(models[1]), window_px=200)], threads=1) as (one,):
        assert isinstance(one, DetectorRunner)
        yield one


def plan_of(slide: Slide, runners: list[Any]) -> Plan:
    level = slide.levels[0]
    region = Region(name="slide", x0=0, y0=0, width_px=level.width_px, height_px=level.height_px)
    shape = SlideShape(levels=slide.levels, mpp=slide.mpp)
    return make_plan(shape, [region], [runner.shape for runner in runners], PlanOptions(overlap=40, strip_windows=16))


def run(
    slide: Slide, runners: list[Any], pool: ReaderPool | None, clock: StageClock | None = None
) -> dict[int, StripResult]:
    plan = plan_of(slide, runners)
    found = run_strips(slide, plan, plan.strips, runners, options=BY_PROCESSES, clock=clock, pool=pool)
    return {result.strip: result for result in found}


def alike(one: dict[int, StripResult], other: dict[int, StripResult]) -> bool:
    return one.keys() == other.keys() and all(
        one[strip].failures == other[strip].failures
        and all(same(*pair) for pair in zip(one[strip].found, other[strip].found, strict=True))
        for strip in one
    )


def pids(pool: ReaderPool) -> list[int]:
    """Of the processes, once they have started."""
    readers = pool._readers
    children = [reader._thread.submit(reader._start).result() for reader in readers]
    return [child.pid for child in children]


@pytest.mark.parametrize("taken", ["floats", "bytes"])
def test_processes_give_what_threads_give(models: tuple[Path, Path], taken: str) -> None:
    given = replace(spec(models[taken == "bytes"]), window_px=200)
    smaller = replace(given, name="smaller", window_px=128)
    with open_slide(SLIDE) as slide, open_runners([given, smaller], threads=1) as runners:
        expected = run(slide, list(runners), None)
        clock = StageClock()
        with reader_pool(BY_PROCESSES, runners) as pool:
            assert pool is not None
            assert len(pool) == 2
            alive = pids(pool)
            assert alike(run(slide, list(runners), pool, clock), expected)
            assert alike(run(slide, list(runners), pool), expected)  # with arrays and processes that are used again
            assert pids(pool) == alive
            plan = plan_of(slide, list(runners))
            assert len(pool._buffers) <= 2 * BY_PROCESSES.batches(plan, runners, processes=2)
        assert sum(map(len, expected.values())) > 300
        counts = clock.report({}).counts
        assert counts["read"] == counts["pre"] == plan.windows
        assert counts["decode"] > 0
    assert not any(psutil.pid_exists(pid) for pid in alive)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scale ")]


def test_windows_that_cannot_be_read_are_the_same_ones(runner: DetectorRunner, tmp_path: Path) -> None:
    broken = tmp_path / "spoilt.svs"
    content = bytearray(SLIDE.read_bytes())
    third = len(content) // 3
    content[third : third + 200_000] = bytes(200_000)
    broken.write_bytes(content)
    with open_slide(broken) as slide, reader_pool(BY_PROCESSES, [runner]) as pool:
        by_threads, by_processes = run(slide, [runner], None), run(slide, [runner], pool)
    assert sum(len(result.failures) for result in by_threads.values()) > 10
    assert alike(by_processes, by_threads)


def test_a_slide_that_is_gone_is_told_window_by_window(runner: DetectorRunner, tmp_path: Path) -> None:
    path = tmp_path / "s.svs"
    shutil.copy(SLIDE, path)
    with open_slide(path) as slide, reader_pool(BY_PROCESSES, [runner]) as pool:
        path.unlink()
        results = run(slide, [runner], pool)
    failures = [failure for result in results.values() for failure in result.failures]
    assert len(failures) == sum(len(strip) for strip in plan_of_asset(runner).strips)
    assert {failure.stage for failure in failures} == {"read"}
    assert all("InputError: " in failure.reason and "s.svs" in failure.reason for failure in failures)


def plan_of_asset(runner: DetectorRunner) -> Plan:
    with open_slide(SLIDE) as slide:
        return plan_of(slide, [runner])


def test_a_process_that_is_killed_is_started_anew_and_nothing_is_missing(runner: DetectorRunner) -> None:
    with open_slide(SLIDE) as slide, reader_pool(BY_PROCESSES, [runner]) as pool:
        assert pool is not None
        before = pids(pool)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        results = run(slide, [runner], pool)
        assert not set(before) & set(pids(pool))
        assert alike(results, run(slide, [runner], None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadly(Preparer):
    """Ends its process at some images, as a decoder that is written in C may."""

    least: float

    def place(self, image: Array, batch: Any, row: int) -> None:
        if image.mean() < self.least:
            os.kill(os.getpid(), signal.SIGSEGV)
        Preparer.place(self, image, batch, row)


class DeadlyRunner(DetectorRunner):
    """Sends its windows to their death where they are dark."""

    least = 0.0

    @property
    def preparer(self) -> Preparer:
        known = self._detector.preparer
        fields = {name: getattr(known, name) for name in ("spec", "preprocess", "batch", "largest_batch")}
        return Deadly(**fields, least=self.least)


def dark(slide: Slide, plan: Plan) -> list[tuple[float, tuple[int, int]]]:
    places = [
        (plan.layouts[0].grid.columns_x0[column], plan.layouts[0].grid.rows_y0[row])
        for strip in plan.strips
        for row, column in zip(strip.rows.tolist(), strip.columns.tolist(), strict=True)
    ]
    from redline.detection.letterbox import letterbox

    return sorted((float(letterbox(slide.read(*place, 200, 200), (128, 128)).mean()), place) for place in places)


def test_a_window_that_a_process_dies_of_is_told_and_the_others_are_done(runner: DetectorRunner) -> None:
    runner.__class__ = DeadlyRunner
    assert isinstance(runner, DeadlyRunner)
    with open_slide(SLIDE) as slide, reader_pool(BY_PROCESSES, [runner]) as pool:
        plan = plan_of(slide, [runner])
        known = dark(slide, plan)
        runner.least = (known[1][0] + known[2][0]) / 2
        results = run(slide, [runner], pool)
        runner.least = 0.0
        whole = run(slide, [runner], pool)
    failures = [failure for result in results.values() for failure in result.failures]
    assert sorted((failure.x0, failure.y0) for failure in failures) == sorted(place for _, place in known[:2])
    assert all(failure.reason == "WorkerError: the worker ended by signal 11" for failure in failures)
    strips = {strip for strip, result in results.items() if result.failures}
    assert alike(
        {strip: result for strip, result in results.items() if strip not in strips},
        {strip: result for strip, result in whole.items() if strip not in strips},
    )
    lost = sum(map(len, whole.values())) - sum(map(len, results.values()))
    assert 0 <= lost < 0.2 * sum(map(len, whole.values()))


def test_processes_that_keep_dying_are_given_up(runner: DetectorRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_MOST_DEATHS", 3)
    runner.__class__ = DeadlyRunner
    runner.least = 1000.0  # type: ignore[attr-defined]
    with (
        open_slide(SLIDE) as slide,
        reader_pool(BY_PROCESSES, [runner]) as pool,
        pytest.raises(WorkerError, match=r"died 3 times, lastly: .*signal 11; --reading threads"),
    ):
        run(slide, [runner], pool)


def test_pages_are_locked_while_they_are_used(runner: DetectorRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[int] = []

    def lock_pages(array: Array) -> Callable[[], None]:
        locked.append(array.ctypes.data)
        return lambda: locked.remove(array.ctypes.data)

    monkeypatch.setattr(type(runner._detector.session), "lock_pages", staticmethod(lock_pages), raising=False)
    with open_slide(SLIDE) as slide, reader_pool(BY_PROCESSES, [runner]) as pool:
        assert pool is not None
        run(slide, [runner], pool)
        assert sorted(locked) == sorted(a.ctypes.data for buffer in pool._buffers for a in buffer.arrays.values())
        assert locked
    assert locked == []


def test_files_are_the_same_bytes(models: tuple[Path, Path], tmp_path: Path) -> None:
    ways: tuple[Reading, ...] = ("threads", "processes")
    for way in ways:
        chosen = options(formats=("json", "parquet"), run=RunOptions(readers=2, reading=way))
        assert detect([SLIDE], [spec(models[1])], tmp_path / way, options=chosen).good
    one, other = (tmp_path / way / SLIDE.stem for way in ways)
    assert outputs(one) == outputs(other)
    shards = sorted(path.name for path in (one / "shards").glob("*.npz"))
    assert shards
    assert all((one / "shards" / name).read_bytes() == (other / "shards" / name).read_bytes() for name in shards)


def test_a_picture_in_memory_is_read_by_threads(runner: DetectorRunner) -> None:
    picture = FakeSlide(np.random.default_rng(0).integers(0, 256, (600, 600, 3)).astype(np.uint8))
    with reader_pool(BY_PROCESSES, [runner]) as pool:
        assert pool is not None
        assert not pool.reads(picture)
        plan = plan_for(picture, [runner])
        found = list(run_strips(picture, plan, plan.strips, [runner], options=BY_PROCESSES, pool=pool))
    assert sum(map(len, found)) > 0
    assert len(picture.reads) == plan.windows


def test_threads_have_batches_enough_where_the_pool_cannot_read(runner: DetectorRunner) -> None:
    picture = FakeSlide(scattered(500, 420)[0])
    many = [RectangleRunner(f"r{side}", window_px=side) for side in (40, 50, 60, 70, 80)]
    plan = plan_for(picture, many)
    assert len(plan.groups) == 5
    one = RunOptions(readers=1, reading="processes")
    with reader_pool(one, [runner]) as pool:
        found = list(run_strips(picture, plan, plan.strips, many, options=one, pool=pool))
    assert len(found) == len(plan.strips)


def test_who_reads(runner: DetectorRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(cores: int, **chosen: Any) -> int:
        return processes_for(RunOptions(**chosen), [runner], cores=cores)

    assert count(16) == count(16, reading="threads") == 0  # its session copies nothing ahead: no GPU
    assert count(16, readers=5, reading="processes") == 5
    monkeypatch.setattr(type(runner), "stream", lambda self, batches: iter(()), raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    assert (count(16), count(4), count(2), count(16, reading="threads"), count(16, readers=3)) == (14, 2, 0, 0, 3)
    assert processes_for(RunOptions(), [runner, RectangleRunner()], cores=16) == 0
    with pytest.raises(InputError, match="for models of the YOLO family; take threads"):
        processes_for(BY_PROCESSES, [RectangleRunner()], cores=16)
    with pytest.raises(InputError, match="got reading 'fast', expected one of auto, threads, processes"):
        RunOptions(reading="fast")  # type: ignore[arg-type]


def test_every_batch_is_handed_out_once_and_few_are_alive() -> None:
    slide = FakeSlide(scattered(900, 800)[0])
    runners = [RectangleRunner("a", batch=3), RectangleRunner("wide", window_px=150, batch=2)]
    plan = plan_for(slide, runners, strip_windows=9)
    permits = Permits(3)
    feed = BatchFeed(plan, plan.strips, permits, takers=3)
    seen: list[tuple[int, int]] = []
    alive, most, lock = [0], [0], threading.Lock()

    def take() -> None:
        for batch in feed.batches():
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])
                seen.append((batch.state.strip.index, batch.start))
            with lock:
                alive[0] -= 1
            batch.used()

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [
        (strip.index, start) for strip in plan.strips for start in range(0, len(strip), plan.group_of(strip).batch)
    ]
    assert sorted(seen) == sorted(expected)
    assert 1 <= most[0] <= 3
    stopped = BatchFeed(plan, plan.strips, permits, takers=1)
    permits.stop()
    assert list(stopped.batches()) == []
    assert list(BatchFeed(plan, [], Permits(1), takers=1).batches()) == []
