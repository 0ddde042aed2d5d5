"""A detector of a few lines: whatever the image, it finds what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tests.detection.models import NAMES, v8_predictions
from tests.serving.fakes import Shelf

from redline.core.preprocess import Detection
from redline.core.tensor import Array, Signature, TensorSpec
from redline.detection.preparing import letterbox_preprocess
from redline.serving.models import Loaded

SIDE_PX = 64
# Centre, width, height in pixels of the input, class, score.
FOUND = [(32, 32, 32, 16, 0, 0.9), (34, 32, 32, 16, 0, 0.8), (10, 20, 8, 8, 1, 0.6), (50, 50, 8, 8, 2, 0.15)]


@dataclass
class DetectorShelf(Shelf):
    """An opener of the model ``finder``."""

    predictions: Array = field(default_factory=lambda: v8_predictions(FOUND))
    prototypes: Array | None = None
    names: tuple[str, ...] = NAMES
    batch: int | str = "batch"

    def __call__(self, path: Path) -> Loaded:
        if path.stem != "finder":
            return super().__call__(path)
        outputs = [TensorSpec("output0", (self.batch, *self.predictions.shape), "float32")]
        if self.prototypes is not None:
            outputs.append(TensorSpec("output1", (self.batch, *self.prototypes.shape), "float32"))
        return Loaded(
            runs=(self.find,),
            signature=Signature((TensorSpec("images", (self.batch, 3, SIDE_PX, SIDE_PX), "float32"),), tuple(outputs)),
            precision="fp32",
            backend="fake",
            platform="onnx_onnxv1",
            size_bytes=123_456,
            close=lambda: None,
            preprocess=letterbox_preprocess(SIDE_PX, SIDE_PX),
            class_names=self.names,
            detection=Detection(task="detect" if self.prototypes is None else "segment"),
        )

    def find(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The same for each row."""
        rows = len(inputs["images"])
        answer = {"output0": np.repeat(self.predictions[None], rows, axis=0)}
        if self.prototypes is not None:
            answer["output1"] = np.repeat(self.prototypes[None], rows, axis=0)
        return answer
