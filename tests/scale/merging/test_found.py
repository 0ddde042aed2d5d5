"""Found knows which boxes a window's edge cut, and refuses what does not fit together."""

from __future__ import annotations

import numpy as np
import pytest
from tests.scale.merging.scenes import WINDOW_PX, boxes_of, found_of, grid_of

from redline.core.errors import DataError, InputError
from redline.detection.results import Detections
from scale.merging import BOTTOM, LEFT, RIGHT, TOP, Found, merge


def detections(*boxes: list[float]) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32), scores=np.full(count, 0.5, np.float32), classes=np.zeros(count, np.int32)
    )


def test_edges_that_a_box_touches_are_cuts_where_a_window_lies_beyond() -> None:
    window = grid_of(250, 25).window(1, 1)
    x, y = window.x0, window.y0
    given = detections(
        [x + 1.5, y + 1.6, x + 40, y + 40],
        [x + 50, y, x + WINDOW_PX - 1.5, y + 40],
        [x + 50, y + 50, x + 60, y + WINDOW_PX],
        [x + 2, y + 2, x + 98, y + 98],
    )
    every = Found.in_window(given, window, inner=15)
    assert every.cuts.tolist() == [LEFT, TOP | RIGHT, BOTTOM, 0]
    assert Found.in_window(given, window, inner=RIGHT | BOTTOM).cuts.tolist() == [0, RIGHT, BOTTOM, 0]
    assert Found.in_window(given, window, inner=15, tolerance_px=2).cuts.tolist()[3] == 15
    assert every.windows.tolist() == [window.index] * 4


def test_take_and_concatenate_keep_all_that_is_known() -> None:
    found = found_of(([0, 0, 1, 1], 0.5, 0, 3, 1), ([1, 1, 2, 2], 0.6, 1, 4, 2))
    both = Found.concatenate([found.take(np.array([1])), Found.empty(), found.take(np.array([True, False]))])
    assert (both.windows.tolist(), both.cuts.tolist(), both.detections.classes.tolist()) == ([4, 3], [2, 1], [1, 0])
    assert boxes_of(both) == [[1, 1, 2, 2], [0, 0, 1, 1]]
    assert len(Found.concatenate([])) == 0


def test_windows_and_cuts_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match="1 detections, windows of shape"):
        Found(detections([0, 0, 1, 1]), np.zeros(2, np.int64), np.zeros(1, np.uint8))


@pytest.mark.parametrize("box", [[0, 0, np.nan, 1], [0, 0, np.inf, 1], [5, 0, 4, 1], [0, 5, 1, 4]])
def test_boxes_that_are_none_are_refused(box: list[float]) -> None:
    with pytest.raises(DataError, match="detection 1 of 2 .window 7."):
        merge(found_of(([0, 0, 1, 1], 0.5, 0, 0, 0), (box, 0.5, 0, 7, 0)))


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="score nan"):
        merge(found_of(([0, 0, 1, 1], float("nan"), 0, 0, 0)))
