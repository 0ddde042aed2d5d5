"""FP16: what comes out is FP16, valid, and near; what FP16 cannot hold stays FP32 and is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline.core.artifact import OnnxModel
from redline.core.errors import ArtifactError, InputError
from redline.formats.onnx_file import load_proto, read_onnx
from redline.transforms.half import to_half


def save_model(path: Path, nodes: list[onnx.NodeProto], *, opset: int = 20, **constants: np.ndarray) -> OnnxModel:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]), *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, None, None])],
        [numpy_helper.from_array(array, name) for name, array in {"w": weight, **constants}.items()],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return read_onnx(path)


def answers(model: OnnxModel, batch: int = 3) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    x = np.random.default_rng(1).normal(size=(batch, 3, 8, 8)).astype(np.dtype(model.signature.inputs[0].dtype))
    return onnxruntime.InferenceSession(str(model.path), options).run(None, {"x": x})[0]


RELU = helper.make_node("Relu", ["c"], ["y"], name="relu")
SCALES = np.array([1, 1, 2, 2], np.float32)


@pytest.mark.parametrize("opset", [17, 20, 21, 22])
def test_half_the_size_same_signature_near_answers(tmp_path: Path, opset: int) -> None:
    resize = [
        helper.make_node("Resize", ["c", "", "scales"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["f"], ["m"], keepdims=0),
        helper.make_node("Div", ["r", "m"], ["y"]),
    ]
    model = save_model(tmp_path / "in.onnx", resize, opset=opset, scales=SCALES)
    half = to_half(model, tmp_path / "half.onnx")

    assert half.layers.counts == (("fp16", 1),)
    assert half.signature == model.signature
    assert half.provenance[-1].step == "half"
    for batch in (1, 3):
        np.testing.assert_allclose(answers(half, batch), answers(model, batch), atol=0.01)


def test_fp16_inputs_and_outputs_where_asked(tmp_path: Path) -> None:
    half = to_half(save_model(tmp_path / "in.onnx", [RELU]), tmp_path / "half.onnx", keep_io=False)
    assert [spec.dtype for spec in (*half.signature.inputs, *half.signature.outputs)] == ["float16", "float16"]
    assert [node.op_type for node in load_proto(half.path).graph.node] == ["Conv", "Relu"]


def test_constants_out_of_range_keep_their_nodes_and_the_way_between_them_in_fp32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["big"], value_float=1e6),
        helper.make_node("Mul", ["c", "big"], ["large"], name="up"),
        helper.make_node("Div", ["large", "big"], ["y"], name="down"),
    ]
    model = save_model(tmp_path / "in.onnx", nodes)
    half = to_half(model, tmp_path / "half.onnx")

    np.testing.assert_allclose(answers(half), answers(model), atol=0.02)
    noted = half.provenance[-1].arguments
    assert noted["kept_fp32_out_of_range"] == "up, down"
    assert noted["out_of_range_constants"] == "big"


def test_nodes_that_are_asked_for_stay_fp32(tmp_path: Path) -> None:
    model = save_model(tmp_path / "in.onnx", [RELU])
    half = to_half(model, tmp_path / "half.onnx", keep_nodes=["conv"])
    assert half.layers.counts == (("fp32", 1),)
    np.testing.assert_allclose(answers(half), answers(model), atol=0.01)
    with pytest.raises(InputError, match="got keep_nodes none"):
        to_half(model, tmp_path / "half.onnx", keep_nodes=["none"])


def test_two_nodes_without_fp16_share_a_tensor(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Max", ["c", "z"], ["a"]),
        helper.make_node("Min", ["c", "z"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = save_model(tmp_path / "in.onnx", nodes, z=np.array(0.1, np.float32))
    np.testing.assert_allclose(answers(to_half(model, tmp_path / "half.onnx")), answers(model), atol=0.01)


def test_fp16_already_and_quantized_are_refused(tmp_path: Path) -> None:
    half = to_half(save_model(tmp_path / "in.onnx", [RELU]), tmp_path / "half.onnx")
    with pytest.raises(ArtifactError, match="fp16 already"):
        to_half(half, tmp_path / "again.onnx")
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(tmp_path / "in.onnx"), str(tmp_path / "int8.onnx"))
    with pytest.raises(ArtifactError, match="int8, expected fp32"):
        to_half(read_onnx(tmp_path / "int8.onnx"), tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()
