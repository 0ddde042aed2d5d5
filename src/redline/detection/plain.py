"""Detections as JSON values: what the server answers and ``redline run`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections

_PIXEL_DIGITS = 2
_SCORE_DIGITS = 5


#: A box as JSON has it; ``polygon`` is there where the model segments.
PlainBox = TypedDict(
    "PlainBox",
    {"class": int, "name": str | None, "score": float, "box": list[float], "polygon": NotRequired[list[list[float]]]},
)


def to_plain(found: Detections, class_names: Sequence[str] | None) -> list[PlainBox]:
    """One object for each box: class, name (None where nobody said), score, box, and polygon where there is one.

    Pixels are rounded to hundredths.

    >>> from redline.detection.results import Detections
    >>> one = Detections(boxes=np.array([[1, 2, 3, 4.125]]), scores=np.array([0.5]), classes=np.array([1]))
    >>> to_plain(one, ["cat", "dog"])
    [{'class': 1, 'name': 'dog', 'score': 0.5, 'box': [1.0, 2.0, 3.0, 4.12]}]
    """
    rows = zip(
        found.classes.tolist(), _rounded(found.scores, _SCORE_DIGITS), _rounded(found.boxes, _PIXEL_DIGITS), strict=True
    )
    plain: list[PlainBox] = [
        {"class": index, "name": name_of(index, class_names), "score": score, "box": box} for index, score, box in rows
    ]
    if found.polygons is not None:
        for one, ring in zip(plain, found.polygons.rings(), strict=True):
            one["polygon"] = _rounded(ring, _PIXEL_DIGITS)
    return plain


def name_of(index: int, class_names: Sequence[str] | None) -> str | None:
    """What a class is called; None where nobody said."""
    return class_names[index] if class_names and 0 <= index < len(class_names) else None


def _rounded(values: Array, digits: int) -> list[Any]:
    rounded: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return rounded
