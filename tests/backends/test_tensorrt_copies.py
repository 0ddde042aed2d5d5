"""Copies between page-locked and ordinary arrays, by several threads where they are large; needs no GPU."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

from redline.backends.tensorrt.lane import Shared


@pytest.fixture
def shared():
    one = Shared.__new__(Shared)
    one.copiers = None
    yield one
    if one.copiers is not None:
        one.copiers.shutdown()


@pytest.mark.parametrize("shape", [(0, 4), (3, 5), (1, 2_000_000), (3, 700_000), (33, 70_000)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_is_whole_and_ones_own(shared, shape, dtype):
    source = np.random.default_rng(0).random(shape, np.float32)
    copy = shared.copied(source, np.dtype(dtype))
    assert copy.dtype == dtype
    assert not np.shares_memory(copy, source)
    assert np.array_equal(copy, source)


def test_integers_become_what_the_model_calls_them(shared):
    source = np.arange(3_000_000, dtype=np.int32).reshape(3, -1)
    assert np.array_equal(shared.copied(source, np.dtype(np.int64)), source)


def test_an_input_is_staged_part_by_part(shared):
    source = np.random.default_rng(0).integers(0, 256, (9, 3, 500, 500), np.uint8)
    target = np.zeros_like(source)
    parts = list(shared.staged("images", target, source))
    assert len(parts) > 1
    assert np.array_equal(np.concatenate(parts), source)
    assert np.array_equal(target, source)
