"""What is worked out about a slide is worked out once, whoever asks, and goes with the slide."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from tests.scale.fake_slide import FakeSlide, glass

from scale.regions import remembered
from scale.regions.remembered import once


def test_each_slide_and_key_has_its_own_value() -> None:
    one, two = FakeSlide(glass(8, 8)), FakeSlide(glass(8, 8))
    assert once(one, "key", lambda: 1) == 1
    assert once(one, "key", lambda: 2) == 1
    assert once(one, "other", lambda: 3) == 3
    assert once(two, "key", lambda: 4) == 4


def test_a_value_may_need_another_one() -> None:
    slide = FakeSlide(glass(8, 8))
    assert once(slide, "outer", lambda: once(slide, "inner", lambda: 5) + 1) == 6


def test_while_one_thread_works_others_wait_and_then_share_its_value() -> None:
    slide = FakeSlide(glass(8, 8))
    could_enter: list[bool] = []

    def try_to_enter() -> None:
        could_enter.append(remembered._OF_SLIDES[slide].lock.acquire(blocking=False))

    def make() -> int:
        other = threading.Thread(target=try_to_enter)
        other.start()
        other.join()
        return 7

    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(once(slide, "key", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert could_enter == [False]
    assert got == [7] * 4


def test_what_fails_is_tried_again() -> None:
    slide = FakeSlide(glass(8, 8))

    def fail() -> int:
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        once(slide, "key", fail)
    assert once(slide, "key", lambda: 8) == 8


def test_nothing_keeps_a_slide_alive() -> None:
    slide = FakeSlide(glass(8, 8))
    once(slide, "key", lambda: 1)
    gone = weakref.ref(slide)
    del slide
    gc.collect()
    assert gone() is None
