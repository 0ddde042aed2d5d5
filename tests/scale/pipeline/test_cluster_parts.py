"""What a cluster run is made of, without a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.scale.pipeline.fakes import RectangleRunner

from redline.core.errors import DataError, DeviceError, InputError
from redline.core.files import sha256_of
from scale.pipeline.cluster import side_by_side
from scale.pipeline.cluster_chunks import Chunk, chunks_of, missing
from scale.pipeline.cluster_likeness import other_file, software, why_other
from scale.pipeline.cluster_places import places_of, wants_gpus
from scale.pipeline.cluster_queue import SlideQueue
from scale.pipeline.plan import Plan, PlanOptions, SlideShape, make_plan, reading_order
from scale.pipeline.timing import StageClock
from scale.regions.grid import Region
from scale.slides.base import Level


@pytest.fixture
def plan() -> Plan:
    shape = SlideShape(levels=(Level(width_px=2000, height_px=1500, downsample=1.0),), mpp=None)
    region = Region(name="slide", x0=0, y0=0, width_px=2000, height_px=1500)
    runners = [RectangleRunner(), RectangleRunner("wide", window_px=256, form="wide")]
    return make_plan(shape, [region], [one.shape for one in runners], PlanOptions(strip_windows=12))


def test_chunks_hold_every_strip_once_in_the_order_of_reading(plan: Plan) -> None:
    chunks = chunks_of(plan, plan.strips, workers=3, window_s=0.01)
    order = [strip for chunk in chunks for strip in chunk.strips]
    assert sorted(order) == list(range(len(plan.strips)))
    owner, _ = reading_order(plan, plan.strips)
    first = [int(np.flatnonzero(owner == strip)[0]) for strip in order]
    assert first == sorted(first)
    assert sum(chunk.windows for chunk in chunks) == plan.inferences


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_every_worker_gets_several_chunks_of_a_large_slide(plan: Plan, workers: int) -> None:
    chunks = chunks_of(plan, plan.strips, workers=workers, window_s=0.01)
    assert len(chunks) >= min(4 * workers, len(plan.strips))
    if workers == 1:
        assert len(chunks) < len(plan.strips) / 4


def test_a_fast_model_gets_larger_chunks(plan: Plan) -> None:
    many = plan.strips * 20
    sizes = [max(chunk.windows for chunk in chunks_of(plan, many, workers=1, window_s=s)) for s in (1.0, 0.0001)]
    assert sizes[0] <= 1024 < sizes[1]


def test_chunks_of_what_is_left(plan: Plan) -> None:
    left = plan.strips[5:8]
    assert sorted(strip for chunk in chunks_of(plan, left, workers=1, window_s=0.01) for strip in chunk.strips) == [
        5,
        6,
        7,
    ]
    assert chunks_of(plan, [], workers=2, window_s=0.01) == []


def test_a_strip_that_nobody_could_do_names_every_window(plan: Plan) -> None:
    strip = plan.strips[-1]
    result = missing(plan, strip.index, "no luck")
    assert (result.strip, len(result)) == (strip.index, 0)
    assert len(result.failures) == len(strip)
    places = {(failure.x0, failure.y0) for failure in result.failures}
    grid = plan.layouts[strip.layout].grid
    expected = zip(strip.rows.tolist(), strip.columns.tolist(), strict=True)
    assert places == {(grid.columns_x0[column], grid.rows_y0[row]) for row, column in expected}
    assert {failure.reason for failure in result.failures} == {"WorkerError: no luck"}


def queue(plan: Plan, count: int = 3) -> tuple[SlideQueue, list[Chunk]]:
    chunks = [Chunk(strips=(number,), windows=1) for number in range(count)]
    return SlideQueue("work", plan, chunks), chunks


def test_a_queue_gives_each_chunk_once_and_ends_with_the_last_answer(plan: Plan) -> None:
    here, chunks = queue(plan)
    taken = [here.take("a", {"a"}) for _ in range(4)]
    assert taken == [*chunks, None]
    for chunk in chunks:
        here.deliver(chunk, [], None)
    assert [chunk for chunk, _, _ in here.results()] == chunks


def test_a_chunk_that_failed_goes_elsewhere_where_there_is_an_elsewhere(plan: Plan) -> None:
    here, (first, second) = queue(plan, 2)
    assert here.take("a", {"a", "b"}) is first
    here.died(first, "a", "killed")
    assert here.take("a", {"a", "b"}) is second
    assert here.take("a", {"a", "b"}) is None
    assert here.take("b", {"a", "b"}) is first
    here.died(first, "b", "killed")
    assert here.take("a", {"a", "b"}) is first
    assert first.attempts == 2


def test_after_three_deaths_the_windows_are_missing_and_the_rest_goes_on(plan: Plan) -> None:
    here, (first, second) = queue(plan, 2)
    here.deliver(second, [], None)
    for place in "abc":
        here.died(first, place, "killed")
    (_, none, _), (_, results, _) = here.results()
    assert list(none) == []
    assert [len(result.failures) for result in results] == [len(plan.strips[0])]


def test_after_three_refusals_the_slide_has_failed(plan: Plan) -> None:
    here, (first, _) = queue(plan, 2)
    here.refused(first, "a", "tile 7 is torn")
    here.refused(first, "b", "tile 7 is torn")
    assert here.take("c", {"c"}) is first
    here.refused(first, "c", "tile 7 is torn")
    with pytest.raises(DataError, match="c: tile 7 is torn"):
        list(here.results())
    assert here.take("c", {"c"}) is None


def test_a_chunk_that_nobody_began_is_first_again_and_not_counted(plan: Plan) -> None:
    here, (first, _) = queue(plan, 2)
    assert here.take("a", {"a"}) is first
    here.give_back(first)
    assert here.take("a", {"a"}) is first
    assert first.attempts == 0


def test_a_slide_whose_answers_are_not_saved_gets_no_more_work(plan: Plan) -> None:
    here, _ = queue(plan, 12)
    for _ in range(8):
        chunk = here.take("a", {"a"})
        assert chunk is not None
        here.deliver(chunk, [], None)
    assert here.take("a", {"a"}) is None
    results = here.results()
    next(results)
    next(results)  # whoever asks for the second has saved the first
    assert here.take("a", {"a"}) is not None


def test_whoever_waits_for_results_gets_the_error(plan: Plan) -> None:
    here, _ = queue(plan)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            list(here.results())
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    here.fail(KeyboardInterrupt())
    thread.join()
    assert [type(error) for error in raised] == [KeyboardInterrupt]


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name * 8, "NodeManagerHostname": name, "Alive": alive, "Resources": resources}


def test_workers_are_on_every_gpu_where_there_are_any() -> None:
    nodes = [node("a", CPU=16.0, GPU=4.0), node("b", CPU=64.0), node("c", alive=False, CPU=4.0, GPU=1.0)]
    assert wants_gpus(nodes, "auto")
    places = places_of(nodes, gpus=True, threads=0)
    assert [(place.host, place.number, place.cores) for place in places] == [("a", n, 4) for n in range(4)]
    assert places[0].demands() == {"num_gpus": 1, "num_cpus": 0}
    assert not wants_gpus(nodes, "cpu")
    assert not wants_gpus(nodes[1:], "auto")


@pytest.mark.parametrize(("threads", "cores"), [(0, [16, 3]), (6, [6, 6, 3]), (2, [2] * 9)])
def test_without_gpus_workers_share_the_cores(threads: int, cores: list[int]) -> None:
    places = places_of([node("a", CPU=16.0), node("head"), node("b", CPU=3.0)], gpus=False, threads=threads)
    assert [place.cores for place in places] == cores
    assert len({place.name for place in places}) == len(places)
    assert places[0].demands() == {"num_gpus": 0, "num_cpus": cores[0]}


def test_devices_that_a_cluster_does_not_have() -> None:
    with pytest.raises(DeviceError, match="no GPU"):
        wants_gpus([node("a", CPU=16.0)], "cuda")
    with pytest.raises(InputError, match="got device 'cuda:1'"):
        wants_gpus([node("a", GPU=2.0)], "cuda:1")


def test_other_software_is_told_by_name() -> None:
    here = software()
    assert {"redline", "numpy", "onnxruntime", "the code"} <= set(here)
    assert why_other(here, dict(here)) is None
    assert why_other(here, {**here, "tensorrt": "11"}) is None
    told = why_other(here, {**here, "numpy": "1.0", "the code": "abc"})
    assert told is not None
    assert f"numpy is 1.0 there and {here['numpy']} here" in told
    assert "the code is abc there" in told
    assert "not installed there" in (why_other(here, {}) or "")


def test_another_model_file_under_the_same_path_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"one")
    assert other_file("m", str(file), sha256_of(file)) is None
    assert other_file("m", str(tmp_path / "elsewhere.engine"), "0" * 64) is None
    assert "of model m has the digest 000000000000 there" in (other_file("m", str(file), "0" * 64) or "")


def test_time_spent_elsewhere_is_added_up() -> None:
    far = StageClock(iter(range(100)).__next__)
    far.begin_models()
    far.add("read", 3.0, count=5)
    far.add("wait:m", 1.0)
    with far.busy("infer:m"):
        pass
    timing = far.report({"m": 7})
    here = StageClock(lambda: 0.0)
    here.add_elsewhere(timing)
    here.add_elsewhere(timing)
    both = here.report({"m": 14})
    assert (both.stages_s["read"], both.counts["read"]) == (6.0, 10)
    assert (both.models[0].infer_s, both.models[0].waited_s) == (2.0, 2.0)
    assert both.waited_share == pytest.approx(timing.waited_share)
    assert 0 < timing.waited_share < 1


def test_calls_beside_each_other_give_their_answers_in_order() -> None:
    gate = threading.Event()

    def slow() -> int:
        assert gate.wait(30)
        return 0

    def fast() -> int:
        gate.set()
        return 1

    assert side_by_side([slow, fast, lambda: 2, lambda: 3, lambda: 4, lambda: 5], lambda: None) == [0, 1, 2, 3, 4, 5]


def test_an_error_of_one_call_stops_the_others_and_waits_for_them() -> None:
    stopped = threading.Event()
    ended: list[bool] = []

    def wait() -> None:
        ended.append(stopped.wait(30))

    def broken() -> None:
        raise KeyboardInterrupt

    calls: list[Callable[[], None]] = [broken, wait, wait]
    with pytest.raises(KeyboardInterrupt):
        side_by_side(calls, stopped.set)
    assert set(ended) <= {True}
