"""Detections of single windows into the frame of the slide, each with its window and the edges that cut it."""

from __future__ import annotations

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import BatchDetections
from scale.merging.found import CUT_TOLERANCE_PX, Found
from scale.pipeline.plan import Group, Layout


def localize(found: BatchDetections, rows: Array, columns: Array, layout: Layout, group: Group) -> Found:
    """Bring what was found in some windows into level-0 pixels.

    Args:
        found: Of each window, in pixels as it was read.
        rows: Of each window.
        columns: Of each window.
        layout: Of the windows.
        group: Of the layout.
    """
    # What a model is sure of to a pixel of its input is sure to so many pixels of the slide.
    tolerance_px = CUT_TOLERANCE_PX * max(1.0, group.window_px / group.input_px)
    row, column = rows[found.images], columns[found.images]
    x0, y0 = layout.xs[column], layout.ys[row]
    own = found.detections if group.scale == 1 else found.detections.scaled(group.scale)
    return Found.in_windows(
        own.shifted(x0, y0),
        windows=row * layout.grid.columns + column,
        corners=np.stack([x0, y0], axis=1),
        size_px=layout.grid.window_px,
        inner=layout.edges[row, column],
        tolerance_px=tolerance_px,
    )
