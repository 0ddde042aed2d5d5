"""What is known of a model before its file is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redline.core.errors import InputError

ENGINE_SUFFIXES = (".engine", ".plan")
TORCH_SUFFIXES = (".pt", ".pth")
ONNX_SUFFIX = ".onnx"
SUFFIXES = (*TORCH_SUFFIXES, ONNX_SUFFIX, *ENGINE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Postprocessing:
    """What is done with the detections of one class when all windows were seen.

    Attributes:
        nms_thres: Of two boxes that share more than this (intersection over union) the surer one stays; None leaves
            both.
        cov_thres: Two detections are united where one lies in the other with more than this share of its own area;
            None unites none.
    """

    nms_thres: float | None = None
    cov_thres: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("nms_thres", self.nms_thres), ("cov_thres", self.cov_thres)):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected a share from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model: its file, the windows it looks at, the classes it is asked for.

    Attributes:
        name: For people and reports.
        path: A ``.pt``, ``.onnx``, ``.engine`` or ``.plan`` file; it need not be there before the model is opened.
        window_px: Side of the square windows of the slide, in pixels of level 0.
        class_names: By the model's own index. Classes that are not in it are left out of the results; empty takes all
            that the file names.
        confidence: Detections below it are dropped.
        iou: Of the model's own suppression within one window.
        max_detections: The most boxes that are kept of one window, the surest. Where a window has that many there may
            be more, and the report says so.
        batch: The most windows in one call; an engine of a fixed batch has its own.
        input_px: Side of the model's square input; None takes what the file says.
        postprocess: By class name; see :class:`Postprocessing`.
    """

    name: str
    path: Path
    window_px: int = 640
    class_names: Mapping[int, str] = field(default_factory=dict)
    confidence: float = 0.25
    iou: float = 0.7
    max_detections: int = 300
    batch: int = 32
    input_px: int | None = None
    postprocess: Mapping[str, Postprocessing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a model has no name; give it one")
        if self.path.suffix.lower() not in SUFFIXES:
            raise InputError(f"model {self.name}: got file {self.path}, expected one of {', '.join(SUFFIXES)}")
        for what, share in (("confidence", self.confidence), ("iou", self.iou)):
            if not 0 <= share <= 1:
                raise InputError(f"model {self.name}: {what} is {share}, expected a share from 0 to 1")
        for what, size in (
            ("window", self.window_px),
            ("batch", self.batch),
            ("max_detections", self.max_detections),
            ("input", self.input_px),
        ):
            if size is not None and size < 1:
                raise InputError(f"model {self.name}: {what} is {size}, expected at least 1")
        for index, name in self.class_names.items():
            if index < 0 or not name:
                raise InputError(
                    f"model {self.name}: class {index} is {name!r}, expected an index of 0 or more, a name"
                )
