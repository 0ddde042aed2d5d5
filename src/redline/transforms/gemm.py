"""One large matrix product as an ONNX model: what a machine's peak rate is measured with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from redline.core.artifact import OnnxModel, Step
from redline.formats.onnx_file import save_proto, versions

_OPSET = 17
_IR_VERSION = 9


def write_gemm(out: Path, *, size: int, precision: Literal["fp32", "int8"], seed: int = 0) -> OnnxModel:
    """Write ``y = x @ w`` with ``x`` of shape (size, size), float32, and constant ``w``: size cubed multiply-adds.

    ``int8`` is the Q/DQ form with uint8 activations and symmetric int8 weights, which runtimes fuse into an integer
    product; a backend that is told to compute in bf16 takes the ``fp32`` model.
    """
    weights = np.random.default_rng(seed).standard_normal((size, size)).astype(np.float32)
    nodes, constants = _float_graph(weights) if precision == "fp32" else _integer_graph(weights)
    shape = [size, size]
    graph = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(proto)
    step = Step(
        step="gemm", arguments={"size": size, "precision": precision}, parent_sha256=None, versions=versions("onnx")
    )
    return save_proto(proto, out, step=step, parent=None)


def _float_graph(weights: np.ndarray) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    return [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}


def _integer_graph(weights: np.ndarray) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    weight_scale = np.float32(np.abs(weights).max() / 127)
    constants: dict[str, np.ndarray] = {
        "w_q": np.clip(np.round(weights / weight_scale), -127, 127).astype(np.int8),
        "w_scale": np.asarray(weight_scale),
        "w_zero": np.asarray(0, np.int8),
        "x_scale": np.asarray(8 / 255, np.float32),
        "x_zero": np.asarray(128, np.uint8),
        "y_scale": np.asarray(8 * np.sqrt(len(weights)) / 255, np.float32),
        "y_zero": np.asarray(128, np.uint8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["w_q", "w_scale", "w_zero"], ["w_d"]),
        helper.make_node("MatMul", ["x_d", "w_d"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "y_scale", "y_zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "y_scale", "y_zero"], ["y"]),
    ]
    return nodes, constants
