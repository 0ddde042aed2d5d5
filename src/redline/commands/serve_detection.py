"""Whether the server can tell a detector's boxes, asked when the model is opened and not at the first request."""

from __future__ import annotations

from dataclasses import replace

from redline.core.errors import InputError, MissingDependencyError
from redline.core.preprocess import Detection, Preprocess
from redline.opening.opening import Opened


def detection_of(opened: Opened, preprocess: Preprocess | None) -> tuple[Detection | None, tuple[str, ...]]:
    """What the outputs mean, of a detector whose boxes can be told; and what its user should know."""
    if opened.detection is None:
        return None, ()
    from redline.detection.detector import Detector
    from redline.detection.letterbox import opencv

    try:
        height_px, width_px = Detector(opened.session, replace(opened.usage, preprocess=preprocess)).input_hw
    except InputError as error:
        return None, (f"answers with its outputs and not with boxes: {error}",)
    try:
        opencv()
    except MissingDependencyError as error:
        return opened.detection, (f"takes only images of {width_px}x{height_px} pixels: {error}",)
    return opened.detection, ()
