"""What Ultralytics' exports say about themselves, read as a ``Usage``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Literal

from redline.core.preprocess import Detection, DetectionTask, Preprocess, Usage

_LONGEST_TEXT = 1 << 20
_MOST_CLASSES = 100_000
_TASKS: dict[str, DetectionTask] = {"detect": "detect", "segment": "segment"}
_Resize = Literal["crop", "letterbox"]
_RESIZES: dict[str, _Resize] = {
    "detect": "letterbox",
    "segment": "letterbox",
    "pose": "letterbox",
    "obb": "letterbox",
    "classify": "crop",
}


def usage_of_metadata(told: Mapping[str, Any], input_shape: tuple[int, ...] = ()) -> Usage:
    """Read the metadata of an ONNX file, whose values are all text, or of an engine, where they are JSON.

    Args:
        told: ``task``, ``names``, ``imgsz``, ``stride``, ``channels`` and ``end2end``; YOLOv5's own exports have
            ``names`` and ``stride`` only.
        input_shape: Of the model's input, 0 where a size is dynamic: for files that do not say their size.

    Returns:
        What it says; an empty one where this is no such file.
    """
    if "names" not in told or ("task" not in told and "stride" not in told):
        return Usage()
    task = str(told.get("task", "detect"))
    names = _names(_literal(told["names"]))
    size = _size(_literal(told.get("imgsz", "")), input_shape)
    gray = _whole(_literal(told.get("channels", "3"))) == 1
    preprocess = _preprocess(size, _RESIZES[task], gray=gray) if size and task in _RESIZES else None
    if task not in _TASKS:
        return Usage(preprocess=preprocess, class_names=names)
    return Usage(
        preprocess=preprocess,
        class_names=names,
        detection=Detection(
            task=_TASKS[task],
            head="end2end" if str(told.get("end2end")).lower() == "true" else None,
            stride=_whole(_literal(told.get("stride", ""))),
        ),
    )


def _preprocess(size: tuple[int, int], resize: _Resize, *, gray: bool) -> Preprocess:
    channels = 1 if gray else 3
    return Preprocess(
        height_px=size[0],
        width_px=size[1],
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        color="gray" if gray else "rgb",
        resize=resize,
        resize_ratio=1.0,
    )


def _literal(text: Any) -> Any:
    """A Python literal, as these files have them for numbers, lists and dicts; None where it is none."""
    if not isinstance(text, str):
        return text
    if len(text) > _LONGEST_TEXT:
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _names(value: Any) -> tuple[str, ...]:
    """Names in the order of their indices; an index without one is called by its number."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return ()
    value = {int(index) if str(index).isdecimal() else -1: name for index, name in value.items()}
    if min(value) < 0 or max(value) >= _MOST_CLASSES:
        return ()
    return tuple(str(value.get(index, index)) for index in range(max(value) + 1))


def _size(value: Any, input_shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and width: the input's own where they are fixed, else what the file was exported at."""
    if len(input_shape) == 4 and min(input_shape[2:]) > 0:
        return input_shape[2], input_shape[3]
    sides = [value, value] if type(value) is int else value
    if isinstance(sides, (list, tuple)) and len(sides) == 2 and all(type(side) is int and side > 0 for side in sides):
        return sides[0], sides[1]
    return None


def _whole(value: Any) -> int | None:
    """A positive whole number; of several, the largest."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    found = [int(number) for number in numbers if isinstance(number, (int, float)) and 1 <= number < 1 << 20]
    return max(found) if found else None
