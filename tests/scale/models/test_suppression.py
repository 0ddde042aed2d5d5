"""Suppression compiled by numba keeps what NumPy's keeps, to the bit."""

from __future__ import annotations

import builtins
import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.detection.nms import nms
from scale.models import suppression
from scale.models.suppression import best_suppression
from scale.models.suppression_numba import nms_by_numba


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from([0.0, 0.3, 0.45, 0.7, 1.0]),
    st.sampled_from([5, 30_000]),
    st.sampled_from([3, 300]),
    st.sampled_from([1, 40]),
)
def test_numba_keeps_what_numpy_keeps(
    seed: int, counts: list[int], iou: float, candidates: int, detections: int, sizes: int
) -> None:
    rng = np.random.default_rng(seed)
    count = sum(counts)
    corners = rng.random((count, 2), np.float32) * 60
    # Some have no area, and some end before they begin.
    boxes = np.concatenate([corners, corners + rng.random((count, 2), np.float32) * sizes - 0.5], axis=1)
    scores = rng.integers(1, 30, count).astype(np.float32) / 30
    classes = rng.integers(0, 80, count).astype(np.int32) // 30
    images = np.repeat(np.arange(len(counts)), counts)
    limits: dict[str, Any] = {"iou": iou, "max_candidates": candidates, "max_detections": detections}
    wanted = nms(boxes, scores, classes, images=images, **limits)
    found = nms_by_numba(boxes, scores, classes, images=images, **limits)
    assert found.tolist() == wanted.tolist()
    if len(counts) <= 1:
        assert nms_by_numba(boxes, scores, classes, **limits).tolist() == wanted.tolist()


def test_many_boxes_and_high_classes() -> None:
    rng = np.random.default_rng(1)
    corners = rng.random((4000, 2), np.float32) * 600
    boxes = np.concatenate([corners, corners + 5 + rng.random((4000, 2), np.float32) * 60], axis=1)
    scores, classes = rng.random(4000, np.float32), rng.integers(0, 80, 4000)
    images = np.sort(rng.integers(0, 4, 4000))
    found = nms_by_numba(boxes, scores, classes, iou=0.45, images=images)
    assert found.tolist() == nms(boxes, scores, classes, iou=0.45, images=images).tolist()
    assert 0 < len(found) < 4000


def test_without_numba_it_is_numpys(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert best_suppression.__wrapped__() is nms_by_numba
    monkeypatch.setattr(suppression, "find_spec", lambda _name: None)
    assert best_suppression.__wrapped__() is nms
    monkeypatch.undo()
    real = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "scale.models.suppression_numba":
            raise RuntimeError("cannot cache function '_nms'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with caplog.at_level(logging.WARNING):
        assert best_suppression.__wrapped__() is nms
    assert "cannot cache function" in caplog.text
