"""Whoever merges strips waits for those that are still searched, and for no others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError

import pytest

from scale.pipeline.arrivals import Arrivals, StoppedError


def test_a_strip_is_waited_for_until_it_is_there() -> None:
    arrivals = Arrivals({3})
    arrivals.wait(3)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(arrivals.wait, strip) for strip in (5, 4)]
        arrivals.add(4)
        waiting[1].result(timeout=10)
        with pytest.raises(NotYetError):
            waiting[0].result(timeout=0.05)
        arrivals.add(5)
        waiting[0].result(timeout=10)


def test_nobody_waits_or_goes_on_when_it_is_stopped() -> None:
    arrivals = Arrivals({1})
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(arrivals.wait, 0)
        arrivals.stop()
        with pytest.raises(StoppedError):
            waiting.result(timeout=10)
    with pytest.raises(StoppedError):
        arrivals.wait(1)
