"""A model as the pipeline sees it: a place in a batch for each window, one call a batch, detections out."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from redline.core.plain import JsonObject
from redline.core.session import SupportsInputBuffers, SupportsPageLocking, SupportsStream
from redline.core.tensor import Array
from redline.detection.detector import Detector
from redline.detection.letterbox import PADDING, Placement, identity, letterbox, placement_of
from redline.detection.preparing import Prepared, Preparer
from redline.detection.results import BatchDetections
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
        max_detections: The most that it finds in one window; None where nobody knows.
    """

    name: str
    class_names: tuple[str, ...]
    identity: JsonObject
    max_detections: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sealed:
    """A full batch.

    Attributes:
        inputs: What the model is called with.
        places: What decoding needs of each window.
        done: Called when no model needs the inputs any more, which then may be written again.
    """

    inputs: Any
    places: Any
    done: Callable[[], None] | None = None


class Described(Protocol):
    """A model as plans and reports know it, wherever it is open."""

    @property
    def info(self) -> ModelInfo:
        """Its name and classes."""
        ...

    @property
    def shape(self) -> ModelShape:
        """What the plan has to know of it; models of one form take each other's batches."""
        ...


class Runner(Described, Protocol):
    """A model that is fed in batches; :meth:`infer` is called by one thread or :attr:`CalledAtOnce.calls_at_once`."""

    def fit(self, image: Array, /) -> Any:
        """An RGB uint8 window (height, width, 3) in the size that the model takes."""
        ...

    def seal(self, windows: Sequence[Any], /) -> Sealed:
        """Make a full batch of such windows; None stands for one that could not be read."""
        ...

    def infer(self, inputs: Any, /) -> Any:
        """Run the model once."""
        ...

    def decode(self, outputs: Any, places: Any, /) -> BatchDetections:
        """What was found in each window that was sealed, in pixels of the window as it was read."""
        ...


@runtime_checkable
class Overlapping(Protocol):
    """A runner that copies batches to and from its device while it computes another."""

    def stream(self, batches: Iterable[Any], /) -> Generator[Any, None, None]:
        """Run batches, some ahead of the first answer; each answer is as :meth:`Runner.infer` gives it."""
        ...


@runtime_checkable
class CalledAtOnce(Protocol):
    """A runner whose :meth:`Runner.infer` several threads may call at one time."""

    @property
    def calls_at_once(self) -> int:
        """How many."""
        ...


def calls_of(runner: Runner) -> int:
    """How many threads call a model."""
    return runner.calls_at_once if isinstance(runner, CalledAtOnce) else 1


@runtime_checkable
class Shareable(Protocol):
    """A runner whose batches other processes may fill."""

    @property
    def preparer(self) -> Preparer:
        """How a window becomes a row of a batch."""
        ...

    def lock_pages(self, array: Array, /) -> Callable[[], None] | None:
        """As :class:`redline.core.session.SupportsPageLocking`; None where that is of no use."""
        ...

    def sealed(self, inputs: Mapping[str, Array], places: Sequence[Placement], done: Callable[[], None], /) -> Sealed:
        """A full batch that others have filled, with where each window lies in its row."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fitted:
    image: Array
    placement: Placement


class DetectorRunner:
    """An open detector with the classes that it is asked for."""

    def __init__(self, model: OpenModel, info: ModelInfo, *, window_px: int, batch: int, calls: int = 1) -> None:
        """Take a model that is open.

        Args:
            model: It.
            info: What is told of it.
            window_px: Side of its windows.
            batch: Counts where the model itself does not fix it.
            calls: How many threads may call it at one time.
        """
        self._model = model
        self.calls_at_once = calls
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
        self._buffers = _Buffers(self._detector, self.shape.batch)

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
        buffer = self._buffers.take()
        return Sealed(
            inputs=self._detector.prepare(images, into=buffer),
            places=tuple(nowhere if window is None else window.placement for window in windows),
            done=None if buffer is None else partial(self._buffers.give, buffer),
        )

    @property
    def preparer(self) -> Preparer:
        """Of the detector."""
        return self._detector.preparer

    def lock_pages(self, array: Array, /) -> Callable[[], None] | None:
        """Where the session can."""
        session = self._detector.session
        return session.lock_pages(array) if isinstance(session, SupportsPageLocking) else None

    def sealed(self, inputs: Mapping[str, Array], places: Sequence[Placement], done: Callable[[], None], /) -> Sealed:
        """As the detector would have prepared it."""
        prepared = Prepared(inputs=dict(inputs), placements=tuple(places), count=len(places))
        return Sealed(inputs=prepared, places=prepared.placements, done=done)

    def infer(self, inputs: Any, /) -> dict[str, Array]:
        """Run the session."""
        return self._detector.run(inputs)

    def decode(self, outputs: dict[str, Array], places: tuple[Placement, ...], /) -> BatchDetections:
        """The classes that are asked for, counted as in ``info.class_names``."""
        answered = Prepared(inputs={}, placements=places, count=len(places))
        return usable(self._model.select(self._detector.decode_batch(outputs, answered)))


class OverlappedRunner(DetectorRunner):
    """An open detector whose session copies batches in and out while it computes another."""

    def __init__(
        self, model: OpenModel, info: ModelInfo, session: SupportsStream, *, window_px: int, batch: int
    ) -> None:
        """``session`` is the detector's own."""
        super().__init__(model, info, window_px=window_px, batch=batch)
        self._streaming = session

    def stream(self, batches: Iterable[Prepared], /) -> Generator[dict[str, Array], None, None]:
        """As :meth:`infer` answers, batch by batch."""
        yield from self._streaming.stream(prepared.inputs for prepared in batches)


class _Buffers:
    """Arrays that a session likes its batches in, used again; none for one that has no wish, or is fed floats."""

    def __init__(self, detector: Detector, batch: int) -> None:
        session = detector.session
        self._session = session if detector.takes_bytes and isinstance(session, SupportsInputBuffers) else None
        self._batch = batch
        self._free: deque[dict[str, Array]] = deque()

    def take(self) -> dict[str, Array] | None:
        if self._session is None:
            return None
        try:
            return self._free.pop()
        except IndexError:
            return self._session.allocate_inputs(self._batch)

    def give(self, buffer: dict[str, Array]) -> None:
        self._free.append(buffer)


def usable(found: BatchDetections) -> BatchDetections:
    """Those that have finite numbers and an area: one wrong answer must not spoil what is made of all."""
    boxes, scores = found.detections.boxes, found.detections.scores
    good = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
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
