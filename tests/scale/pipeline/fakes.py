"""A model that finds black rectangles on white exactly, so that what a pipeline must give is known."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from redline.core.tensor import Array
from redline.detection.results import BatchDetections, Detections
from scale.pipeline.plan import ModelShape
from scale.pipeline.runners import ModelInfo, Sealed


class RectangleRunner:
    """Finds what is black in each window, cut where the window cuts it.

    Attributes:
        threads: Names of those that called :meth:`infer`.
        calls: How many windows each call had.
        alive: Most batches that were sealed and not yet inferred at one time.
    """

    def __init__(self, name: str = "rectangles", *, window_px: int = 64, batch: int = 4, form: str = "pixels") -> None:
        self.info = ModelInfo(name=name, class_names=("rectangle",), identity={"name": name})
        self.shape = ModelShape(name=name, window_px=window_px, batch=batch, input_hw=(window_px, window_px), form=form)
        self.threads: set[str] = set()
        self.calls: list[int] = []
        self.alive = 0
        self._sealed = 0
        self._lock = threading.Lock()

    def fit(self, image: Array, /) -> Array:
        return image

    def seal(self, windows: Sequence[Array | None], /) -> Sealed:
        with self._lock:
            self._sealed += 1
            self.alive = max(self.alive, self._sealed)
        blank = np.full((1, 1, 3), 255, np.uint8)
        images = [blank if window is None else window for window in windows]
        images += [blank] * (self.shape.batch - len(images))
        return Sealed(inputs=images, places=len(windows))

    def infer(self, inputs: Any, /) -> Any:
        with self._lock:
            self._sealed -= 1
            self.threads.add(threading.current_thread().name)
            self.calls.append(len(inputs))
        return inputs

    def decode(self, outputs: Any, places: Any, /) -> BatchDetections:
        return BatchDetections.of([rectangles(image) for image in outputs[:places]])


def rectangles(image: Array) -> Detections:
    """The black rectangles of an image, best (largest) first."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, 0] < 128).astype(np.uint8))
    stats = stats[1:][np.argsort(-stats[1:, 4], kind="stable")]
    boxes = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1).astype(np.float32)
    return Detections(
        boxes=boxes,
        scores=(0.5 + stats[:, 4] / 1e6).astype(np.float32),
        classes=np.zeros(len(boxes), np.int32),
    )


def scattered(
    width_px: int, height_px: int, *, side_px: int = 10, step_px: int = 23, seed: int = 0
) -> tuple[Array, Array]:
    """A white picture with black squares that do not touch, and their boxes in the order (y, x)."""
    rng = np.random.default_rng(seed)
    picture = np.full((height_px, width_px, 3), 255, np.uint8)
    boxes = []
    for y in range(2, height_px - side_px - step_px, step_px):
        for x in range(2, width_px - side_px - step_px, step_px):
            left, top = x + int(rng.integers(0, step_px - side_px - 2)), y + int(rng.integers(0, step_px - side_px - 2))
            picture[top : top + side_px, left : left + side_px] = 0
            boxes.append((left, top, left + side_px, top + side_px))
    return picture, sorted_boxes(np.array(boxes, np.float32))


def sorted_boxes(boxes: Array) -> Array:
    """Boxes in the order (y, x)."""
    return boxes[np.lexsort((boxes[:, 0], boxes[:, 1]))]
