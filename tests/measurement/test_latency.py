"""The clock, and what is timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from tests.measurement.test_worker import Clock

from redline.core.tensor import Array, Signature
from redline.measurement.latency import clock_resolution_s, harness_overhead_s, time_pipeline


def test_the_resolution_is_the_smallest_step_of_the_clock() -> None:
    readings: Iterator[float] = iter([0.0, 0.0, 5.0, 7.0, 7.0, 10.0])
    assert clock_resolution_s(clock=lambda: next(readings), readings=6) == 2.0
    assert clock_resolution_s(clock=lambda: 1.0) == float("inf")
    assert 0 < clock_resolution_s() < 1


def test_the_overhead_is_what_lies_between_two_readings_of_the_clock() -> None:
    clock = Clock()

    def ticking() -> float:
        clock.now += 3.0
        return clock.now

    assert harness_overhead_s(clock=ticking, calls=5) == 3.0
    assert 0 <= harness_overhead_s(calls=100) < 1


class Loaded:
    """A loader whose batches take 2 s each in line and are settled after so many; 1 s in the background."""

    def __init__(self, clock: Clock, settle_after: int) -> None:
        self.clock, self.settle_after = clock, settle_after
        self.made = self.closed = 0

    def batches(self, *, prefetch: bool) -> Loaded:
        self.cost_s = 1.0 if prefetch else 2.0
        return self

    @property
    def settled(self) -> bool:
        return self.made >= self.settle_after

    def __next__(self) -> Mapping[str, Array]:
        self.made += 1
        self.clock.now += self.cost_s
        return {"n": np.array(self.made)}

    def close(self) -> None:
        self.closed += 1


class Session:
    """Takes 10 s, then 0.5 s longer with each batch; fails at the fifth when told to."""

    signature = Signature((), ())

    def __init__(self, clock: Clock, fails: bool = False) -> None:
        self.clock, self.fails = clock, fails

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        self.clock.now += 10 + float(inputs["n"]) / 2
        if self.fails and inputs["n"] == 5:
            raise ValueError("fifth")
        return {}

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize(("prefetch", "cost_s"), [(True, 1.0), (False, 2.0)])
def test_a_pipeline_is_timed_from_batch_to_answer_once_it_is_settled(prefetch: bool, cost_s: float) -> None:
    clock = Clock()
    loader = Loaded(clock, settle_after=3)
    samples = time_pipeline(Session(clock), loader, duration_s=25, prefetch=prefetch, clock=clock)
    assert samples == [cost_s + 12, cost_s + 12.5]
    assert loader.closed == 1


def test_a_pipeline_has_its_least_calls_and_is_closed_after_an_error() -> None:
    clock = Clock()
    loader = Loaded(clock, settle_after=0)
    assert len(time_pipeline(Session(clock), loader, duration_s=0, min_calls=3, prefetch=True, clock=clock)) == 3
    with pytest.raises(ValueError, match="fifth"):
        time_pipeline(Session(clock, fails=True), loader, duration_s=1e9, prefetch=True, clock=clock)
    assert loader.closed == 2
