"""A grid of square cells over boxes, so that only boxes in the same cells are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redline.core.tensor import Array

_MOST_CELLS_EACH = 6
_SPARE_CELLS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Where the cells lie.

    Attributes:
        x0: Left edge of the first column.
        y0: Top edge of the first row.
        side_px: Of a cell.
        columns: How many there are.
        rows: How many there are.
    """

    x0: float
    y0: float
    side_px: float
    columns: int
    rows: int

    def spans(self, boxes: Array) -> tuple[Array, Array, Array, Array]:
        """First column, first row, last column and last row of the cells that each box lies in."""
        columns = ((boxes[:, ::2] - self.x0) // self.side_px).astype(np.int64).clip(0, self.columns - 1)
        rows = ((boxes[:, 1::2] - self.y0) // self.side_px).astype(np.int64).clip(0, self.rows - 1)
        return columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]


def cells_over(boxes: Array) -> Cells:
    """Cells about twice as wide as the boxes; larger where boxes lie in many cells, or far from each other."""
    if not len(boxes):
        return Cells(x0=0.0, y0=0.0, side_px=1.0, columns=1, rows=1)
    x0, y0 = boxes[:, 0].min(), boxes[:, 1].min()
    width, height = boxes[:, 2].max() - x0, boxes[:, 3].max() - y0
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    side = max(2 * float(np.maximum(widths, heights).mean()), 1.0)
    most = _MOST_CELLS_EACH * len(boxes)
    while ((widths / side + 1) * (heights / side + 1)).sum() > most:
        side *= 2
    while (width / side + 1) * (height / side + 1) > most + _SPARE_CELLS:
        side *= 2
    return Cells(x0=float(x0), y0=float(y0), side_px=side, columns=int(width // side) + 1, rows=int(height // side) + 1)
