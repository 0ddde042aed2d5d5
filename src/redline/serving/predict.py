"""The friendly route: an image or plain JSON in, classes with their names or boxes out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.core.errors import RequestError
from redline.core.tensor import Array
from redline.serving import protocol
from redline.serving.answers import Call, Reply, json_reply
from redline.serving.boxes import Boxes, boxes_for
from redline.serving.datatypes import datatype_of
from redline.serving.image_inputs import ImageInputs
from redline.serving.images import CONTENT_TYPES, looks_like_image
from redline.serving.inference import Asked, Inference, Spent, limits_of
from redline.serving.limits import Limits
from redline.serving.models import Models
from redline.serving.versions import Version
from redline.verification.guesses import guesses_of

MOST_TOP = 1000
_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    """An output that is no classifier's, nested as its shape is."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array | list[Any]


class Predict:
    """Answers ``POST /predict``."""

    def __init__(self, models: Models, inference: Inference, images: ImageInputs, limits: Limits) -> None:
        self._models = models
        self._inference = inference
        self._images = images
        self._limits = limits

    def predict(self, call: Call, model: str) -> Reply:
        """Run a model, the only one where none is named, on what the body holds."""
        name = model or self._models.default_name
        if name is None:
            names = ", ".join(self._models.names) or "none"
            raise RequestError(f"more models than one are served, or none ({names}); ask POST /predict/<name>")
        top = _top_of(call.query)
        return self._inference.answer(name, call.query.get("version"), lambda served: self._decode(call, served, top))

    def _decode(self, call: Call, served: Version, top: int) -> Asked:
        limits = limits_of(served, self._limits)
        body = protocol.inflate(call.body, call.headers.get("content-encoding"), limits)
        content_type = call.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        sizes_hw: Sequence[tuple[int, int]] | None = None
        if kind == "application/json":
            request = protocol.parse_tensors(body, served.loaded.signature, limits, model=served.name)
            inputs, rows = request.inputs, request.rows
        elif kind == "multipart/form-data":
            # Only what sends forms needs the parser of forms.
            from redline.serving.multipart import files_of

            files = files_of(body, content_type, most_files=limits.batch_rows)
            batch = self._images.batch_of(served, files)
            inputs, rows, sizes_hw = batch.inputs, len(files), batch.sizes_hw
        elif kind in CONTENT_TYPES or (kind in ("", "application/octet-stream") and looks_like_image(body)):
            batch = self._images.batch_of(served, [body])
            inputs, rows, sizes_hw = batch.inputs, 1, batch.sizes_hw
        else:
            raise RequestError(
                f"got the Content-Type '{kind[:64] or 'none'}', expected {', '.join(CONTENT_TYPES)}, "
                "multipart/form-data or application/json",
                status=415,
            )
        detection = served.loaded.detection
        boxes: Boxes | None = None
        if detection is not None:
            boxes = boxes_for(served, detection, inputs, call.query, sizes_hw=sizes_hw, rows=rows)
        return Asked(
            inputs=inputs,
            rows=rows,
            encode=lambda outputs, spent: _encode(served, outputs, spent, boxes, rows=rows, top=top),
        )


def _encode(
    served: Version, outputs: Mapping[str, Array], spent: Spent, boxes: Boxes | None, *, rows: int, top: int
) -> Reply:
    # What comes of filling up a batch that is fixed in the file is cut off again.
    begun = time.perf_counter()
    outputs = {name: array[:rows] if array.ndim else array for name, array in outputs.items()}
    said = {"boxes": boxes.of(outputs)} if boxes else _said(outputs, served.loaded.class_names, top)
    times = {"queue": spent.queue_s, "decode": spent.decode_s, "infer": spent.infer_s}
    times["encode"] = time.perf_counter() - begun
    ms = {phase: round(1000 * seconds, 3) for phase, seconds in times.items()}
    return json_reply({"model": served.name, "version": served.number, **said, "ms": ms})


def _top_of(query: Mapping[str, str]) -> int:
    given = query.get("top")
    if given is None:
        return _TOP
    if not (given.isascii() and given.isdecimal() and len(given) <= 4 and 1 <= int(given) <= MOST_TOP):
        raise RequestError(f"'top' is no whole number from 1 to {MOST_TOP}")
    return int(given)


def _said(
    outputs: Mapping[str, Array], names: Sequence[str] | None, top: int
) -> dict[str, list[list[dict[str, str | float | None]]]] | dict[str, list[_Plain]]:
    """Classes where the outputs are a classifier's, else the outputs themselves."""
    guesses = guesses_of(outputs, names, top=top)
    if guesses:
        return {
            "predictions": [
                [{"class": one.index, "name": one.name, "probability": one.probability} for one in row]
                for row in guesses
            ]
        }
    return {"outputs": [_plain(name, array) for name, array in outputs.items()]}


def _plain(name: str, array: Array) -> _Plain:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(
            f"output '{name}' has NaN or infinite values, which JSON has no words for; ask /v2 for binary outputs"
        )
    if array.dtype.kind in "OSU":
        data = np.vectorize(_text, otypes=[object])(array).tolist() if array.size else []
    else:
        # Anything that a JSON writer has no numbers for, bfloat16 among them, becomes floats first.
        data = np.ascontiguousarray(array if array.dtype.kind in "fiub" else array.astype(np.float32))
    return _Plain(name=name, datatype=datatype_of(array.dtype), shape=array.shape, data=data)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
