"""Tiles are decoded once, kept up to a number of bytes, and the ones used last stay longest."""

import threading
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.core.errors import DataError, InputError
from scale.slides.cache import TileCache, shared_cache

PATIENCE_S = 20


def tile(size_bytes=100, value=1):
    return np.full(size_bytes, value, np.uint8)


def in_thread(function):
    """Run it in a thread; join() of what comes back returns its result or its error."""
    found = []

    def run():
        try:
            found.append(function())
        except BaseException as error:  # noqa: BLE001 (an interrupt is what one test sends)
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join():
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        return found[0]

    return join


def until(condition):
    pause = threading.Event()
    for _ in range(PATIENCE_S * 1000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came true")


def two_at_once(cache, decode, second=None):
    """Ask for one tile from two threads, so that the second asks while the first decodes."""
    decoding, go_on = threading.Event(), threading.Event()

    def slow():
        decoding.set()
        assert go_on.wait(PATIENCE_S)
        return decode()

    first = in_thread(lambda: cache.get("k", slow))
    assert decoding.wait(PATIENCE_S)
    other = in_thread(lambda: cache.get("k", second or decode))
    until(lambda: cache.stats().hits == 1)
    go_on.set()
    return first(), other()


def test_two_threads_decode_a_tile_once():
    cache, calls = TileCache(), []
    one, two = two_at_once(cache, lambda: calls.append(1) or tile())
    assert one is two
    assert len(calls) == 1
    assert (cache.stats().misses, cache.stats().hits) == (1, 1)


def test_a_tile_that_fails_fails_for_both_and_is_tried_again():
    cache = TileCache()

    def broken():
        raise DataError("tile 7 is cut short")

    for error in two_at_once(cache, broken):
        assert isinstance(error, DataError)
    assert cache.stats().tiles == 0
    assert cache.get("k", tile).size == 100


def test_who_waits_for_an_interrupted_thread_decodes_by_itself():
    def interrupted():
        raise KeyboardInterrupt

    one, two = two_at_once(TileCache(), interrupted, second=tile)
    assert isinstance(one, KeyboardInterrupt)
    assert two.size == 100


def test_the_tile_used_longest_ago_goes_first():
    cache = TileCache(300)
    for key in "abc":
        cache.get(key, tile)
    cache.get("a", tile)
    cache.get("d", tile)
    misses = cache.stats().misses
    cache.get("a", tile)
    assert cache.stats().misses == misses
    cache.get("b", tile)
    assert cache.stats().misses == misses + 1


def test_a_tile_larger_than_the_cache_is_not_kept():
    cache = TileCache(99)
    assert cache.get("a", tile).size == 100
    assert cache.stats().size_bytes == 0


def test_forget_drops_the_tiles_of_one_owner():
    cache = TileCache()
    for key in ((1, "a"), (1, "b"), (2, "a")):
        cache.get(key, tile)
    cache.forget(lambda key: key[0] == 1)
    assert (cache.stats().tiles, cache.stats().size_bytes) == (1, 100)


def test_a_negative_size_is_refused_and_the_shared_cache_is_one():
    with pytest.raises(InputError, match="-1 bytes"):
        TileCache(-1)
    assert shared_cache() is shared_cache()
    assert shared_cache().capacity == 512 << 20


@settings(max_examples=100)
@given(st.integers(0, 500), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 200)), max_size=60))
def test_it_does_as_a_simple_model_of_it(capacity, asked):
    cache, model, sizes = TileCache(capacity), OrderedDict(), {}
    for key, size in asked:
        size = sizes.setdefault(key, size)
        before = cache.stats().misses
        assert cache.get(key, lambda size=size: tile(size)).size == size
        assert (cache.stats().misses == before) == (key in model)
        if key in model:
            model.move_to_end(key)
        elif size <= capacity:
            model[key] = size
            while sum(model.values()) > capacity:
                model.popitem(last=False)
        assert cache.stats().size_bytes == sum(model.values()) <= capacity
