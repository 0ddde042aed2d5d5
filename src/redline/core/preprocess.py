"""What a model's file says about its use: how an image becomes its input, what its classes are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from redline.core.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DetectionTask = Literal["detect", "segment"]
DetectionHead = Literal["v5", "v8", "end2end", "best"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Decode, resize, crop, scale to 0..1, subtract ``mean``, divide by ``std``, lay out.

    Attributes:
        height_px: Height of the model's input.
        width_px: Width of the model's input.
        mean: Per channel, in the scale 0..1, in the order of ``color``.
        std: Per channel, in the scale 0..1.
        color: Channel order; ``gray`` is one channel (ITU-R 601 luma, Pillow's mode L).
        layout: ``nchw`` or ``nhwc``.
        resize: ``crop`` resizes the short side (bilinear, antialiased) and takes the centre,
            ``stretch`` resizes both sides, ``letterbox`` scales the whole image to fit (bilinear, not antialiased) and
            fills what is left around it with the gray 114, as detectors of the YOLO family are trained.
        resize_ratio: For ``crop``: the short side becomes this times the input's short side (256/224 is the
            convention of ImageNet evaluation).
    """

    height_px: int
    width_px: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    resize: Literal["crop", "stretch", "letterbox"] = "crop"
    resize_ratio: float = 256 / 224

    def __post_init__(self) -> None:
        if self.height_px < 1 or self.width_px < 1:
            raise InputError(f"input size is {self.height_px}x{self.width_px} pixels, expected at least 1x1")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise InputError(
                f"mean has {len(self.mean)} and std {len(self.std)} values, expected {self.channels} ({self.color})"
            )
        if min(self.std) <= 0:
            raise InputError(f"std is {self.std}, expected positive values")

    @property
    def channels(self) -> int:
        """1 for gray, else 3."""
        return 1 if self.color == "gray" else 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What the outputs of a detector mean.

    Attributes:
        task: ``detect`` gives boxes, ``segment`` boxes with masks.
        head: ``v5`` has an objectness beside the classes, ``v8`` (also YOLOv9, 11 and 12) has none, ``end2end``
            (YOLOv10, YOLO26) gives finished boxes, ``best`` has one score and the number of its class in place of all
            classes' scores, and is never told by shapes; None where only the shapes of the outputs tell.
        stride: The coarsest of its grids, in pixels of the input; None where nobody said.
    """

    task: DetectionTask = "detect"
    head: DetectionHead | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.task not in get_args(DetectionTask):
            raise InputError(f"task is {self.task!r}, expected one of {', '.join(get_args(DetectionTask))}")
        if self.head is not None and self.head not in get_args(DetectionHead):
            raise InputError(f"head is {self.head!r}, expected one of {', '.join(get_args(DetectionHead))}, or None")
        if self.stride is not None and self.stride < 1:
            raise InputError(f"stride is {self.stride} px, expected 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What travels in a model's file besides the graph.

    Attributes:
        preprocess: How an image becomes its input; None where nobody said.
        class_names: In the order of their indices; empty where nobody said.
        detection: What its outputs mean, for a detector; None for any other model.
    """

    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] = ()
    detection: Detection | None = None
