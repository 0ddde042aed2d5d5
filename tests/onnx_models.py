"""Tiny ONNX models that tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Dims = Sequence[int | str]


def save_graph(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: dict[str, tuple[int, Dims]],
    outputs: dict[str, tuple[int, Dims]],
    constants: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
) -> Path:
    """Save a graph of typed inputs and outputs, ``{name: (element type, shape)}``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), str(path))
    return path


def conv_model(path: Path, *, batch: int | str = "batch", channels: int = 4, seed: int = 0) -> Path:
    """An image classifier: convolution, relu, pooling, linear; input (batch, 3, 16, 16), 5 classes."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.standard_normal((channels, 3, 3, 3)).astype(np.float32) / 5,
        "b": rng.standard_normal(channels).astype(np.float32),
        "fc": rng.standard_normal((channels, 5)).astype(np.float32),
        "fc_b": rng.standard_normal(5).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc", "fc_b"], ["logits"], name="linear"),
    ]
    shape: Dims = [batch, 3, 16, 16]
    outputs: dict[str, tuple[int, Dims]] = {"logits": (TensorProto.FLOAT, [batch, 5])}
    return save_graph(path, nodes, {"image": (TensorProto.FLOAT, shape)}, outputs, constants)


def five_inputs(path: Path) -> Path:
    """Sums five float inputs."""
    names = [f"x{index}" for index in range(5)]
    nodes = [helper.make_node("Sum", names, ["y"])]
    shape: Dims = ["batch", 3]
    return save_graph(path, nodes, dict.fromkeys(names, (TensorProto.FLOAT, shape)), {"y": (TensorProto.FLOAT, shape)})


def no_inputs(path: Path) -> Path:
    """Answers with a constant."""
    nodes = [helper.make_node("Identity", ["c"], ["y"])]
    return save_graph(path, nodes, {}, {"y": (TensorProto.FLOAT, [2])}, {"c": np.array([1.0, 2.0], np.float32)})


def integer_input(path: Path) -> Path:
    """Looks rows up in a table: input int64 (batch, 4), output (batch, 4, 3)."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0)]
    return save_graph(
        path,
        nodes,
        {"ids": (TensorProto.INT64, ["batch", 4])},
        {"rows": (TensorProto.FLOAT, ["batch", 4, 3])},
        {"table": np.arange(30, dtype=np.float32).reshape(10, 3)},
    )
