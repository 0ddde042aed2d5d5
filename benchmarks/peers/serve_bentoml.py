"""The same model behind BentoML, as its documentation shows it.

MODEL=MODEL.onnx bentoml serve serve_bentoml:Model --port PORT
"""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


@bentoml.service(workers=int(os.environ.get("WORKERS", "1")), traffic={"timeout": 60})
class Model:
    """Three forms of a request, one session."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    @bentoml.api(route="/json")
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run([self.output], {self.input: x.astype(np.float32)})[0]

    @bentoml.api(route="/jpeg")
    def classify(self, image: Path) -> np.ndarray:
        picture = Image.open(image).convert("RGB")
        side = 256 / min(picture.size)
        picture = picture.resize((round(picture.width * side), round(picture.height * side)), Image.Resampling.BILINEAR)
        x, y = (picture.width - 224) // 2, (picture.height - 224) // 2
        pixels = np.asarray(picture.crop((x, y, x + 224, y + 224)), np.float32).transpose(2, 0, 1) / 255
        return self.session.run([self.output], {self.input: ((pixels - MEAN) / STD)[None]})[0]
