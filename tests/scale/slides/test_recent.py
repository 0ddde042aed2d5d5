from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from scale.slides.recent import Recent


def test_what_was_used_last_stays() -> None:
    dropped: list[str] = []
    recent: Recent[str] = Recent(2, on_drop=dropped.append)
    for key in ("a", "b", "a", "c"):
        recent.get(key, lambda key=key: key)
    assert dropped == ["b"]
    recent.forget()
    assert sorted(dropped) == ["a", "b", "c"]
    assert recent.size == 0


def test_sizes_add_up_and_one_that_is_too_large_is_not_kept() -> None:
    recent: Recent[bytes] = Recent(10, size_of=len)
    recent.get("a", lambda: b"1234")
    recent.get("b", lambda: b"123456")
    assert recent.size == 10
    assert recent.get("c", lambda: b"x" * 11) == b"x" * 11
    assert recent.size == 10


def test_threads_that_want_the_same_make_it_once() -> None:
    recent: Recent[int] = Recent(10)
    made: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def make() -> int:
        begun.set()
        assert go.wait(10)
        made.append(1)
        return 7

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(recent.get, "a", make) for _ in range(4)]
        assert begun.wait(10)
        assert recent.get("b", lambda: 1) == 1  # nobody else has to wait
        go.set()
        assert [one.result(10) for one in asked] == [7] * 4
    assert made == [1]


def test_a_failure_is_not_kept() -> None:
    recent: Recent[int] = Recent(10)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: 5) == 5
