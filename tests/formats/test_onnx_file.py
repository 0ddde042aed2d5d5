"""Reading and writing ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.onnx_models import conv_model, save_graph

from redline.core.artifact import Step
from redline.core.errors import ArtifactError, RedlineError
from redline.core.preprocess import Preprocess, Usage
from redline.formats.onnx_file import layers_of, load_proto, read_onnx, save_proto, tell_output_sizes


def step(name: str) -> Step:
    return Step(step=name, arguments={"a": 1}, parent_sha256=None, versions={"onnx": "1"})


def test_a_file_cut_at_any_byte_is_a_clear_error_or_works(tmp_path: Path) -> None:
    whole = conv_model(tmp_path / "m.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        try:
            read_onnx(cut)
        except ArtifactError as error:
            assert "\n" not in str(error)
            assert "cut.onnx" in str(error)


@pytest.mark.parametrize("content", [b"", b"hello, world", bytes(range(256)), b"\x00" * 100])
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="m.onnx"):
        read_onnx(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a file"):
        read_onnx(tmp_path / "none.onnx")


def test_an_opset_of_the_future(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    proto = onnx.load(str(path))
    proto.opset_import[0].version = 99
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ArtifactError, match="opset 99, expected at most"):
        read_onnx(path)


def test_external_data_missing_or_truncated(tmp_path: Path) -> None:
    proto = onnx.load(str(conv_model(tmp_path / "m.onnx", channels=64)))
    path = tmp_path / "external.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=100)
    assert read_onnx(path).size_bytes > path.stat().st_size
    weights = tmp_path / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match="truncated"):
        read_onnx(path)
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"weights\.bin, which is not beside it"):
        read_onnx(path)


def test_provenance_travels_in_the_file(tmp_path: Path) -> None:
    first = save_proto(load_proto(conv_model(tmp_path / "m.onnx")), tmp_path / "a.onnx", step=step("one"), parent=None)
    second = save_proto(load_proto(first.path), tmp_path / "b.onnx", step=step("two"), parent=first)
    assert [s.step for s in read_onnx(second.path).provenance] == ["one", "two"]


def test_precision_is_read_from_the_graph(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    assert read_onnx(path).layers.counts == (("fp32", 2),)
    half = onnx.load(str(path))
    for tensor in half.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert layers_of(half).counts == (("fp16", 2),)


def test_weights_that_alone_are_quantized_compute_in_float(tmp_path: Path) -> None:
    scale, zero = np.array(0.1, np.float32), np.array(0, np.int8)
    constants = {"q": np.ones((3, 2), np.int8), "s": scale, "z": zero}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    path = save_graph(
        tmp_path / "m.onnx", nodes, {"x": (1, ["batch", 3])}, {"y": (TensorProto.FLOAT, ["batch", 2])}, constants
    )
    assert read_onnx(path).precision == "fp32"


def test_a_sequence_is_not_a_tensor(tmp_path: Path) -> None:
    value = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["x"], ["n"])],
        "g",
        [value],
        [helper.make_tensor_value_info("n", TensorProto.INT64, [])],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    with pytest.raises(RedlineError, match="expected a tensor"):
        read_onnx(path)


def test_what_the_file_says_about_its_use_goes_on_through_every_step(tmp_path: Path) -> None:
    usage = Usage(preprocess=Preprocess(height_px=16, width_px=16, mean=(0.1,) * 3), class_names=("cat", "dog"))
    proto = load_proto(conv_model(tmp_path / "m.onnx"))
    first = save_proto(proto, tmp_path / "a.onnx", step=step("one"), parent=None, usage=usage)
    second = save_proto(load_proto(first.path), tmp_path / "b.onnx", step=step("two"), parent=first)
    assert read_onnx(second.path).usage == usage
    assert read_onnx(tmp_path / "m.onnx").usage == Usage()


@pytest.mark.parametrize(("sides", "told"), [((64, 32), [2048, 2]), (("height", "width"), ["n", 2])])
def test_sizes_that_a_graph_computes_of_its_input_are_told(sides: tuple[int | str, ...], told: list[int | str]) -> None:
    """As the anchors of a head are, which is exported for any size: one for each of height * width places."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "two"], ["height"], axis=0),
        helper.make_node("Gather", ["shape", "three"], ["width"], axis=0),
        helper.make_node("Mul", ["height", "width"], ["places"]),
        helper.make_node("Unsqueeze", ["places", "axis"], ["row"]),
        helper.make_node("Concat", ["row", "both"], ["wanted"], axis=0),
        helper.make_node("ConstantOfShape", ["wanted"], ["y"]),
    ]
    scalars = {"two": 2, "three": 3}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, *sides])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [
            *(helper.make_tensor(name, TensorProto.INT64, [], [value]) for name, value in scalars.items()),
            helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
            helper.make_tensor("both", TensorProto.INT64, [1], [2]),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    tell_output_sizes(proto)
    assert [dim.dim_value or dim.dim_param for dim in proto.graph.output[0].type.tensor_type.shape.dim] == told
