"""A model that is open: a detector, the classes that are asked of it, and what is known about the file behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redline.core.errors import EngineMismatchError, InputError
from redline.core.preprocess import Usage
from redline.core.session import Session
from redline.core.tensor import Array
from scale.models.spec import ModelSpec
from scale.models.suppression import best_suppression

if TYPE_CHECKING:
    from redline.detection.detector import Detector
    from redline.detection.results import BatchDetections, Detections

_DEFAULT_INPUT_PX = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What answers.

    Attributes:
        path: The file.
        runtime: ``tensorrt``, ``tensorrt-rtx``, ``onnxruntime``, ``onnxruntime-cuda``, ``openvino`` or ``torch``.
        precision: Of most of its layers, in words, as read from the file; ``unknown`` where nobody can say.
    """

    path: Path
    runtime: str
    precision: str

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU runs it for certain."""
        return self.runtime.startswith("tensorrt") or self.runtime.endswith("cuda")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenFile:
    """A session with what its file says about it.

    Attributes:
        runtime: As :class:`Origin` has it.
        precision: As read from the file; of an engine that Redline did not build what its header says, else
            ``unknown``.
    """

    session: Session
    usage: Usage
    runtime: str
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenModel:
    """A model that answers; its detector is run by one thread at a time.

    Attributes:
        origin: The file that answers, and what runs it.
        class_names: By the model's own index; classes that are not in it are not asked for.
        notes: What a user should know.
    """

    spec: ModelSpec
    detector: Detector
    origin: Origin
    class_names: Mapping[int, str]
    notes: tuple[str, ...] = ()
    _position: Array = field(repr=False)

    @property
    def runtime(self) -> str:
        """What runs it."""
        return self.origin.runtime

    @property
    def precision(self) -> str:
        """Of most of its layers, in words."""
        return self.origin.precision

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order in which :meth:`select` counts them."""
        return tuple(dict.fromkeys(self.class_names.values()))

    @property
    def batch(self) -> int:
        """The most images in one call."""
        return min(self.spec.batch, self.detector.largest_batch or self.spec.batch)

    def select(self, found: BatchDetections) -> BatchDetections:
        """Those of the classes that are asked for; their numbers become positions in :attr:`names`."""
        classes = found.detections.classes
        inside = np.clip(classes, 0, len(self._position) - 1)
        position = np.where(classes == inside, self._position[inside], -1).astype(np.int32)
        return replace(found, detections=replace(found.detections, classes=position)).take(position >= 0)

    def __call__(self, images: Sequence[Array]) -> list[Detections]:
        """What is in each image, uint8 RGB arrays of any sizes, in pixels of the image; any number of images."""
        found: list[Detections] = []
        for start in range(0, len(images), self.batch):
            prepared = self.detector.prepare(images[start : start + self.batch])
            found += self.select(self.detector.decode_batch(self.detector.run(prepared), prepared)).split()
        return found

    def close(self) -> None:
        """Free the model."""
        self.detector.session.close()


def loaded(spec: ModelSpec, path: Path, opened: OpenFile) -> OpenModel:
    """A model of an open file, which is closed where it cannot serve as one; on a GPU it has answered once.

    Raises:
        InputError: it is no detector, or not the one that the spec describes.
        EngineMismatchError: it gives numbers that are not finite.
    """
    from redline.detection.detector import Detector

    session, origin = opened.session, Origin(path=path, runtime=opened.runtime, precision=opened.precision)
    try:
        usage = _usage_for(spec, opened.usage, session)
        class_names = _class_names(spec, origin.path, usage.class_names)
        all_asked = set(class_names) == set(range(len(usage.class_names)))
        try:
            detector = Detector(
                session,
                usage,
                confidence=spec.confidence,
                iou=spec.iou,
                max_detections=spec.max_detections,
                classes=None if all_asked else tuple(class_names),
                suppression=best_suppression(),
            )
        except InputError as error:
            raise InputError(f"{origin.path.name}: {error}") from error
        if origin.on_gpu:
            _try_once(detector, origin.path)
    except BaseException:
        session.close()
        raise
    return OpenModel(
        spec=spec,
        detector=detector,
        origin=origin,
        class_names=class_names,
        notes=_swapped(origin.path, class_names, usage.class_names),
        _position=_positions(class_names),
    )


def _usage_for(spec: ModelSpec, usage: Usage, session: Session) -> Usage:
    """What the file says, with the input's size where only the user says it.

    Raises:
        InputError: the model is fixed at another size.
    """
    from redline.detection.preparing import input_sizes, letterbox_preprocess

    sizes = input_sizes(session.signature.inputs[0]) if session.signature.inputs else ()
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if spec.input_px is not None and any(size != spec.input_px for size in fixed):
        raise InputError(
            f"model {spec.name} takes images of {'x'.join(map(str, fixed))} px, got input {spec.input_px}; "
            "leave it out, or export the model at that size"
        )
    if usage.preprocess is None and len(fixed) != 2:
        side = spec.input_px or _DEFAULT_INPUT_PX
        return replace(usage, preprocess=letterbox_preprocess(side, side))
    if spec.input_px is not None and usage.preprocess is not None:
        sized = replace(usage.preprocess, height_px=spec.input_px, width_px=spec.input_px)
        return replace(usage, preprocess=sized)
    return usage


def _class_names(spec: ModelSpec, path: Path, told: tuple[str, ...]) -> dict[int, str]:
    """The classes that are asked for.

    Raises:
        InputError: neither the user nor the file names any, or the model has no such class.
    """
    asked = dict(sorted(spec.class_names.items())) or dict(enumerate(told))
    if not asked:
        raise InputError(f'{path.name} names no classes; name them: classes = {{ 0 = "Cell" }}')
    if told and max(asked) >= len(told):
        raise InputError(f"model {spec.name} has no class {max(asked)}; {path.name} has {len(told)}: {', '.join(told)}")
    return asked


def _swapped(path: Path, asked: Mapping[int, str], told: tuple[str, ...]) -> tuple[str, ...]:
    """Names that the file gives to another index than the user does."""
    return tuple(
        f"{path.name} calls its class {told.index(name)} {name!r}, and class {index} was asked for by that name"
        for index, name in asked.items()
        if name in told and told[index] != name
    )


def _positions(class_names: Mapping[int, str]) -> Array:
    names = tuple(dict.fromkeys(class_names.values()))
    position = np.full(max(class_names) + 1, -1, np.int32)
    for index, name in class_names.items():
        position[index] = names.index(name)
    return position


def _try_once(detector: Detector, path: Path) -> None:
    """Have it answer once: some engines load and then cannot run, or give numbers that are none.

    Raises:
        EngineMismatchError: its answer is not finite.
    """
    height, width = detector.input_hw
    prepared = detector.prepare([np.full((height, width, 3), 127, np.uint8)])
    outputs = detector.run(prepared)
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise EngineMismatchError(f"{path.name}: its output {name} is not finite; build it again in float32")
    detector.decode(outputs, prepared)
