"""Models that take bytes: the same numbers as of floats, whatever else is in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.onnx_models import save_graph
from tests.scale.models.yolo_tools import SIDE_PX, bright_model

from redline.core.artifact import OnnxModel
from redline.core.preprocess import Preprocess, Usage
from redline.detection.detector import Detector
from redline.formats.onnx_file import load_proto, read_onnx, save_proto
from redline.opening.sessions import open_onnx
from scale.models.loaded import OpenFile, loaded
from scale.models.spec import ModelSpec
from scale.models.uint8_input import STEP, with_uint8_input


def detector(model: OnnxModel) -> Detector:
    return Detector(open_onnx(model), model.usage, confidence=0.3, iou=1.0)


@pytest.mark.parametrize("batch", ["batch", 3])
def test_boxes_and_numbers_are_those_of_floats(tmp_path: Path, batch: int | str) -> None:
    model = read_onnx(bright_model(tmp_path / "m.onnx", batch=batch))
    raw = with_uint8_input(model, tmp_path / "raw.onnx")
    images = list(np.random.default_rng(0).integers(0, 256, (3, SIDE_PX, SIDE_PX, 3), np.uint8))
    floats, bytes_ = detector(model), detector(raw)
    assert bytes_.prepare(images).inputs["images"].dtype == np.uint8
    expected = floats.run(floats.prepare(images))["output0"]
    np.testing.assert_allclose(bytes_.run(bytes_.prepare(images))["output0"], expected, atol=1e-5)
    found = bytes_(images)
    assert sum(map(len, found)) > 10
    for one, other in zip(found, floats(images), strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
        assert one.classes.tolist() == other.classes.tolist()
    for one in (floats, bytes_):
        one.session.close()


def test_what_is_known_of_the_model_stays(tmp_path: Path) -> None:
    model = read_onnx(bright_model(tmp_path / "m.onnx"))
    raw = with_uint8_input(model, tmp_path / "raw.onnx")
    assert raw.usage == model.usage
    assert raw.usage.class_names == ("Red", "Green")
    assert (raw.opset, raw.precision) == (model.opset, model.precision)
    assert raw.provenance[-1].step == STEP
    assert raw.provenance[-1].parent_sha256 == model.sha256
    assert raw.signature.inputs[0].shape == model.signature.inputs[0].shape
    assert raw.signature.outputs == model.signature.outputs
    cast, divide = load_proto(raw.path).graph.node[:2]
    # TensorRT 8.6 takes an input of bytes only where its one reader casts it.
    assert (cast.op_type, divide.op_type) == ("Cast", "Div")
    readers = [node.name for node in load_proto(raw.path).graph.node if "images" in node.input]
    assert readers == [cast.name]


def test_one_that_takes_no_floats_or_normalizes_further_is_left_alone(tmp_path: Path) -> None:
    model = read_onnx(bright_model(tmp_path / "m.onnx"))
    raw = with_uint8_input(model, tmp_path / "raw.onnx")
    assert with_uint8_input(raw, tmp_path / "again.onnx") is raw
    proto = onnx.load(str(model.path))
    told = Preprocess(height_px=64, width_px=64, mean=(0.5,) * 3, std=(1.0,) * 3, color="rgb", resize="letterbox")
    step = raw.provenance[-1]
    other = save_proto(proto, tmp_path / "n.onnx", step=step, parent=model, usage=Usage(preprocess=told))
    assert with_uint8_input(other, tmp_path / "again.onnx") is other
    assert not (tmp_path / "again.onnx").exists()


def test_a_file_whose_own_input_is_bytes_with_colours_last_is_opened(tmp_path: Path) -> None:
    path = bright_model(tmp_path / "m.onnx")
    inner = onnx.load(str(path))
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "most"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["images"], perm=[0, 3, 1, 2]),
        *inner.graph.node,
    ]
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in inner.graph.initializer}
    out = tmp_path / "last.onnx"
    save_graph(
        out,
        nodes,
        {"pictures": (TensorProto.UINT8, ["batch", SIDE_PX, SIDE_PX, 3])},
        {"output0": (TensorProto.FLOAT, ["batch", 6, 64])},
        {**constants, "most": np.float32(255)},
    )
    images = list(np.random.default_rng(0).integers(0, 256, (2, SIDE_PX, SIDE_PX, 3), np.uint8))
    spec = ModelSpec(name="m", path=out, class_names={0: "Red", 1: "Green"}, confidence=0.3, iou=1.0)
    model = read_onnx(out)
    file = OpenFile(session=open_onnx(model), usage=model.usage, runtime="onnxruntime", precision="fp32")
    opened = loaded(spec, out, file)
    first = detector(read_onnx(path))
    for one, other in zip(opened(images), first(images), strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
        assert len(one) > 0
    opened.close()
    first.session.close()
