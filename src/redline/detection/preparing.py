"""Images into the input of a detector: needs no session, so that it can be done in other threads and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from redline.core.errors import InputError
from redline.core.preprocess import Preprocess
from redline.core.tensor import Array, Dim, Signature, TensorSpec
from redline.detection.letterbox import PADDING, Placement, batch_of, check_image, opencv, placement_of


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparer:
    """How a detector is fed; plain values, which can be sent to another process.

    Attributes:
        spec: Its input.
        preprocess: Size, layout and colours of it.
        batch: How many images the model is fixed at; None where it takes any number.
        largest_batch: How many it takes at once; None where nothing limits them.
    """

    spec: TensorSpec
    preprocess: Preprocess
    batch: int | None
    largest_batch: int | None

    @classmethod
    def of(cls, signature: Signature, preprocess: Preprocess | None, *, largest_batch: int | None) -> Preparer:
        """Of a model's signature; without a word on how it is fed, as this family is.

        Raises:
            InputError: it takes no images, or none that are letterboxed.
        """
        spec = _image_input(signature)
        laid_out = _laid_out(preprocess or _plain_preprocess(spec), spec)
        _check_letterbox(laid_out)
        batch = signature.fixed_batch
        return cls(spec=spec, preprocess=laid_out, batch=batch, largest_batch=largest_batch if batch is None else batch)

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.preprocess.height_px, self.preprocess.width_px

    @property
    def takes_bytes(self) -> bool:
        """Whether the input is uint8: images are copied into it and nothing else."""
        return self.spec.dtype == "uint8"

    def allocate(self, count: int) -> dict[str, Array]:
        """Arrays for a batch of so many images, uninitialized."""
        shape = self.spec.with_batch(count)
        sizes = shape[:1] + ((*self.input_hw, shape[3]) if self._last else (shape[1], *self.input_hw))
        return {self.spec.name: np.empty(sizes, self.spec.numpy_dtype)}

    def __call__(self, images: Sequence[Array], *, into: Mapping[str, Array] | None = None) -> Prepared:
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
        coloured = [self._coloured(image) for image in images]
        if self.takes_bytes:
            out = None if into is None else into[self.spec.name]
            batch = batch_of(coloured, self.input_hw, np.uint8, self.preprocess.layout, out=out)
        else:
            batch = self._normalized(batch_of(coloured, self.input_hw, layout=self.preprocess.layout))
        if self.batch is not None and len(images) < self.batch:
            batch = _filled(batch, self.batch)
        return Prepared(
            inputs={self.spec.name: batch.astype(self.spec.numpy_dtype, copy=False)},
            placements=tuple(placement_of((image.shape[0], image.shape[1]), self.input_hw) for image in images),
            count=len(images),
        )

    def place(self, image: Array, batch: Mapping[str, Array], row: int) -> None:
        """Write one image into its row of arrays that :meth:`allocate` made, with the numbers that a call gives it.

        Raises:
            InputError: it is not uint8 (height, width, 3).
            MissingDependencyError: it must be scaled, and OpenCV is not installed.
        """
        coloured, place = self._coloured(image), batch[self.spec.name][row : row + 1]
        if self.takes_bytes:
            batch_of([coloured], self.input_hw, np.uint8, self.preprocess.layout, out=place)
        else:
            np.copyto(place, self._normalized(batch_of([coloured], self.input_hw, layout=self.preprocess.layout)))

    @property
    def _last(self) -> bool:
        return self.preprocess.layout == "nhwc"

    def _coloured(self, image: Array) -> Array:
        check_image(image)
        if self.preprocess.color == "bgr":
            return image[:, :, ::-1]
        if self.preprocess.color == "gray":
            cv2 = opencv()
            gray: Array = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
            return gray
        return image

    def _normalized(self, batch: Array) -> Array:
        """Mean and deviation, which models of this family leave at 0 and 1."""
        mean, std = self.preprocess.mean, self.preprocess.std
        if not any(mean) and all(value == 1 for value in std):
            return batch
        shape = (-1,) if self._last else (-1, 1, 1)
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
