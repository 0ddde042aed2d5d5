"""A session that detects: images in, boxes in their own pixels out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redline.core.preprocess import DetectionTask, Usage
from redline.core.session import Session, SupportsProfiles
from redline.core.tensor import Array, Signature
from redline.detection.decoding import CONFIDENCE, IOU, Decoder
from redline.detection.heads import layout_of
from redline.detection.nms import MAX_DETECTIONS, Suppression, nms
from redline.detection.preparing import Prepared, Preparer
from redline.detection.results import BatchDetections, Detections


class Detector:
    """Finds objects by a model of the YOLO family; as its session, used by one thread at a time.

    Its three steps may run in different threads: only :meth:`run` touches the session.

    Attributes:
        preparer: How it is fed.
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
        classes: Sequence[int] | None = None,
        suppression: Suppression = nms,
    ) -> None:
        """Raises InputError where the model takes no images, or its outputs are those of no detector."""
        self._session = session
        sizes = session.batch_sizes if isinstance(session, SupportsProfiles) else ()
        largest = sizes[-1] if sizes else None
        self.preparer = Preparer.of(session.signature, usage.preprocess, largest_batch=largest)
        self.class_names = usage.class_names if class_names is None else tuple(class_names)
        self.input_hw = self.preparer.input_hw
        self.batch = self.preparer.batch
        self._decoder = Decoder(
            detection=usage.detection,
            class_count=len(usage.class_names) or None,
            confidence=confidence,
            iou=iou,
            max_detections=max_detections,
            classes=None if classes is None else tuple(classes),
            suppression=suppression,
        )
        _check_outputs(session.signature, self._decoder)

    @property
    def task(self) -> DetectionTask:
        """``detect`` or ``segment``."""
        return self._decoder.detection.task if self._decoder.detection else "detect"

    @property
    def takes_bytes(self) -> bool:
        """Whether its input is uint8: images are copied into it and nothing else."""
        return self.preparer.takes_bytes

    @property
    def session(self) -> Session:
        """What runs the model."""
        return self._session

    @property
    def largest_batch(self) -> int | None:
        """How many images it takes at once; None where nothing limits them."""
        return self.preparer.largest_batch

    def __call__(self, images: Sequence[Array]) -> list[Detections]:
        """What is in each image: uint8 RGB arrays (height, width, 3) of any sizes."""
        step = self.largest_batch or len(images) or 1
        found: list[Detections] = []
        for start in range(0, len(images), step):
            prepared = self.prepare(images[start : start + step])
            found += self.decode(self.run(prepared), prepared)
        return found

    def prepare(self, images: Sequence[Array], *, into: Mapping[str, Array] | None = None) -> Prepared:
        """Images as one batch, as :class:`redline.detection.preparing.Preparer` makes it."""
        return self.preparer(images, into=into)

    def run(self, prepared: Prepared) -> dict[str, Array]:
        """The outputs of the model."""
        return self._session(prepared.inputs)

    def decode(self, outputs: Mapping[str, Array], prepared: Prepared) -> list[Detections]:
        """What the outputs say of each image, best first, in its own pixels and within it."""
        return self.decode_batch(outputs, prepared).split()

    def decode_batch(self, outputs: Mapping[str, Array], prepared: Prepared) -> BatchDetections:
        """As :meth:`decode`, of all images in one piece."""
        return self._decoder(outputs, prepared.placements, self.input_hw)


def _check_outputs(signature: Signature, decoder: Decoder) -> None:
    """Say at once what could only be said of the first answer, where the shapes are known before it."""
    shapes = {spec.name: spec.shape for spec in signature.outputs}
    if all(isinstance(size, int) for shape in shapes.values() for size in shape[1:]):
        layout_of(shapes, detection=decoder.detection, class_count=decoder.class_count)
