"""A session that detects: images in, boxes in their own pixels out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from redline.core.errors import InputError
from redline.core.preprocess import DetectionTask, Preprocess, Usage
from redline.core.session import Session, SupportsProfiles
from redline.core.tensor import Array, Dim, Signature, TensorSpec
from redline.detection.decoding import CONFIDENCE, IOU, Decoder
from redline.detection.heads import layout_of
from redline.detection.letterbox import PADDING, Placement, batch_of, check_image, opencv, placement_of
from redline.detection.nms import MAX_DETECTIONS
from redline.detection.results import Detections


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Images as a session takes them.

    Attributes:
        inputs: By name; a batch that is fixed in the model is filled up with gray.
        placements: Where each image lies in the input.
        count: How many images these are.
    """

    inputs: dict[str, Array]
    placements: tuple[Placement, ...]
    count: int


class Detector:
    """Finds objects by a model of the YOLO family; as its session, used by one thread at a time.

    Its three steps may run in different threads: :meth:`prepare` and :meth:`decode` touch no session.

    Attributes:
        class_names: In the order of their indices; empty where nobody said.
        input_hw: Height and width of the input in pixels.
        batch: How many images the model is fixed at; None where it takes any number.
    """

    def __init__(
        self,
        session: Session,
        usage: Usage,
        *,
        confidence: float = CONFIDENCE,
        iou: float = IOU,
        max_detections: int = MAX_DETECTIONS,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Raises InputError where the model takes no images, or its outputs are those of no detector."""
        self._session = session
        self._spec = _image_input(session.signature)
        self._raw = self._spec.dtype == "uint8"
        self._preprocess = _laid_out(usage.preprocess or _plain_preprocess(self._spec), self._spec)
        _check_letterbox(self._preprocess)
        self.class_names = usage.class_names if class_names is None else tuple(class_names)
        self.input_hw = (self._preprocess.height_px, self._preprocess.width_px)
        self.batch = session.signature.fixed_batch
        self._decoder = Decoder(
            detection=usage.detection,
            class_count=len(usage.class_names) or None,
            confidence=confidence,
            iou=iou,
            max_detections=max_detections,
        )
        _check_outputs(session.signature, self._decoder)

    @property
    def task(self) -> DetectionTask:
        """``detect`` or ``segment``."""
        return self._decoder.detection.task if self._decoder.detection else "detect"

    @property
    def takes_bytes(self) -> bool:
        """Whether its input is uint8: images are copied into it and nothing else."""
        return self._raw

    @property
    def session(self) -> Session:
        """What runs the model."""
        return self._session

    @property
    def largest_batch(self) -> int | None:
        """How many images it takes at once; None where nothing limits them."""
        if self.batch is not None:
            return self.batch
        sizes = self._session.batch_sizes if isinstance(self._session, SupportsProfiles) else ()
        return sizes[-1] if sizes else None

    def __call__(self, images: Sequence[Array]) -> list[Detections]:
        """What is in each image: uint8 RGB arrays (height, width, 3) of any sizes."""
        step = self.largest_batch or len(images) or 1
        found: list[Detections] = []
        for start in range(0, len(images), step):
            prepared = self.prepare(images[start : start + step])
            found += self.decode(self.run(prepared), prepared)
        return found

    def prepare(self, images: Sequence[Array], *, into: Mapping[str, Array] | None = None) -> Prepared:
        """Images as one batch; those that an input of uint8 takes are copied and nothing else.

        Args:
            images: uint8 RGB arrays (height, width, 3).
            into: The input's array of a whole batch, to be written where its type is uint8, as one that is page-locked.

        Raises:
            InputError: there are none, more than the batch, or one is not uint8 (height, width, 3).
            MissingDependencyError: one must be scaled, and OpenCV is not installed.
        """
        most = self.largest_batch
        if not images or (most is not None and len(images) > most):
            raise InputError(f"got {len(images)} images, expected 1 to {most or 'any number'}")
        coloured, layout = [self._coloured(image) for image in images], self._preprocess.layout
        if self._raw:
            out = None if into is None else into[self._spec.name]
            batch = batch_of(coloured, self.input_hw, np.uint8, layout, out=out)
        else:
            batch = self._normalized(batch_of(coloured, self.input_hw, layout=layout))
        if self.batch is not None and len(images) < self.batch:
            batch = _filled(batch, self.batch)
        return Prepared(
            inputs={self._spec.name: batch.astype(self._spec.numpy_dtype, copy=False)},
            placements=tuple(placement_of((image.shape[0], image.shape[1]), self.input_hw) for image in images),
            count=len(images),
        )

    def run(self, prepared: Prepared) -> dict[str, Array]:
        """The outputs of the model."""
        return self._session(prepared.inputs)

    def decode(self, outputs: Mapping[str, Array], prepared: Prepared) -> list[Detections]:
        """What the outputs say of each image, best first, in its own pixels and within it."""
        return self._decoder(outputs, prepared.placements, self.input_hw)

    def _coloured(self, image: Array) -> Array:
        check_image(image)
        if self._preprocess.color == "bgr":
            return image[:, :, ::-1]
        if self._preprocess.color == "gray":
            cv2 = opencv()
            gray: Array = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
            return gray
        return image

    def _normalized(self, batch: Array) -> Array:
        """Mean and deviation, which models of this family leave at 0 and 1."""
        mean, std = self._preprocess.mean, self._preprocess.std
        if not any(mean) and all(value == 1 for value in std):
            return batch
        shape = (-1, 1, 1) if self._preprocess.layout == "nchw" else (-1,)
        scaled: Array = (batch - np.array(mean, np.float32).reshape(shape)) / np.array(std, np.float32).reshape(shape)
        return scaled


def _filled(batch: Array, rows: int) -> Array:
    gray = PADDING if batch.dtype == np.uint8 else 0.5
    whole = np.full((rows, *batch.shape[1:]), gray, batch.dtype)
    whole[: len(batch)] = batch
    return whole


def _image_input(signature: Signature) -> TensorSpec:
    spec = signature.inputs[0] if len(signature.inputs) == 1 else None
    if spec is None or len(spec.shape) != 4 or (spec.numpy_dtype.kind != "f" and spec.dtype != "uint8"):
        told = ", ".join(f"{one.name} {one.dtype}{list(one.shape)}" for one in signature.inputs) or "nothing"
        raise InputError(f"the model takes {told}; a detector takes one input of four sizes, float or uint8")
    return spec


def _channel_axis(spec: TensorSpec) -> int:
    """Colours come first, or last where only there can be as many as colours are."""
    return 3 if spec.shape[3] in (1, 3) and spec.shape[1] not in (1, 3) else 1


def input_sizes(spec: TensorSpec) -> tuple[Dim, Dim]:
    """Height and width of an input of images, wherever its colours are; an input of other rank has neither."""
    if len(spec.shape) != 4:
        return ("height", "width")
    first = 1 if _channel_axis(spec) == 3 else 2
    return spec.shape[first], spec.shape[first + 1]


def _laid_out(preprocess: Preprocess, spec: TensorSpec) -> Preprocess:
    """With the layout that the input has, which metadata of others do not tell."""
    return replace(preprocess, layout="nhwc") if _channel_axis(spec) == 3 else preprocess


def _plain_preprocess(spec: TensorSpec) -> Preprocess:
    """How this family is fed, where the file does not say it."""
    height, width = input_sizes(spec)
    if spec.shape[_channel_axis(spec)] != 3 or not isinstance(height, int) or not isinstance(width, int):
        raise InputError(
            f"the file does not say the size of its images, nor does its input {spec.name} {list(spec.shape)}; "
            "export it with a fixed size, or with what it needs in its metadata"
        )
    return letterbox_preprocess(height, width)


def letterbox_preprocess(height_px: int, width_px: int) -> Preprocess:
    """Letterbox, RGB, values from 0 to 1: how detectors of the YOLO family are fed."""
    return Preprocess(
        height_px=height_px, width_px=width_px, mean=(0.0,) * 3, std=(1.0,) * 3, color="rgb", resize="letterbox"
    )


def _check_letterbox(preprocess: Preprocess) -> None:
    if preprocess.resize != "letterbox":
        raise InputError(
            f"images are prepared by {preprocess.resize!r}, expected 'letterbox': boxes could not be placed"
        )


def _check_outputs(signature: Signature, decoder: Decoder) -> None:
    """Say at once what could only be said of the first answer, where the shapes are known before it."""
    shapes = {spec.name: spec.shape for spec in signature.outputs}
    if all(isinstance(size, int) for shape in shapes.values() for size in shape[1:]):
        layout_of(shapes, detection=decoder.detection, class_count=decoder.class_count)
