"""Detections of single windows into the frame of the slide, each with its window and the edges that cut it."""

from __future__ import annotations

from collections.abc import Sequence

from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.merging.found import CUT_TOLERANCE_PX, Found
from scale.pipeline.plan import Group, Layout


def localize(detections: Sequence[Detections], rows: Array, columns: Array, layout: Layout, group: Group) -> Found:
    """Bring what was found in some windows into level-0 pixels.

    Args:
        detections: Of each window, in pixels as it was read.
        rows: Of each window.
        columns: Of each window.
        layout: Of the windows.
        group: Of the layout.
    """
    # What a model is sure of to a pixel of its input is sure to so many pixels of the slide.
    tolerance_px = CUT_TOLERANCE_PX * max(1.0, group.window_px / group.input_px)
    parts = []
    for found, row, column in zip(detections, rows.tolist(), columns.tolist(), strict=True):
        if not len(found):
            continue
        window = layout.grid.window(row, column)
        own = (found if group.scale == 1 else found.scaled(group.scale)).shifted(window.x0, window.y0)
        parts.append(Found.in_window(own, window, inner=int(layout.edges[row, column]), tolerance_px=tolerance_px))
    return Found.concatenate(parts)
