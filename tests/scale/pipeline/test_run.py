from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
from tests.scale.fake_slide import FakeSlide
from tests.scale.pipeline.fakes import RectangleRunner, scattered, sorted_boxes

from redline.core.errors import DataError, MissingDependencyError
from redline.core.tensor import Array
from redline.detection.results import BatchDetections, Detections
from scale.merging.found import Found
from scale.pipeline.batches import StripResult
from scale.pipeline.finish import MergeOptions, finished
from scale.pipeline.plan import Plan, PlanOptions, SlideShape, make_plan
from scale.pipeline.run import run_strips
from scale.pipeline.run_options import RunOptions
from scale.pipeline.runners import Runner
from scale.pipeline.timing import StageClock
from scale.regions.grid import Region

WIDTH, HEIGHT = 500, 420


def plan_for(slide: FakeSlide, runners: list[Any], *, strip_windows: int | None = None, **options: Any) -> Plan:
    level = slide.levels[0]
    region = Region(name="slide", x0=0, y0=0, width_px=level.width_px, height_px=level.height_px)
    shape = SlideShape(levels=slide.levels, mpp=None)
    chosen = PlanOptions(**{"overlap": 16, "strip_windows": strip_windows, **options})
    return make_plan(shape, [region], [runner.shape for runner in runners], chosen)


def run(slide: Any, plan: Plan, runners: list[Any], **options: Any) -> dict[int, StripResult]:
    results = run_strips(slide, plan, plan.strips, runners, options=RunOptions(**options))
    return {result.strip: result for result in results}


def boxes_of(plan: Plan, runners: list[Any], results: dict[int, StripResult], model: int = 0) -> Array:
    pieces = finished(plan, [runner.info for runner in runners], results.__getitem__, MergeOptions())
    found = Detections.concatenate([piece.detections for piece in pieces if piece.model == model])
    return sorted_boxes(found.boxes)


def same(one: Found, other: Found) -> bool:
    pairs = [(one.windows, other.windows), (one.cuts, other.cuts), (one.detections.boxes, other.detections.boxes)]
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("readers", [1, 5])
def test_models_of_different_windows_find_every_object_once(readers: int) -> None:
    picture, expected = scattered(WIDTH, HEIGHT)
    slide = FakeSlide(picture)
    runners = [RectangleRunner("a", batch=4), RectangleRunner("b", batch=4), RectangleRunner("wide", window_px=150)]
    plan = plan_for(slide, runners, strip_windows=9)
    results = run(slide, plan, runners, readers=readers)
    assert sorted(results) == list(range(len(plan.strips)))
    assert not any(result.failures for result in results.values())
    for model in range(3):
        assert np.array_equal(boxes_of(plan, runners, results, model), expected)
    # Windows that two models share are read once.
    assert len(slide.reads) == plan.windows == len(plan.layouts[0]) + len(plan.layouts[1])


def test_a_strip_is_the_same_whatever_runs_beside_it() -> None:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    runners = [RectangleRunner("a"), RectangleRunner("wide", window_px=150)]
    plan = plan_for(slide, runners, strip_windows=8)
    together = run(slide, plan, runners, readers=4, decoders=2)
    for strip in plan.strips:
        alone = list(run_strips(slide, plan, [strip], runners, options=RunOptions(readers=1)))
        assert [result.strip for result in alone] == [strip.index]
        assert all(same(*pair) for pair in zip(alone[0].found, together[strip.index].found, strict=True))


def test_a_model_is_called_by_one_thread_with_full_batches_of_which_few_are_alive() -> None:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    runners = [RectangleRunner("a", batch=3), RectangleRunner("wide", window_px=150, batch=3)]
    plan = plan_for(slide, runners)
    run(slide, plan, runners, readers=6)
    assert RunOptions(readers=6).batches(plan, runners) == 5  # two fill, one more may, one is inferred, one is ready
    for runner in runners:
        assert len(runner.threads) == 1
        assert set(runner.calls) == {3}
        assert runner.alive <= 5
    assert len({name for runner in runners for name in runner.threads}) == 2


