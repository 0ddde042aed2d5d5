from __future__ import annotations

import threading

from scale.pipeline.channels import Channel, Permits


def test_what_is_put_comes_out_in_order_and_then_there_is_no_more() -> None:
    channel: Channel[int] = Channel(3)
    assert [channel.put(number) for number in (1, 2, 3)] == [True] * 3
    channel.close()
    assert [channel.get() for _ in range(5)] == [1, 2, 3, None, None]


def test_a_full_channel_makes_givers_wait() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    given = threading.Event()

    def give() -> None:
        channel.put(2)
        given.set()

    thread = threading.Thread(target=give)
    thread.start()
    assert not given.is_set()
    assert channel.get() == 1
    thread.join()
    assert channel.get() == 2


def test_stopping_frees_everybody_and_drops_what_is_there() -> None:
    full: Channel[int] = Channel(1)
    full.put(1)
    empty: Channel[int] = Channel()
    permits = Permits(0)
    answers: list[object] = []
    waiting = [
        threading.Thread(target=lambda: answers.append(full.put(2))),
        threading.Thread(target=lambda: answers.append(empty.get())),
        threading.Thread(target=lambda: answers.append(permits.acquire())),
    ]
    for thread in waiting:
        thread.start()
    for one in (full, empty, permits):
        one.stop()
    for thread in waiting:
        thread.join()
    assert sorted(map(str, answers)) == ["False", "False", "None"]
    assert full.get() is None


def test_a_permit_that_is_given_back_can_be_taken_again() -> None:
    permits = Permits(1)
    assert permits.acquire()
    permits.release()
    assert permits.acquire()
