"""The outputs of a detector into what it found, in pixels of the images; needs no session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from redline.core.errors import InputError
from redline.core.preprocess import Detection
from redline.core.tensor import Array
from redline.detection.heads import Candidates, Layout, candidates_of, layout_of
from redline.detection.letterbox import Placement, boxes_to_source, points_to_source
from redline.detection.masks import polygons_of
from redline.detection.nms import MAX_CANDIDATES, MAX_DETECTIONS, Suppression, best_first, nms
from redline.detection.results import BatchDetections, Detections, Polygons

CONFIDENCE = 0.25
IOU = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Decodes a batch.

    Attributes:
        detection: What is said about the outputs.
        class_count: How many classes the model has names for; None where it has none.
        confidence: Boxes with this score or less are left out.
        iou: Intersection over union above which the lesser of two boxes of one class goes; finished boxes stay.
        max_detections: No more for one image.
        classes: Only boxes whose best class is one of these, before any is compared with another; None takes all.
        suppression: What compares the boxes of an image.
    """

    detection: Detection | None = None
    class_count: int | None = None
    confidence: float = CONFIDENCE
    iou: float = IOU
    max_detections: int = MAX_DETECTIONS
    classes: tuple[int, ...] | None = None
    suppression: Suppression = nms

    def __post_init__(self) -> None:
        for name, value in (("confidence", self.confidence), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected 0 to 1")
        if self.max_detections < 1:
            raise InputError(f"max_detections is {self.max_detections}, expected 1 or more")

    def __call__(
        self, outputs: Mapping[str, Array], placements: Sequence[Placement], input_hw: tuple[int, int]
    ) -> BatchDetections:
        """What was found in each image, best first, in its own pixels and within it.

        Args:
            outputs: Of the session, by name; the rows that fill up a batch may still be there.
            placements: Where each image lies in the input.
            input_hw: Height and width of the input in pixels.

        Raises:
            InputError: the outputs are not those of a detector that is known, or fewer than the images.
            MissingDependencyError: the model segments, and OpenCV is not installed.
        """
        layout = layout_of(
            {name: array.shape for name, array in outputs.items()},
            detection=self.detection,
            class_count=self.class_count,
        )
        predictions, count = outputs[layout.predictions], len(placements)
        if len(predictions) < count:
            raise InputError(f"the outputs have {len(predictions)} rows, expected one for each of {count}")
        found = self._kept(candidates_of(predictions[:count], layout, self.confidence), layout)
        polygons = None
        if layout.prototypes:
            outlines, has = _outlines(outputs[layout.prototypes], found, input_hw)
            found = found.take(np.flatnonzero(has))
            owners = np.repeat(found.images, outlines.lengths)
            polygons = outlines.mapped(partial(points_to_source, placements=placements, images=owners))
        boxes = boxes_to_source(found.boxes, placements, found.images)
        detections = Detections(boxes=boxes, scores=found.scores, classes=found.classes, polygons=polygons)
        return BatchDetections(detections=detections, images=found.images, count=count)

    def _kept(self, candidates: Candidates, layout: Layout) -> Candidates:
        if self.classes is not None:
            candidates = candidates.take(np.flatnonzero(np.isin(candidates.classes, self.classes)))
        if layout.head == "end2end":
            return candidates.take(best_first(candidates.scores, candidates.images, self.max_detections))
        kept = self.suppression(
            candidates.boxes,
            candidates.scores,
            candidates.classes,
            iou=self.iou,
            images=candidates.images,
            max_candidates=MAX_CANDIDATES,
            max_detections=self.max_detections,
        )
        return candidates.take(kept)


def _outlines(prototypes: Array, found: Candidates, input_hw: tuple[int, int]) -> tuple[Polygons, Array]:
    """Of the boxes that have one, in pixels of the input, and which these are."""
    parts, has = [], np.zeros(len(found.images), np.bool_)
    for image in np.unique(found.images).tolist():
        own = np.flatnonzero(found.images == image)
        outlines, has[own] = polygons_of(prototypes[image], found.shares[own], found.boxes[own], input_hw)
        parts.append(outlines)
    return Polygons.concatenate(parts), has
