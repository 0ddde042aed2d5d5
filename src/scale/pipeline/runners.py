"""A model as the pipeline sees it: a place in a batch for each window, one call a batch, detections out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from redline.core.tensor import Array
from redline.detection.detector import Detector, Prepared
from redline.detection.letterbox import PADDING, Placement, identity, letterbox, placement_of
from redline.detection.results import Detections
from scale.pipeline.plan import ModelShape

if TYPE_CHECKING:
    from scale.models.loaded import OpenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is told of a model beside its detections.

    Attributes:
        name: Unique among the models.
        class_names: By the numbers that its detections have.
        identity: What its answers depend on: the file's digest, runtime, precision, confidence.
    """

    name: str
    class_names: tuple[str, ...]
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sealed:
    """A full batch: what the model is called with, and what decoding needs of each window."""

    inputs: Any
    places: Any


class Described(Protocol):
    """A model as plans and reports know it, wherever it is open.

    Attributes:
        info: Its name and classes.
        shape: What the plan has to know of it; models of one form take each other's batches.
    """

    @property
    def info(self) -> ModelInfo:
        """Its name and classes."""
        ...

    @property
    def shape(self) -> ModelShape:
        """What the plan has to know of it; models of one form take each other's batches."""
        ...


class Runner(Described, Protocol):
    """A model that is fed in batches; :meth:`infer` is called by one thread, the rest by any."""

    def fit(self, image: Array, /) -> Any:
        """An RGB uint8 window (height, width, 3) in the size that the model takes."""
        ...

    def seal(self, windows: Sequence[Any], /) -> Sealed:
        """Make a full batch of such windows; None stands for one that could not be read."""
        ...

    def infer(self, inputs: Any, /) -> Any:
        """Run the model once."""
        ...

    def decode(self, outputs: Any, places: Any, /) -> list[Detections]:
        """What was found in each window that was sealed, in pixels of the window as it was read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fitted:
    image: Array
    placement: Placement


class DetectorRunner:
    """An open detector with the classes that it is asked for."""

    def __init__(self, model: OpenModel, info: ModelInfo, *, window_px: int, batch: int) -> None:
        """Take a model that is open; ``batch`` counts where the model itself does not fix it."""
        self._model = model
        self._detector = model.detector
        most = self._detector.largest_batch or batch
        self._gray = np.full((*self._detector.input_hw, 3), PADDING, np.uint8)
        self.info = info
        self.shape = ModelShape(
            name=info.name,
            window_px=window_px,
            batch=self._detector.batch or min(batch, most),
            input_hw=self._detector.input_hw,
            form=_form(self._detector),
        )

    def fit(self, image: Array, /) -> _Fitted:
        """Letterboxed, with where it lies."""
        hw = (image.shape[0], image.shape[1])
        input_hw = self._detector.input_hw
        return _Fitted(image=letterbox(image, input_hw), placement=placement_of(hw, input_hw))

    def seal(self, windows: Sequence[_Fitted | None], /) -> Sealed:
        """As the detector prepares images, filled up with gray to the full batch."""
        images = [self._gray if window is None else window.image for window in windows]
        images += [self._gray] * (self.shape.batch - len(images))
        nowhere = identity(self._detector.input_hw)
        return Sealed(
            inputs=self._detector.prepare(images),
            places=tuple(nowhere if window is None else window.placement for window in windows),
        )

    def infer(self, inputs: Any, /) -> dict[str, Array]:
        """Run the session."""
        return self._detector.run(inputs)

    def decode(self, outputs: dict[str, Array], places: tuple[Placement, ...], /) -> list[Detections]:
        """The classes that are asked for, counted as in ``info.class_names``."""
        answered = Prepared(inputs={}, placements=places, count=len(places))
        return [usable(self._model.select(found)) for found in self._detector.decode(outputs, answered)]


def usable(found: Detections) -> Detections:
    """Those that have finite numbers and an area: one wrong answer must not spoil what is made of all."""
    boxes = found.boxes
    good = np.isfinite(boxes).all(axis=1) & np.isfinite(found.scores)
    good &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return found if good.all() else found.take(good)


def _form(detector: Detector) -> str:
    """A digest of what becomes of an image: detectors with the same one take each other's batches."""
    height, width = detector.input_hw
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    digest = hashlib.sha256()
    for name, array in detector.prepare([image]).inputs.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
