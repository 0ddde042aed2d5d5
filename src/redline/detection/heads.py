"""Which head a detector's outputs come from, and its candidates: boxes in pixels of the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from redline.core.errors import InputError
from redline.core.preprocess import Detection, DetectionHead
from redline.core.tensor import Array, Dim

# Finished boxes are few: 300 in every export known, where the grids of even a 128 px input have 336 cells (v8).
_MOST_FINISHED = 1000
#: Numbers of a box that has one class: four of its place, the score, the class.
ONE_CLASS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the outputs of a detector are read.

    Attributes:
        head: As in :class:`redline.core.preprocess.Detection`.
        predictions: The output with the boxes.
        prototypes: The output that masks are mixed from; None where it gives boxes only.
        class_count: How many classes it tells apart; None for finished boxes and the best class, which name one each.
        mask_count: How many prototypes each box has a share of; 0 without prototypes.
    """

    head: DetectionHead
    predictions: str
    prototypes: str | None
    class_count: int | None
    mask_count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The boxes of a batch whose score is high enough, image by image.

    Attributes:
        images: int64 of shape (n,), rising: the position in the batch of the image that each is of.
        boxes: float32 of shape (n, 4): x0, y0, x1, y1 in pixels of the input.
        scores: float32 of shape (n,).
        classes: int32 of shape (n,).
        shares: float32 of shape (n, prototypes), what each mask is mixed from.
    """

    images: Array
    boxes: Array
    scores: Array
    classes: Array
    shares: Array

    def take(self, index: Array) -> Candidates:
        """Those candidates in that order."""
        return Candidates(
            images=self.images[index],
            boxes=self.boxes[index],
            scores=self.scores[index],
            classes=self.classes[index],
            shares=self.shares[index],
        )


def layout_of(
    shapes: Mapping[str, tuple[Dim, ...]], *, detection: Detection | None = None, class_count: int | None = None
) -> Layout:
    """Tell the head by the shapes of the outputs.

    Args:
        shapes: Of each output, the batch first.
        detection: What is said about it; a head that is named there is believed.
        class_count: How many classes the model has names for; None where it has none.

    Raises:
        InputError: no output has the shape of a head that is known, or of two.
    """
    said = detection or Detection()
    prototypes, mask_count = _prototypes(shapes, said)
    possible = [name for name, shape in shapes.items() if len(shape) == 3]
    for name in possible:
        rows, columns = shapes[name][1:]
        for head in (said.head,) if said.head else _heads(rows, columns, class_count, mask_count):
            found = _classes_in(head, rows, columns, mask_count)
            if _possible(head, rows, found, mask_count):
                return Layout(
                    head=head, predictions=name, prototypes=prototypes, class_count=found, mask_count=mask_count
                )
    told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none"
    classes = "" if class_count is None else f" for {class_count} classes"
    raise InputError(
        f"the outputs ({told}) are those of no detector that is known{classes}; expected "
        "(batch, 4 + classes, n), (batch, n, 5 + classes) or (batch, n, 6), each with 32 more where it segments, "
        "or (batch, 6, n) under the name 'best'; where several fit, name the head in the file's usage"
    )


def candidates_of(predictions: Array, layout: Layout, confidence: float) -> Candidates:
    """The candidates of a batch, above ``confidence``, in the order of the head.

    Boxes of no finite size or score, as an overflow in half precision makes them, are left out.

    Args:
        predictions: Of the batch, (images, 4 + classes, n), (images, n, 5 + classes), (images, n, 6) or (images, 6, n),
            each with its shares of masks.
        layout: Which of these.
        confidence: Boxes with this score or less are left out.
    """
    if layout.head == "v8":
        found = _of_v8(predictions, layout, confidence)
    elif layout.head == "v5":
        found = _of_v5(predictions, layout, confidence)
    elif layout.head == "best":
        found = _of_best(predictions, confidence)
    else:
        found = _finished(predictions, confidence)
    usable = np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.scores)
    return found if usable.all() else found.take(np.flatnonzero(usable))


def _of_v8(values: Array, layout: Layout, confidence: float) -> Candidates:
    classes_end = values.shape[1] - layout.mask_count
    # Image by image: all scores of a batch are more than a cache holds.
    images, places = _above(np.array([each[4:classes_end].max(axis=0) for each in values]), confidence)
    chosen = _wide(values[images, :, places])
    classes = chosen[:, 4:classes_end].argmax(axis=1)
    return Candidates(
        images=images,
        boxes=_corners(chosen[:, :4]),
        scores=chosen[np.arange(len(chosen)), 4 + classes],
        classes=classes.astype(np.int32),
        shares=chosen[:, classes_end:],
    )


def _of_v5(values: Array, layout: Layout, confidence: float) -> Candidates:
    classes_end = values.shape[2] - layout.mask_count
    images, places = _above(values[:, :, 4], confidence)
    hopeful = _wide(values[images, places])
    products = hopeful[:, 5:classes_end] * hopeful[:, 4:5]
    classes = products.argmax(axis=1)
    scores = products[np.arange(len(hopeful)), classes]
    found = np.flatnonzero(scores > confidence)
    return Candidates(
        images=images[found],
        boxes=_corners(hopeful[found, :4]),
        scores=scores[found],
        classes=classes[found].astype(np.int32),
        shares=hopeful[found, classes_end:],
    )


def _of_best(values: Array, confidence: float) -> Candidates:
    found = _finished(values.transpose(0, 2, 1), confidence)
    return replace(found, boxes=_corners(found.boxes))


def _finished(values: Array, confidence: float) -> Candidates:
    images, places = _above(values[:, :, 4], confidence)
    chosen = _wide(values[images, places])
    return Candidates(
        images=images,
        boxes=chosen[:, :4],
        scores=chosen[:, 4],
        classes=chosen[:, 5].astype(np.int32),
        shares=chosen[:, ONE_CLASS:],
    )


def _above(scores: Array, confidence: float) -> tuple[Array, Array]:
    """Image and place of the scores (images, n) that are higher."""
    images, places = np.nonzero(_wide(scores) > confidence)
    return images, places


def _wide(values: Array) -> Array:
    """In float32: a comparison in half precision would round what it is compared with."""
    return values.astype(np.float32, copy=False)


def _corners(boxes: Array) -> Array:
    """Centre, width and height become corners."""
    halves = boxes[:, 2:] / np.float32(2)
    return np.concatenate([boxes[:, :2] - halves, boxes[:, :2] + halves], axis=1)


def _prototypes(shapes: Mapping[str, tuple[Dim, ...]], said: Detection) -> tuple[str | None, int]:
    if said.task == "detect":
        return None, 0
    for name, shape in shapes.items():
        if len(shape) == 4 and isinstance(shape[1], int):
            return name, shape[1]
    told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none"
    raise InputError(f"the model segments, but none of its outputs ({told}) has prototypes (batch, 32, height, width)")


def _heads(rows: Dim, columns: Dim, class_count: int | None, mask_count: int) -> tuple[DetectionHead, ...]:
    """The heads whose output has that shape, the likelier first; a dynamic size is larger than any fixed one."""
    few = not isinstance(rows, int) or rows <= _MOST_FINISHED
    finished: tuple[DetectionHead, ...] = ("end2end",) if columns == ONE_CLASS + mask_count and few else ()
    if class_count is not None:
        v8: tuple[DetectionHead, ...] = ("v8",) if rows == 4 + class_count + mask_count else ()
        v5: tuple[DetectionHead, ...] = ("v5",) if columns == 5 + class_count + mask_count else ()
        if v8 and (v5 or finished):
            # Both fit: a head has more boxes than numbers for each.
            return v8 if _larger(columns, rows) else finished or v5
        return v8 or finished or v5
    if _larger(columns, rows):
        return ("v8",)
    return finished or (("v5",) if _larger(rows, columns) else ())


def _larger(one: Dim, other: Dim) -> bool:
    if isinstance(one, int) and isinstance(other, int):
        return one > other
    return isinstance(other, int)


def _possible(head: DetectionHead, rows: Dim, class_count: int | None, mask_count: int) -> bool:
    if head == "best":
        return rows == ONE_CLASS + mask_count or not isinstance(rows, int)
    return class_count is None or class_count >= 1


def _classes_in(head: DetectionHead, rows: Dim, columns: Dim, mask_count: int) -> int | None:
    if head in ("end2end", "best"):
        return None
    size = rows if head == "v8" else columns
    return size - (4 if head == "v8" else 5) - mask_count if isinstance(size, int) else None
