"""Whole images into the input of a detector: scaled to fit, centred, gray around them; and the way back.

The rounding is Ultralytics', so that a box comes out where theirs does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from redline.core.errors import InputError, MissingDependencyError
from redline.core.packages import missing
from redline.core.tensor import Array

PADDING = 114
# Half a pixel of padding too many goes to the right and to the bottom: round(d / 2 - 0.1) there is less than d / 2.
_TO_THE_LEFT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an image lies in the input of a detector.

    Attributes:
        scale: Pixels of the input for a pixel of the image, before its size there is rounded.
        left_px: Padding to the left of it, in pixels of the input.
        top_px: Padding above it.
        height_px: Its height there.
        width_px: Its width there.
        source_height_px: Height of the image.
        source_width_px: Width of the image.
    """

    scale: float
    left_px: int
    top_px: int
    height_px: int
    width_px: int
    source_height_px: int
    source_width_px: int


def boxes_to_source(boxes: Array, placements: Sequence[Placement], images: Array) -> Array:
    """Boxes (n, 4) in pixels of the input, as boxes in pixels of the images that reach no further than these do.

    Args:
        boxes: Of any of the images.
        placements: Of all images.
        images: The image of each box, as its position in ``placements``.
    """
    return points_to_source(boxes.reshape(-1, 2), placements, np.repeat(images, 2)).reshape(-1, 4)


def points_to_source(points: Array, placements: Sequence[Placement], images: Array) -> Array:
    """Points (n, 2) in pixels of the input, as points in pixels of the images; else as :func:`boxes_to_source`."""
    told = [
        (
            *(each.left_px, each.top_px),
            *(each.width_px / each.source_width_px, each.height_px / each.source_height_px),
            *(each.source_width_px, each.source_height_px),
        )
        for each in placements
    ]
    own = np.array(told, np.float32).reshape(-1, 3, 2)[images]
    within: Array = ((points - own[:, 0]) / own[:, 1]).clip(0, own[:, 2])
    return within


def placement_of(source_hw: tuple[int, int], input_hw: tuple[int, int]) -> Placement:
    """Where an image of that height and width lies in that input.

    >>> placed = placement_of((300, 400), (640, 640))
    >>> placed.scale, placed.left_px, placed.top_px, placed.height_px, placed.width_px
    (1.6, 0, 80, 480, 640)
    """
    scale = min(input_hw[0] / source_hw[0], input_hw[1] / source_hw[1])
    height, width = max(1, round(source_hw[0] * scale)), max(1, round(source_hw[1] * scale))
    return Placement(
        scale=scale,
        left_px=round((input_hw[1] - width) / 2 - _TO_THE_LEFT),
        top_px=round((input_hw[0] - height) / 2 - _TO_THE_LEFT),
        height_px=height,
        width_px=width,
        source_height_px=source_hw[0],
        source_width_px=source_hw[1],
    )


def identity(input_hw: tuple[int, int]) -> Placement:
    """Where an image lies that was made an input by somebody else: boxes stay in pixels of the input."""
    return placement_of(input_hw, input_hw)


def letterbox(image: Array, input_hw: tuple[int, int]) -> Array:
    """One uint8 image (height, width, channels), scaled to fit; one of that size already is returned itself.

    Raises:
        MissingDependencyError: it must be scaled, and OpenCV is not installed.
    """
    source_hw = (image.shape[0], image.shape[1])
    if source_hw == input_hw:
        return image
    placed = placement_of(source_hw, input_hw)
    height, width = placed.height_px, placed.width_px
    if (height, width) != source_hw:
        cv2 = opencv()
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, -1)
    if (height, width) == input_hw:
        return image
    canvas = np.full((*input_hw, image.shape[2]), PADDING, np.uint8)
    canvas[placed.top_px : placed.top_px + height, placed.left_px : placed.left_px + width] = image
    return canvas


def batch_of(
    images: Sequence[Array],
    input_hw: tuple[int, int],
    dtype: Any = np.float32,
    layout: Literal["nchw", "nhwc"] = "nchw",
    out: Array | None = None,
) -> Array:
    """uint8 images (height, width, channels) as one input with values from 0 to 1, or as they are where that is uint8.

    Args:
        images: Of any sizes.
        input_hw: Height and width of the input in pixels.
        dtype: Of the input.
        layout: Of the input.
        out: An array of that type and as many rows or more, whose first ones are written and returned.

    Raises:
        InputError: there are none, or one is no such image.
    """
    if not images:
        raise InputError("got no images, expected at least one")
    for image in images:
        check_image(image, channels=images[0].shape[-1])
    channels = images[0].shape[2]
    shape = (channels, *input_hw) if layout == "nchw" else (*input_hw, channels)
    as_they_are = np.dtype(dtype) == np.uint8
    batch = np.empty((len(images), *shape), np.uint8 if as_they_are else np.float32) if out is None else out
    placed = np.empty(shape, np.uint8)
    for image, place in zip(images, batch, strict=out is None):
        boxed = letterbox(image, input_hw)
        if as_they_are:
            _place(boxed, place, layout)
        else:  # in steps that are each as fast as memory, half the time of one across it
            _place(boxed, placed, layout)
            np.copyto(place, placed)
            np.divide(place, np.float32(255), out=place)
    return batch[: len(images)].astype(dtype, copy=False)


def _place(image: Array, place: Array, layout: Literal["nchw", "nhwc"]) -> None:
    """Copy an image into its place in a batch."""
    if layout == "nchw" and image.flags.c_contiguous and place.flags.c_contiguous and _splits_in_place():
        opencv().split(image, list(place))  # seven times as fast as NumPy's copy across
    else:
        np.copyto(place, image.transpose(2, 0, 1) if layout == "nchw" else image)


@lru_cache(maxsize=1)
def _splits_in_place() -> bool:
    """Whether OpenCV is here and takes colours apart into arrays that it is given."""
    try:
        cv2 = opencv()
    except MissingDependencyError:
        return False
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    planes = np.zeros((3, 2, 2), np.uint8)
    cv2.split(image, list(planes))
    return bool((planes == image.transpose(2, 0, 1)).all())


def opencv() -> Any:
    """OpenCV's module, loaded when something needs it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise missing("opencv-python-headless") from error
    return cv2


def check_image(image: Array, *, channels: int = 3) -> None:
    """Accept a uint8 image of so many channels.

    Raises:
        InputError: it is none.
    """
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] != channels or 0 in image.shape:
        raise InputError(
            f"got an image of {image.dtype} and shape {image.shape}, expected uint8 (height, width, {channels})"
        )
