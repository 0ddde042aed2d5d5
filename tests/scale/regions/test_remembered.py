"""What is worked out about a slide is worked out once, whoever asks, and goes with the slide."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from tests.scale.fake_slide import FakeSlide, glass

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


def test_threads_that_ask_at_a_time_share_one_piece_of_work() -> None:
    slide = FakeSlide(glass(8, 8))
    asked = threading.Barrier(4)
    made: list[int] = []
    got: list[int] = []

    def make() -> int:
        made.append(1)
        return 7

    def ask() -> None:
        asked.wait()
        got.append(once(slide, "key", make))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, got) == ([1], [7] * 4)


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
