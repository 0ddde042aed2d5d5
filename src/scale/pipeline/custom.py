"""Models by the names that users already have, and users' own, as runners of the pipeline."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from redline.detection.results import BatchDetections, Detections
from scale.domain import Predictions, to_detections
from scale.pipeline.models import runner_of
from scale.pipeline.plan import ModelShape
from scale.pipeline.runners import ModelInfo, Runner, Sealed, usable

_BATCH = 32


def runner_for(model: Any, name: str, window_px: int) -> Runner:
    """A runner for a model of :mod:`scale.aimodels`, or for anything that has ``predict(images_bgr)``.

    Raises:
        InputError: it is neither, or its file cannot be used.
    """
    opened = getattr(model, "opened", None)
    if opened is not None:
        return runner_of(opened, name=name, window_px=window_px)
    if callable(getattr(model, "predict", None)):
        return PredictRunner(model, name=name, window_px=window_px)
    raise InputError(f"model {name} is a {type(model).__name__}, expected one of scale.aimodels or a predict method")


class PredictRunner:
    """A model that is known by its ``predict(images_bgr)`` alone, which one thread calls."""

    def __init__(self, model: Any, *, name: str, window_px: int, batch: int = _BATCH) -> None:
        self._model = model
        self._name = name
        self._names: list[str] = list(dict.fromkeys(getattr(model, "cls_index_to_name", {}).values()))
        self._lock = threading.Lock()
        self.shape = ModelShape(
            name=name, window_px=window_px, batch=batch, input_hw=(window_px, window_px), form=f"images of {name}"
        )

    @property
    def info(self) -> ModelInfo:
        """The classes that have been seen so far, where the model does not say them before."""
        with self._lock:
            return ModelInfo(name=self._name, class_names=tuple(self._names), identity={})

    def fit(self, image: Array, /) -> Array:
        """The window itself, blue first."""
        return np.ascontiguousarray(image[:, :, ::-1])

    def seal(self, windows: Sequence[Array | None], /) -> Sealed:
        """The windows that there are; such a model takes any number."""
        return Sealed(
            inputs=[window for window in windows if window is not None], places=[w is not None for w in windows]
        )

    def infer(self, inputs: list[Array], /) -> Sequence[Predictions]:
        """Predict."""
        answers: Sequence[Predictions] = self._model.predict(inputs) if inputs else []
        if len(answers) != len(inputs):
            raise InputError(f"model {self._name} gave {len(answers)} answers for {len(inputs)} images")
        return answers

    def decode(self, outputs: Sequence[Predictions], places: Sequence[bool], /) -> BatchDetections:
        """Predictions by class as arrays."""
        rest = iter(outputs)
        found = [self._numbered(next(rest)) if there else Detections.empty() for there in places]
        return usable(BatchDetections.of(found))

    def _numbered(self, predictions: Predictions) -> Detections:
        found, names = to_detections(predictions)
        with self._lock:
            for name in names:
                if name not in self._names:
                    self._names.append(name)
            numbers = np.array([self._names.index(name) for name in names], np.int32)
        return replace(found, classes=numbers[found.classes] if len(found) else found.classes)
