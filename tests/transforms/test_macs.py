"""Multiply-accumulates, against numbers counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline.core.artifact import OnnxModel
from redline.core.errors import InputError
from redline.formats.onnx_file import read_onnx
from redline.transforms.macs import count_macs


def save_model(path: Path, nodes: list[onnx.NodeProto], shape: list[object], **constants: np.ndarray) -> OnnxModel:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (2 if len(nodes) > 1 else 4))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return read_onnx(path)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def small_network(path: Path) -> OnnxModel:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["a", "d"], ["b"], name="depthwise", pads=[1, 1, 1, 1], group=6),
        helper.make_node("ConvTranspose", ["b", "t"], ["c"], name="up", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["h"], name="gemm", transB=1),
        helper.make_node("MatMul", ["h", "m"], ["y"], name="matmul"),
    ]
    weights = {"w": floats(6, 3, 3, 3), "d": floats(6, 1, 3, 3), "t": floats(6, 4, 2, 2)}
    return save_model(path, nodes, ["batch", 3, 16, 16], **weights, g=floats(10, 4), m=floats(10, 5))


@pytest.mark.parametrize("batch", [1, 4])
def test_every_kind_of_layer(tmp_path: Path, batch: int) -> None:
    counted = count_macs(small_network(tmp_path / "m.onnx"), batch_size=batch)
    assert counted.by_layer == (
        ("conv", batch * 6 * 8 * 8 * 3 * 3 * 3),
        ("depthwise", batch * 6 * 8 * 8 * 1 * 3 * 3),
        ("up", batch * 6 * 8 * 8 * 4 * 2 * 2),
        ("gemm", batch * 10 * 4),
        ("matmul", batch * 5 * 10),
    )
    assert counted.total == sum(count for _, count in counted.by_layer)
    assert counted.weight_bytes == 4 * (6 * 27 + 6 * 9 + 6 * 4 * 4 + 40 + 50)
    assert counted.unknown == ()


def test_resnet18_first_layer_at_224(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[3, 3, 3, 3], strides=[2, 2])]
    model = save_model(tmp_path / "m.onnx", nodes, ["batch", 3, 224, 224], w=floats(64, 3, 7, 7))
    assert count_macs(model).total == 118_013_952


def test_quantized_models_count_as_their_originals(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class OneSample(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": floats(1, 3, 16, 16)}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    original = small_network(tmp_path / "m.onnx")
    expected = count_macs(original).total
    source = str(original.path)
    quantize_dynamic(source, str(tmp_path / "dynamic.onnx"))
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        quantize_static(source, str(tmp_path / f"{form.name}.onnx"), OneSample(), quant_format=form)
    for name in ("dynamic", "QDQ", "QOperator"):
        quantized = count_macs(read_onnx(tmp_path / f"{name}.onnx"))
        assert (quantized.total, quantized.unknown) == (expected, ())
        assert quantized.weight_bytes < count_macs(original).weight_bytes


def test_unknown_shapes_are_named_until_they_are_given(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    model = save_model(tmp_path / "m.onnx", nodes, ["batch", 3, "height", "width"], w=floats(2, 3, 1, 1))
    assert count_macs(model).unknown == ("conv",)
    assert count_macs(model).total == 0
    assert count_macs(model, sizes={"height": 4, "width": 5}).total == 2 * 3 * 4 * 5
    with pytest.raises(InputError, match="batch_size is 0"):
        count_macs(model, batch_size=0)
