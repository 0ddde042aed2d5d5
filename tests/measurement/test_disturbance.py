"""What others took of a window, which rounds count, and how many threads find a core."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.measurement.fakes import Doubler

from redline.core.tensor import Array
from redline.measurement.disturbance import Disturbance, free_threads, idle_cores, kept_rounds, sound_windows
from redline.measurement.latency import take_turn
from redline.measurement.worker import Source, Worker

X = {"x": np.ones((1, 2), np.float32)}
linux = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux tells")


def delayed(*shares: float) -> list[Disturbance]:
    return [Disturbance(run_delay=share) for share in shares]


def test_a_round_in_which_one_window_was_hit_counts_for_no_cell() -> None:
    rounds = [delayed(0.01, 0.0, 0.02), delayed(0.01, 0.3, 0.02), delayed(0.05, 0.05, 0.05)]
    assert kept_rounds(rounds) == (True, False, True)


def test_a_third_of_the_rounds_is_kept_the_least_disturbed() -> None:
    rounds = [delayed(share) for share in (0.5, 0.2, 0.9, 0.4, 0.3, 0.6, 0.7)]
    assert kept_rounds(rounds) == (False, True, False, True, True, False, False)
    assert kept_rounds([]) == ()


def test_one_tick_of_steal_disturbs_no_round_but_many_do() -> None:
    # A tick of 10 ms is a tenth of a window of 50 ms on two cores.
    quiet = [Disturbance(steal=0.0)] * 9
    one_tick = [*quiet, Disturbance(steal=0.1)]
    stolen = [Disturbance(steal=0.1)] * 10
    assert kept_rounds([one_tick, stolen, one_tick]) == (True, False, True)


def test_a_kernel_that_says_nothing_drops_nothing() -> None:
    assert kept_rounds([[Disturbance()], [Disturbance()]]) == (True, True)
    assert sound_windows((True, False), ()) == (True, False)


def test_of_a_round_kept_though_disturbed_the_windows_that_were_hit_do_not_count() -> None:
    assert sound_windows((True, True, False), delayed(0.2, 0.0, 0.0)) == (False, True, False)
    assert sound_windows((True, True, False), delayed(0.2, 0.3, 0.0)) == (True, True, False), "else none would be left"


def test_threads_are_the_cores_that_others_leave() -> None:
    assert [free_threads(2, busy) for busy in (0.0, 0.2, 0.5, 1.2, 2.0)] == [2, 2, 1, 1, 1]
    assert free_threads(8, 2.3) == 5
    assert free_threads(2, 30.0, cores=64) == 2, "a container's two of 64 cores, 34 of them idle"


STAT = """cpu {all} 0 50 900 10 0 5 20 0 0
cpu0 {first} 10 10 500 5 0 2 10 0 0
cpu1 {second} 0 40 400 5 0 3 10 0 0
intr 1 2 3 4 5 6 7 8 9 10
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
@pytest.mark.usefixtures("on_one_core")
def test_busy_cores_are_those_of_the_cores_that_may_be_used() -> None:
    # user nice system idle iowait irq softirq steal, in hundredths of a second
    (mine,) = os.sched_getaffinity(0)
    before = STAT.replace("cpu0", f"cpu{mine}").replace("cpu1", "cpu99999")
    readings = iter([before.format(all=100, first=40, second=60), before.format(all=300, first=90, second=210)])
    slept: list[float] = []
    assert idle_cores(seconds=1.0, sleep=slept.append, read=lambda: next(readings)) == pytest.approx(0.5)
    assert slept == [1.0]


def test_busy_cores_are_those_of_the_machine_where_no_core_is_told_apart() -> None:
    readings = iter(["cpu 100 0 50 900 10 0 5 20 0 0\n", "cpu 160 10 70 990 30 1 6 39 0 0\n"])
    assert idle_cores(seconds=1.0, sleep=lambda _: None, read=lambda: next(readings)) == pytest.approx(1.11)
    assert idle_cores(seconds=1.0, sleep=lambda _: None, read=lambda: None) is None


class Busy(Doubler):
    """Works until its thread has used a hundredth of a second of a core."""

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        until = _cpu_s() + 0.01
        while _cpu_s() < until:
            pass
        return super().__call__(inputs)


def _cpu_s() -> float:
    import time

    return time.thread_time()


@pytest.fixture
def on_one_core() -> Iterator[None]:
    """This thread, and those that it starts, share one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@linux
@pytest.mark.usefixtures("on_one_core")
def test_a_turn_tells_that_it_waited_for_its_core() -> None:
    # A second thread of this process on the same core: each waits while the other runs.
    done, started = threading.Event(), threading.Event()

    def neighbour() -> None:
        data = np.ones((200, 200))
        while not done.is_set():
            started.set()
            data @ data  # outside of the interpreter's lock

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        started.wait()
        turn = take_turn(Busy(), [X], duration_s=0.0, min_calls=20)
    finally:
        done.set()
        thread.join()
    assert len(turn.samples_s) == 20
    assert turn.disturbance.run_delay is not None
    assert turn.disturbance.run_delay > 0.05
    assert turn.disturbance.switches is not None


@linux
def test_a_worker_says_what_disturbed_its_turn() -> None:
    with Worker(Source(factory="tests.measurement.fakes:make", arguments={})) as worker:
        worker.prepare("x", [X], limit_s=0.0)
        turn = worker.window("x", duration_s=0.0, min_calls=3, max_calls=5)
    assert len(turn.samples_s) == 3
    found = turn.disturbance
    assert all(share is None or 0 <= share <= 1.01 for share in (found.run_delay, found.steal, found.pressure))
