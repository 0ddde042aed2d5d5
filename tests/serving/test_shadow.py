from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from redline.core.errors import ArtifactError, InputError
from redline.core.tensor import Array
from redline.serving import shadow as module
from redline.serving.metrics import Metrics
from redline.serving.shadow import RECENT, Shadow, difference

WAIT_S = 20.0
NO_INPUTS: Mapping[str, Array] = {}


def scores(*classes: int, height: float = 1.0) -> dict[str, Array]:
    """Answers of a classifier of 4 classes."""
    rows = np.zeros((len(classes), 4), np.float32)
    rows[np.arange(len(classes)), list(classes)] = height
    return {"y": rows}


def echo(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """A reference whose answer is its input."""
    return dict(inputs)


@contextmanager
def shadowing(
    reference: Any = echo, rate: float = 1.0, metrics: Metrics | None = None, **told: Any
) -> Iterator[Shadow]:
    made = Shadow(reference, rate, metrics, model="q", **told)
    try:
        yield made
    finally:
        made.close()


def offer(shadow: Shadow, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Offer one and wait until it is compared, so that none is dropped."""
    shadow.offer(inputs, outputs)
    assert shadow.wait_idle(WAIT_S)


def test_answers_that_agree_are_counted() -> None:
    with shadowing() as shadow:
        for _ in range(5):
            offer(shadow, scores(1, 2), scores(1, 2))
        found = shadow.summary()
    assert (found["model"], found["reference"], found["rate"]) == ("q", "reference", 1.0)
    assert (found["sampled"], found["compared"], found["rows"]) == (5, 5, 10)
    assert (found["disagreed"], found["rows_disagreed"], found["disagreement"]) == (0, 0, 0.0)
    assert found["error"] == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    assert found["recent"] == []


def test_another_first_class_is_counted_row_by_row_and_shown_without_inputs() -> None:
    with shadowing(clock=lambda: 123.0) as shadow:
        offer(shadow, scores(0, 1, 2), scores(0, 3, 2))
        offer(shadow, scores(0), scores(0))
        found = shadow.summary()
    assert (found["disagreed"], found["rows_disagreed"], found["rows"]) == (1, 1, 4)
    assert found["disagreement"] == 0.25
    (one,) = found["recent"]
    assert one == {"when_s": 123.0, "served": 3, "reference": 1, "error": pytest.approx((2 / 3) ** 0.5)}
    json.dumps(found, allow_nan=False)


def test_the_newest_disagreements_are_kept() -> None:
    when = iter(range(100))
    with shadowing(clock=lambda: float(next(when))) as shadow:
        for _ in range(RECENT + 5):
            offer(shadow, scores(0), scores(1))
        found = shadow.summary()
    assert [one["when_s"] for one in found["recent"]] == [float(n) for n in range(RECENT + 4, 4, -1)]


def test_errors_have_a_distribution() -> None:
    with shadowing() as shadow:
        for percent in range(1, 101):
            offer(shadow, scores(1), scores(1, height=1 + percent / 100))
        error = shadow.summary()["error"]
    assert error["p50"] == pytest.approx(0.51)
    assert error["p90"] == pytest.approx(0.91)
    assert error["max"] == pytest.approx(1.0)


def test_a_reservoir_of_errors_stands_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESERVOIR", 64)
    with shadowing() as shadow:
        for percent in range(600):
            offer(shadow, scores(1), scores(1, height=1 + percent / 600))
        error = shadow.summary()["error"]
        assert len(shadow._figures._errors) == 64
    assert 0.3 < error["p50"] < 0.7
    assert error["max"] == pytest.approx(599 / 600)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5])
def test_the_sample_is_a_share_and_the_same_for_a_seed(rate: float) -> None:
    def sampled(seed: int) -> list[int]:
        taken: list[int] = []
        with shadowing(lambda inputs: taken.append(int(inputs["n"][0])) or {"y": inputs["n"]}, rate, seed=seed) as one:
            for number in range(1000):
                offer(one, {"n": np.array([number])}, {"y": np.array([number])})
        return taken

    first = sampled(7)
    assert first == sampled(7)
    assert abs(len(first) - 1000 * rate) < 60
    if rate:
        assert first != sampled(8)


def test_what_finds_the_reference_busy_is_dropped_and_counted() -> None:
    inside, go = threading.Event(), threading.Event()

    def slow(inputs: Mapping[str, Array]) -> dict[str, Array]:
        inside.set()
        assert go.wait(WAIT_S)
        return dict(inputs)

    metrics = Metrics()
    with shadowing(slow, metrics=metrics, queue=3) as shadow:
        shadow.offer(scores(1), scores(1))
        assert inside.wait(WAIT_S)
        for _ in range(10):
            shadow.offer(scores(1), scores(1))
        assert shadow.summary()["dropped"] == 7
        go.set()
        assert shadow.wait_idle(WAIT_S)
        assert shadow.summary()["compared"] == 4
        offer(shadow, scores(1), scores(1))
        assert shadow.summary()["compared"] == 5
    assert 'redline_shadow_dropped_total{model="q",reference="reference"} 7.0' in metrics.text().decode()


def test_metrics_are_told() -> None:
    metrics = Metrics()
    with shadowing(metrics=metrics, name="fp32") as shadow:
        offer(shadow, scores(0), scores(1))
        offer(shadow, scores(0), scores(0))
    text = metrics.text().decode()
    labels = '{model="q",reference="fp32"}'
    assert f"redline_shadow_requests_total{labels} 2.0" in text
    assert f"redline_shadow_disagreements_total{labels} 1.0" in text
    assert f"redline_shadow_error_count{labels} 2.0" in text


def test_a_reference_that_fails_is_counted_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fails_on_two(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if len(inputs["y"]) == 2:
            raise ArtifactError("two rows are too many")
        return dict(inputs)

    with shadowing(fails_on_two) as shadow:
        for _ in range(3):
            offer(shadow, scores(1, 1), scores(1, 1))
        offer(shadow, scores(1), scores(1))
        found = shadow.summary()
    assert (found["failed"], found["compared"], found["last_failure"]) == (3, 1, "two rows are too many")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": np.zeros((1, 5), np.float32)},
        {"z": np.zeros(1, np.float32), "w": np.zeros(1, np.float32)},
        {"y": np.array(["a"])},
        {},
    ],
)
def test_answers_that_cannot_be_compared_are_failures(outputs: dict[str, Array]) -> None:
    with shadowing() as shadow:
        offer(shadow, scores(1), outputs)
        offer(shadow, scores(1), scores(1))
        assert (shadow.summary()["failed"], shadow.summary()["compared"]) == (1, 1)


def test_nan_is_a_disagreement_and_no_error_in_json() -> None:
    nan, zero = {"y": np.full((1, 4), np.nan, np.float32)}, {"y": np.zeros((1, 4), np.float32)}
    with shadowing(metrics=Metrics()) as shadow:
        offer(shadow, scores(1), nan)
        offer(shadow, zero, scores(1))
        found = shadow.summary()
    assert found["rows_disagreed"] == 2
    json.dumps(found, allow_nan=False)


def test_what_is_no_classifier_has_an_error_and_no_classes() -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    found = difference(
        {"boxes": boxes, "count": np.array([3])}, {"boxes": boxes * np.float32(1.5), "count": np.array([3])}
    )
    assert found.relative_error == pytest.approx(0.5)
    assert (found.rows, found.classes) == (0, ())
    with shadowing() as shadow:
        offer(shadow, {"boxes": boxes}, {"boxes": boxes})
        assert shadow.summary()["disagreement"] is None


def test_outputs_of_other_names_are_compared_by_position() -> None:
    assert difference(scores(1, 2), {"logits": scores(1, 3)["y"]}).classes == ((3, 2),)


def test_offering_waits_for_nothing() -> None:
    """Neither a run that never ends nor a lock that somebody holds keeps the caller of an unsampled offer waiting."""
    go = threading.Event()
    with shadowing(lambda inputs: go.wait(WAIT_S) and dict(inputs), rate=1.0, queue=1) as shadow:
        shadow.offer(NO_INPUTS, NO_INPUTS)
        shadow.rate = 0.0
        with shadow._lock:
            shadow.offer(NO_INPUTS, NO_INPUTS)
        go.set()


def test_nothing_of_a_request_is_kept_once_it_was_compared() -> None:
    import weakref

    class Traced(np.ndarray[Any, Any]):
        pass

    array = np.ones((1, 4), np.float32).view(Traced)
    gone = threading.Event()
    alive = weakref.ref(array, lambda _: gone.set())
    with shadowing(lambda inputs: {"y": np.ones((1, 4), np.float32)}) as shadow:
        offer(shadow, {"x": array}, scores(1))
        del array
        assert gone.wait(WAIT_S)
        assert alive() is None


def test_closing_ends_within_a_second_although_the_reference_runs() -> None:
    inside, go = threading.Event(), threading.Event()

    def slow(inputs: Mapping[str, Array]) -> dict[str, Array]:
        inside.set()
        assert go.wait(WAIT_S)
        return dict(inputs)

    shadow = Shadow(slow, 1.0)
    shadow.offer(scores(1), scores(1))
    assert inside.wait(WAIT_S)
    begun = time.monotonic()
    shadow.close()
    assert time.monotonic() - begun < 1.0  # what is promised
    assert not shadow.stopped
    shadow.offer(scores(1), scores(1))
    shadow.close()
    go.set()
    for thread in shadow._threads:
        thread.join(WAIT_S)
    assert shadow.stopped


def test_closing_an_idle_one_ends_its_threads() -> None:
    shadow = Shadow(echo, 1.0)
    offer(shadow, scores(1), scores(1))
    shadow.close()
    assert not any(thread.is_alive() for thread in shadow._threads)


def test_the_reference_runs_with_low_priority() -> None:
    import os
    import sys

    if sys.platform != "linux":
        pytest.skip("only Linux has a priority for each thread")
    priorities: list[int] = []

    def reference(inputs: Mapping[str, Array]) -> dict[str, Array]:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return dict(inputs)

    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with shadowing(reference) as shadow:
        offer(shadow, scores(1), scores(1))
    assert priorities[0] > mine or mine >= 10
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine


@pytest.mark.parametrize(("rate", "queue"), [(-0.1, 8), (1.5, 8), (float("nan"), 8), (0.5, 0)])
def test_a_wrong_rate_or_queue_is_refused(rate: float, queue: int) -> None:
    with pytest.raises(InputError, match="expected"):
        Shadow(echo, rate, queue=queue)
