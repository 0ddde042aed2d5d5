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

#: Of one answer.
MOST_BINS = 1 << 22


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
    bins = np.floor((marks.centers[places] - (x0, y0)) / bin_px).astype(np.int64)
    inside = ((bins >= 0) & (bins < (columns, rows))).all(axis=1)
    bins, classes = bins[inside], marks.classes[places][inside]
    flat = bins[:, 1] * columns + bins[:, 0]
    counts = np.bincount(flat, minlength=rows * columns)
    mixed = _mixed(marks, flat, classes, counts)
    shown = range(len(marks.names)) if wanted.classes is None else wanted.classes
    crowded = sum(marks.described[number].crowded for number in shown if number < len(marks.names))
    # One detection alone can be seen (0.76), however many there are elsewhere that could be in a bin.
    solid = 1 - np.exp(-counts / max(0.7 * crowded * bin_px**2, 0.7))
    picture: Array = np.rint(np.concatenate([mixed, 255 * solid[:, None]], axis=1)).astype(np.uint8)
    return picture.reshape(rows, columns, 4)


def png_of(picture: Array) -> bytes:
    """The picture as a file, packed quickly."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _mixed(marks: Marks, flat: Array, classes: Array, counts: Array) -> Array:
    """The mean color in each bin."""
    palette = np.array([_rgb(color) for color in marks.colors], np.float64).reshape(-1, 3)[classes]
    channels = [np.bincount(flat, weights=palette[:, at], minlength=len(counts)) for at in range(3)]
    return np.stack(channels, axis=1) / np.maximum(counts, 1)[:, None]


def _rgb(color: str) -> tuple[int, int, int]:
    """The three numbers in ``#rrggbb``.

    >>> _rgb("#ff8000")
    (255, 128, 0)
    """
    value = int(color[1:], 16)
    return value >> 16, value >> 8 & 255, value & 255