def test_boxes_are_in_level_0_pixels_where_windows_come_from_a_smaller_level() -> None:
    picture, expected = scattered(512, 512, side_px=16, step_px=48)
    picture, expected = np.roll(picture, (-2, -2), (0, 1)), expected - 2
    even = np.full((520, 520, 3), 255, np.uint8)
    boxes = []
    for x0, y0, x1, y1 in (expected // 4 * 4).astype(int).tolist():
        even[y0:y1, x0:x1] = 0
        boxes.append((x0, y0, x1, y1))
    slide = FakeSlide(even, levels=(1, 4))
    runner = RectangleRunner(window_px=256)
    runner.shape = runner.shape.__class__(name="a", window_px=256, batch=4, input_hw=(64, 64), form="f")
    plan = plan_for(slide, [runner], overlap=64, pyramid=True)
    assert plan.groups[0].level == 1
    results = run(slide, plan, [runner])
    assert np.array_equal(boxes_of(plan, [runner], results), sorted_boxes(np.array(boxes, np.float32)))


class Flaky(FakeSlide):
    """Fails the first times that one window is read."""

    def __init__(self, array: Array, *, at: tuple[int, int], times: int) -> None:
        super().__init__(array)
        self.at, self.left = at, times

    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        with self._lock:
            fails = (x0, y0) == self.at and self.left > 0
            self.left -= fails
        if fails:
            raise DataError("tile 7 is\ntorn")
        return super().read(x0, y0, width_px, height_px, level=level)


def test_a_window_that_can_be_read_at_the_third_time_is_not_missing() -> None:
    picture, expected = scattered(WIDTH, HEIGHT)
    slide, runners = Flaky(picture, at=(96, 48), times=2), [RectangleRunner()]
    plan = plan_for(slide, runners)
    results = run(slide, plan, runners)
    assert slide.left == 0
    assert not any(result.failures for result in results.values())
    assert np.array_equal(boxes_of(plan, runners, results), expected)


def test_a_window_that_cannot_be_read_is_reported_and_the_rest_is_there() -> None:
    picture, expected = scattered(WIDTH, HEIGHT)
    slide, runners = Flaky(picture, at=(96, 48), times=99), [RectangleRunner("a"), RectangleRunner("b")]
    plan = plan_for(slide, runners)
    results = run(slide, plan, runners)
    assert slide.left == 99 - 3
    (failure,) = [failure for result in results.values() for failure in result.failures]
    assert (failure.region, failure.x0, failure.y0, failure.window_px) == ("slide", 96, 48, 64)
    assert (failure.stage, failure.models, failure.reason) == ("read", ("a", "b"), "DataError: tile 7 is torn")
    found = {tuple(box) for box in boxes_of(plan, runners, results).tolist()}
    whole = {tuple(box) for box in expected.tolist() if not (96 <= box[0] < 160 and 48 <= box[1] < 112)}
    assert whole <= found


class Refusing(RectangleRunner):
    """Refuses batches by their numbers; all of them where none are given."""

    def __init__(self, name: str = "r", *, numbers: frozenset[int] | None = None, decode: bool = False) -> None:
        super().__init__(name)
        self.numbers, self.in_decode, self.seen = numbers, decode, Counter[int]()
        self._ids: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no other batch gets the identity of one that is gone

    def _check(self, value: Any) -> None:
        self._kept.append(value)
        number = self._ids.setdefault(id(value[0]), len(self._ids))
        self.seen[number] += 1
        if self.numbers is None or number in self.numbers:
            raise RuntimeError("out of memory")

    def infer(self, inputs: Any, /) -> Any:
        if not self.in_decode:
            self._check(inputs)
        return super().infer(inputs)

    def decode(self, outputs: Any, places: Any, /) -> BatchDetections:
        if self.in_decode:
            self._check(outputs)
        return super().decode(outputs, places)


@pytest.mark.parametrize("in_decode", [False, True])
def test_a_batch_that_a_model_refuses_is_tried_again_and_then_reported_for_that_model(in_decode: bool) -> None:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    # The first is a model of other windows, so that its batches are its own.
    bad = Refusing(numbers=frozenset({1}), decode=in_decode)
    bad.shape = bad.shape.__class__(name="r", window_px=80, batch=4, input_hw=(80, 80), form="f")
    runners: list[Runner] = [bad, RectangleRunner("good")]
    plan = plan_for(slide, runners)
    results = run(slide, plan, runners, readers=1)
    failures = [failure for result in results.values() for failure in result.failures]
    assert len(failures) == 4
    assert {failure.models for failure in failures} == {("r",)}
    assert {failure.stage for failure in failures} == {"post" if in_decode else "infer"}
    assert bad.seen[1] == 3
    assert len(results) == len(plan.strips)


def test_a_model_that_refuses_everything_ends_the_slide() -> None:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    runners = [Refusing()]
    plan = plan_for(slide, runners)
    with pytest.raises(DataError, match=r"model r refuses all.*RuntimeError: out of memory"):
        run(slide, plan, runners)


def test_a_model_that_refuses_the_only_batch_ends_the_slide_but_not_a_resumed_one() -> None:
    slide = FakeSlide(scattered(240, 160)[0])
    runners = [Refusing()]
    plan = plan_for(slide, runners, strip_windows=4)
    assert len(plan.strips) > 1
    (result,) = run_strips(slide, plan, plan.strips[:1], runners)
    assert len(result.failures) == 4
    small = FakeSlide(scattered(64, 64)[0])
    with pytest.raises(DataError, match="model r refuses all"):
        run(small, plan_for(small, runners), runners)


class Unread(FakeSlide):
    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        raise MissingDependencyError("imagecodecs", extra="scale")


def test_a_missing_package_ends_the_slide_at_once() -> None:
    slide = Unread(scattered(WIDTH, HEIGHT)[0])
    runners = [RectangleRunner()]
    with pytest.raises(MissingDependencyError):
        run(slide, plan_for(slide, runners), runners)


def test_whoever_stops_iterating_stops_the_threads() -> None:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    runners = [RectangleRunner()]
    plan = plan_for(slide, runners, strip_windows=4)
    before = set(threading.enumerate())
    results = run_strips(slide, plan, plan.strips, runners, options=RunOptions(readers=3))
    next(results)
    assert set(threading.enumerate()) > before
    results.close()
    assert set(threading.enumerate()) == before


def test_nothing_to_do_is_done() -> None:
    slide, runners = FakeSlide(scattered(WIDTH, HEIGHT)[0]), [RectangleRunner()]
    assert list(run_strips(slide, plan_for(slide, runners), [], runners)) == []


def test_windows_and_stages_are_counted() -> None:
    slide = FakeSlide(scattered(WIDTH, HEIGHT)[0])
    runners = [RectangleRunner("a"), RectangleRunner("wide", window_px=150)]
    plan, clock = plan_for(slide, runners), StageClock()
    told: list[int] = []
    list(run_strips(slide, plan, plan.strips, runners, clock=clock, on_windows=told.append))
    assert sum(told) == plan.inferences
    timing = clock.report(plan.inferences_of())
    assert timing.counts["read"] == plan.windows
    assert timing.counts["post"] == sum(len(runner.calls) for runner in runners)
    assert [model.windows for model in timing.models] == [len(layout) for layout in plan.layouts]
    assert 0 <= timing.waited_share <= 1
