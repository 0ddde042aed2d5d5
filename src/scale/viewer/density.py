"""Detections as clouds of colour, for views in which each of them is smaller than a few pixels."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from redline.core.errors import RequestError
from redline.core.tensor import Array
from scale.viewer.index import Rectangle
from scale.viewer.marks import Filter, Marks

__all__ = ["MOST_BINS", "density", "png_of"]

#: Of one answer; float32 counts as far as that without a gap.
MOST_BINS = 1 << 22
_LEAST_CROWD = 0.25


def density(marks: Marks, rectangle: Rectangle, bin_px: float, wanted: Filter) -> Array:
    """A picture (rows, columns, RGBA) with a pixel for each ``bin_px`` x ``bin_px`` of the rectangle.

    Its color is the mix of the classes there; how solid it is says how many there are, compared with where there are
    many on this slide, so that it does not change while one moves about.

    Raises:
        RequestError: the rectangle has too many bins.
    """
    x0, y0, x1, y1 = rectangle
    columns, rows = math.ceil((x1 - x0) / bin_px), math.ceil((y1 - y0) / bin_px)
    if not 1 <= columns * rows <= MOST_BINS:
        raise RequestError(f"got {columns} x {rows} bins, expected 1 to {MOST_BINS} in all; give a larger bin")
    places = marks.select(rectangle, wanted)
    centers = marks.centers[places]
    column, row = np.floor((centers[:, 0] - x0) / bin_px), np.floor((centers[:, 1] - y0) / bin_px)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    bins, classes = (row * columns + column)[inside].astype(np.int64), marks.classes[places[inside]]
    heaps = _heaps(marks, bins, classes, rows * columns).reshape(rows, columns, 4)
    heaps = _softened(_softened(heaps, 0), 1)
    counts = heaps[..., 3:]
    solid = 255 * (1 - np.exp(-counts / _crowd(marks, bin_px, wanted)))
    mixed = heaps[..., :3] / np.maximum(counts, 1e-6)
    picture: Array = np.rint(np.concatenate([mixed, solid], axis=2)).astype(np.uint8)
    return picture


def png_of(picture: Array) -> bytes:
    """The picture as a file, packed quickly."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _crowd(marks: Marks, bin_px: float, wanted: Filter) -> float:
    """How many in a bin are many, of all that have the wanted classes; few enough that one alone can be seen."""
    shown = marks.described if wanted.classes is None else [marks.described[number] for number in wanted.classes]
    expected = sum(one.crowded for one in shown) * bin_px**2
    # Softened, a bin keeps a quarter of what is in it.
    return max(0.7 * min(expected, sum(one.count_at[0] for one in shown) / 4), _LEAST_CROWD)


def _heaps(marks: Marks, bins: Array, classes: Array, number: int) -> Array:
    """For each bin the sums of red, green and blue, and how many detections are in it."""
    heaps = np.zeros((number, 4), np.float32)
    for each in np.flatnonzero(np.bincount(classes)):
        counts = np.bincount(bins[classes == each], minlength=number)
        heaps += counts[:, None] * np.array([*bytes.fromhex(marks.colors[each].removeprefix("#")), 1], np.float32)
    return heaps


def _softened(heaps: Array, axis: int) -> Array:
    """Half of each bin stays, a quarter goes to either neighbour: clouds rather than a chessboard."""
    soft = heaps / 2
    ahead, behind = np.moveaxis(soft, axis, 0), np.moveaxis(heaps, axis, 0)
    ahead[1:] += behind[:-1] / 4
    ahead[:-1] += behind[1:] / 4
    return soft
