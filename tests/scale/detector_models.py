"""A detector of dark spots as a tiny ONNX file, so that results on a real slide mean something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.onnx_models import Dims, save_graph

CELL_PX = 8


def spot_model(
    path: Path, *, size_px: int = 64, batch: int | str = "batch", box_px: int = 20, names: tuple[str, ...] = ("spot",)
) -> Path:
    """Boxes of ``box_px`` where the red channel is darker than around it, in cells of 8 pixels.

    The head is that of YOLOv8, the metadata are Ultralytics'. Every class scores a little less than the one before.
    """
    side = size_px // CELL_PX
    centres = (np.arange(side, dtype=np.float32) + 0.5) * CELL_PX
    ys, xs = np.meshgrid(centres, centres, indexing="ij")
    sides = np.full(side * side, box_px, np.float32)
    constants = {
        "red": np.array([-1, 0, 0], np.float32).reshape(1, 3, 1, 1),
        "boxes": np.stack([xs.reshape(-1), ys.reshape(-1), sides, sides])[None],
        "flat": np.array([0, 1, -1], np.int64),
        "level": np.float32(-0.45),
        "slope": np.float32(20),
        "zero": np.float32(0),
        "less": np.linspace(1, 0.9, len(names), dtype=np.float32).reshape(1, -1, 1),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "red"], ["dark"]),
        node("AveragePool", ["dark"], ["mean"], kernel_shape=[CELL_PX] * 2, strides=[CELL_PX] * 2),
        node("MaxPool", ["mean"], ["most"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        node("Equal", ["mean", "most"], ["peak"]),
        node("Cast", ["peak"], ["peak_f"], to=TensorProto.FLOAT),
        node("Sub", ["mean", "level"], ["above"]),
        node("Mul", ["above", "slope"], ["steep"]),
        node("Sigmoid", ["steep"], ["sure"]),
        node("Mul", ["sure", "peak_f"], ["score_map"]),
        node("Reshape", ["score_map", "flat"], ["one_score"]),
        node("Mul", ["one_score", "less"], ["scores"]),
        node("Mul", ["one_score", "zero"], ["nothing"]),
        node("Add", ["nothing", "boxes"], ["all_boxes"]),
        node("Concat", ["all_boxes", "scores"], ["output0"], axis=1),
    ]
    shape: Dims = [batch, 3, size_px, size_px]
    save_graph(
        path,
        nodes,
        {"images": (TensorProto.FLOAT, shape)},
        {"output0": (TensorProto.FLOAT, [batch, 4 + len(names), side * side])},
        constants,
    )
    proto = onnx.load(str(path))
    told = {"task": "detect", "names": str(dict(enumerate(names))), "imgsz": str([size_px] * 2), "stride": "8"}
    for key, value in told.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.save(proto, str(path))
    return path
