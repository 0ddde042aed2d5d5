"""A tiny detector with YOLO's head, whose answers one can foretell, and what lies beside such a file in life."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.onnx_models import Dims, save_graph

from redline.core.tensor import Array

SIDE_PX = 64
CELL_PX = 8


def bright_model(
    path: Path,
    *,
    names: Sequence[str] = ("Red", "Green"),
    batch: int | str = "batch",
    side: int | str = SIDE_PX,
    told: bool = True,
    gain: float = 20.0,
) -> Path:
    """Finds cells of 8x8 pixels that are bright in red (class 0), green (1) or blue (2).

    Args:
        path: Of the ONNX file.
        names: Of the classes, three at most.
        batch: A number, or a name for one that is open.
        side: Of the input; a name for one that is open, where only 64 can be run.
        told: Whether the file holds Ultralytics' metadata.
        gain: How steeply the score rises with brightness.
    """
    classes, cells = len(names), SIDE_PX // CELL_PX
    weights = np.zeros((classes, 3, CELL_PX, CELL_PX), np.float32)
    for index in range(classes):
        weights[index, index] = gain / CELL_PX**2
    middles = np.arange(cells, dtype=np.float32) * CELL_PX + CELL_PX / 2
    x, y = np.meshgrid(middles, middles)
    size = np.full(cells * cells, CELL_PX, np.float32)
    constants = {
        "w": weights,
        "b": np.full(classes, -gain / 2, np.float32),
        "boxes": np.stack([x.ravel(), y.ravel(), size, size])[None],
        "shape": np.array([0, classes, cells * cells]),
        "first": np.array([0]),
        "second": np.array([1]),
        "axis": np.array([1]),
        "zero": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["c"], name="conv", strides=[CELL_PX, CELL_PX]),
        helper.make_node("Sigmoid", ["c"], ["s"], name="sigmoid"),
        helper.make_node("Reshape", ["s", "shape"], ["scores"], name="reshape"),
        helper.make_node("Slice", ["scores", "first", "second", "axis"], ["one"], name="slice"),
        helper.make_node("Mul", ["one", "zero"], ["nothing"], name="mul"),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"], name="add"),
        helper.make_node("Concat", ["placed", "scores"], ["output0"], name="concat", axis=1),
    ]
    shape: Dims = [batch, 3, side, side]
    outputs: dict[str, tuple[int, Dims]] = {"output0": (TensorProto.FLOAT, [batch, 4 + classes, cells * cells])}
    save_graph(path, nodes, {"images": (TensorProto.FLOAT, shape)}, outputs, constants)
    if told:
        proto = onnx.load_model(str(path))
        metadata = {"task": "detect", "stride": "8", "names": str(dict(enumerate(names))), "imgsz": "[64, 64]"}
        helper.set_model_props(proto, metadata)
        onnx.save(proto, str(path))
    return path


def image_with(*cells: tuple[int, int, int]) -> Array:
    """A black RGB image of 64x64 pixels with cells (column, row, channel) at full brightness."""
    image = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    for column, row, channel in cells:
        image[row * CELL_PX : (row + 1) * CELL_PX, column * CELL_PX : (column + 1) * CELL_PX, channel] = 255
    return image


def touch(path: Path, *, at_s: int) -> Path:
    """Make a file as if it had last been changed at that second."""
    if not path.exists():
        path.write_bytes(b"")
    os.utime(path, (at_s, at_s))
    return path
