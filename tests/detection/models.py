"""Tiny ONNX detectors whose answers are known: whatever the image, they find what they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.onnx_models import save_graph

NAMES = ("cat", "dog", "bird")


def detector_model(
    path: Path,
    predictions: np.ndarray,
    *,
    prototypes: np.ndarray | None = None,
    size_px: int | str = 64,
    batch: int | str = "batch",
    metadata: dict[str, str] | None = None,
    dtype: int = TensorProto.FLOAT,
) -> Path:
    """A model that answers every image of a batch with ``predictions``, to which 0 times its mean is added."""
    half = dtype == TensorProto.FLOAT16
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing4"]),
        helper.make_node("Squeeze", ["nothing4", "last"], ["nothing3"]),
        helper.make_node("Add", ["nothing3", "predictions"], ["output0"]),
    ]
    numbers = np.float16 if half else np.float32
    constants = {
        "zero": np.zeros(1, numbers),
        "last": np.array([3], np.int64),
        "predictions": predictions[None].astype(numbers),
    }
    outputs = {"output0": (dtype, [batch, *predictions.shape])}
    if prototypes is not None:
        nodes.append(helper.make_node("Add", ["nothing4", "prototypes"], ["output1"]))
        constants["prototypes"] = prototypes[None].astype(numbers)
        outputs["output1"] = (dtype, [batch, *prototypes.shape])
    save_graph(path, nodes, {"images": (dtype, [batch, 3, size_px, size_px])}, outputs, constants)
    if metadata:
        model = onnx.load(str(path))
        helper.set_model_props(model, metadata)
        onnx.save(model, str(path))
    return path


def ultralytics_metadata(*, task: str = "detect", size_px: int = 64, names: tuple[str, ...] = NAMES) -> dict[str, str]:
    """What Ultralytics writes into its exports."""
    return {
        "description": "a model",
        "task": task,
        "names": str(dict(enumerate(names))),
        "imgsz": f"[{size_px}, {size_px}]",
        "stride": "32",
        "channels": "3",
        "batch": "1",
    }


def v8_predictions(boxes: list[tuple[float, ...]], *, count: int = 84, classes: int = 3, shares: int = 0) -> np.ndarray:
    """(4 + classes + shares, count) of rows (centre x, centre y, width, height, class, score, *shares)."""
    values = np.zeros((4 + classes + shares, count), np.float32)
    values[:2], values[2:4] = 1, 2
    for column, (x, y, width, height, label, score, *mixed) in enumerate(boxes):
        values[:4, 3 + column] = x, y, width, height
        values[4 + int(label), 3 + column] = score
        values[4 + classes :, 3 + column] = mixed
    return values
