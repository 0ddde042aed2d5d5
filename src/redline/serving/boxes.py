"""The answer of a detector: boxes in the pixels of the images that were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from redline.core.errors import InputError, MissingDependencyError, RequestError
from redline.core.preprocess import Detection
from redline.core.tensor import Array
from redline.detection.decoding import CONFIDENCE, IOU, Decoder
from redline.detection.letterbox import identity, placement_of
from redline.detection.plain import PlainBox, to_plain
from redline.serving.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Reads a detector's outputs for one request.

    Attributes:
        decoder: With the thresholds that were asked for.
        class_names: Of the model; None where nobody said.
        input_hw: Height and width of the input in pixels.
        sizes_hw: Of each image; None where tensors came, whose boxes stay in pixels of the input.
        rows: How many rows were sent.
    """

    decoder: Decoder
    class_names: tuple[str, ...] | None
    input_hw: tuple[int, int]
    sizes_hw: tuple[tuple[int, int], ...] | None
    rows: int

    def of(self, outputs: Mapping[str, Array]) -> list[list[PlainBox]]:
        """The boxes of each row, best first, as JSON has them.

        Raises:
            RequestError: the outputs are not those of a detector, or what reads masks is not installed.
        """
        if self.sizes_hw is None:
            placements = [identity(self.input_hw)] * self.rows
        else:
            placements = [placement_of(size_hw, self.input_hw) for size_hw in self.sizes_hw]
        try:
            found = self.decoder(outputs, placements, self.input_hw).split()
        except MissingDependencyError as error:
            raise RequestError(f"this server tells no masks, as it lacks {error.package}", status=500) from error
        except InputError as error:
            raise RequestError(str(error), status=500) from error
        return [to_plain(one, self.class_names) for one in found]


def boxes_for(
    served: Version,
    detection: Detection,
    inputs: Mapping[str, Array],
    query: Mapping[str, str],
    *,
    sizes_hw: Sequence[tuple[int, int]] | None,
    rows: int,
) -> Boxes:
    """What reads the outputs of one request.

    Raises:
        RequestError: a threshold is no number from 0 to 1.
    """
    names, preprocess = served.loaded.class_names, served.loaded.preprocess
    shape = next(iter(inputs.values())).shape
    last = preprocess is not None and preprocess.layout == "nhwc"
    return Boxes(
        decoder=Decoder(
            detection=detection,
            class_count=len(names) if names else None,
            confidence=_share_of(query, "confidence", CONFIDENCE),
            iou=_share_of(query, "iou", IOU),
        ),
        class_names=names,
        input_hw=(shape[1], shape[2]) if last else (shape[2], shape[3]),
        sizes_hw=None if sizes_hw is None else tuple(sizes_hw),
        rows=rows,
    )


def _share_of(query: Mapping[str, str], name: str, default: float) -> float:
    given = query.get(name)
    if given is None:
        return default
    try:
        share = float(given) if len(given) <= 16 and given.isascii() else -1.0
    except ValueError:
        share = -1.0
    if not (isfinite(share) and 0 <= share <= 1):
        raise RequestError(f"'{name}' is no number from 0 to 1")
    return share
