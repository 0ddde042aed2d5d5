"""Models that name the best class themselves: the same detections, to the bit, of every head that has classes."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from tests.detection.models import detector_model, ultralytics_metadata
from tests.onnx_models import save_graph

from redline.backends import load_backend
from redline.commands.export_triton import export_triton
from redline.commands.run import run
from redline.commands.serve_models import make_opener
from redline.core.artifact import OnnxModel, Step
from redline.core.plain import from_plain
from redline.core.preprocess import Detection, Usage
from redline.core.tensor import Array
from redline.detection.detector import Detector
from redline.detection.results import Detections
from redline.formats.onnx_file import load_proto, read_onnx, save_proto
from redline.opening.sessions import open_onnx
from redline.transforms.half import to_half
from scale.models.best_class import STEP, with_best_class
from scale.models.uint8_input import with_uint8_input

COUNT, SHARES = 120, 4
MADE = Step(step="test", arguments={}, parent_sha256=None, versions={})
IMAGE = np.full((64, 64, 3), 100, np.uint8)


def values_of(head: str, classes: int, *, shares: int = 0, seed: int = 0, levels: int = 1 << 20) -> Array:
    """A head's output of random boxes, whose scores have so few levels that some of them tie."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((COUNT, classes)) ** 4 * levels) / levels
    parts = [rng.uniform(0, 64, (COUNT, 2)), rng.uniform(1, 30, (COUNT, 2))]
    parts += [rng.random((COUNT, 1))] if head == "v5" else []
    rows = np.concatenate([*parts, scores, rng.normal(size=(COUNT, shares))], axis=1).astype(np.float32)
    return rows if head == "v5" else np.ascontiguousarray(rows.T)


def model_of(
    folder: Path,
    head: str = "v8",
    classes: int = 80,
    *,
    shares: int = 0,
    batch: int | str = "batch",
    half: bool = False,
    seed: int = 0,
    levels: int = 1 << 20,
) -> OnnxModel:
    prototypes = np.random.default_rng(seed).normal(size=(shares, 16, 16)).astype(np.float32) if shares else None
    names = tuple(f"class {index}" for index in range(classes))
    path = detector_model(
        folder / "m.onnx",
        values_of(head, classes, shares=shares, seed=seed, levels=levels),
        prototypes=prototypes,
        batch=batch,
        metadata=ultralytics_metadata(task="segment" if shares else "detect", names=names),
        dtype=TensorProto.FLOAT16 if half else TensorProto.FLOAT,
    )
    return read_onnx(path)


def detections(model: OnnxModel, confidence: float = 0.25) -> list[Detections]:
    session = open_onnx(model)
    found = Detector(session, model.usage, confidence=confidence)([IMAGE, IMAGE])
    session.close()
    return found


def assert_same(one: OnnxModel, other: OnnxModel, confidence: float = 0.25) -> int:
    """Every bit of every detection; returns how many there are."""
    pairs = list(zip(detections(one, confidence), detections(other, confidence), strict=True))
    for mine, theirs in pairs:
        for name in ("boxes", "scores", "classes"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), strict=True)
        assert (mine.polygons is None) == (theirs.polygons is None)
        if mine.polygons is not None and theirs.polygons is not None:
            np.testing.assert_array_equal(mine.polygons.points, theirs.polygons.points, strict=True)
            np.testing.assert_array_equal(mine.polygons.offsets, theirs.polygons.offsets, strict=True)
    return sum(len(mine) for mine, _ in pairs)


@pytest.mark.parametrize("head", ["v8", "v5"])
@pytest.mark.parametrize(("shares", "batch", "half"), [(0, "batch", False), (SHARES, 2, False), (SHARES, 1, True)])
def test_detections_are_the_same_to_the_bit(
    tmp_path: Path, head: str, shares: int, batch: int | str, half: bool
) -> None:
    model = model_of(tmp_path, head, shares=shares, batch=batch, half=half)
    best = with_best_class(model, tmp_path / "best.onnx")
    assert best.usage.detection is not None
    assert best.usage.detection.head == "best"
    assert assert_same(best, model) > 20


@settings(deadline=None, max_examples=40)
@given(
    head=st.sampled_from(["v5", "v8"]),
    classes=st.integers(3, 12),
    levels=st.sampled_from([2, 4, 16, 1 << 20]),
    confidence=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    seed=st.integers(0, 1 << 16),
)
def test_any_scores_and_ties(head: str, classes: int, levels: int, confidence: float, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(Path(folder), head, classes, levels=levels, seed=seed)
        best = with_best_class(model, Path(folder) / "best.onnx")
        assert best is not model
        assert_same(best, model, confidence)


@pytest.mark.parametrize(("head", "shares", "batch"), [("v8", SHARES, "batch"), ("v5", 0, 3)])
def test_what_is_known_of_the_model_stays_and_the_file_says_what_changed(
    tmp_path: Path, head: str, shares: int, batch: int | str
) -> None:
    model = model_of(tmp_path, head, shares=shares, batch=batch)
    best = with_best_class(model, tmp_path / "best.onnx")
    boxes, *others = best.signature.outputs
    assert boxes.shape == (batch, 6 + shares, COUNT)
    assert boxes.dtype == "float32"
    # A program that expects the old numbers finds no output of the old name.
    assert boxes.name not in {spec.name for spec in model.signature.outputs}
    assert tuple(others) == model.signature.outputs[1:]
    assert best.signature.inputs == model.signature.inputs
    assert model.usage.detection is not None
    named = replace(model.usage.detection, head="best")
    assert best.usage == replace(model.usage, detection=named)
    assert (best.opset, best.layers) == (model.opset, model.layers)
    step = best.provenance[-1]
    assert (step.step, step.arguments, step.parent_sha256) == (STEP, {"head": head}, model.sha256)
    assert with_best_class(best, tmp_path / "again.onnx") is best
    assert_same(with_uint8_input(best, tmp_path / "bytes.onnx"), with_uint8_input(model, tmp_path / "raw.onnx"))


@pytest.mark.parametrize(("head", "classes"), [("v8", 1), ("v8", 2), ("v5", 1), ("v8", 2049)])
def test_where_nothing_is_won_or_a_class_could_be_lost_it_is_left_alone(
    tmp_path: Path, head: str, classes: int
) -> None:
    model = model_of(tmp_path, head, classes)
    assert with_best_class(model, tmp_path / "best.onnx") is model
    assert not (tmp_path / "best.onnx").exists()


def test_finished_boxes_and_what_is_no_detector_are_left_alone(tmp_path: Path) -> None:
    finished = np.random.default_rng(0).random((300, 6)).astype(np.float32)
    told = ultralytics_metadata() | {"end2end": "True"}
    for predictions, metadata in ((finished, told), (finished, None), (np.ones((40, 40), np.float32), None)):
        model = read_onnx(detector_model(tmp_path / "m.onnx", predictions, metadata=metadata))
        assert with_best_class(model, tmp_path / "best.onnx") is model


def test_a_file_without_a_word_is_told_by_its_shape(tmp_path: Path) -> None:
    model = read_onnx(detector_model(tmp_path / "m.onnx", values_of("v8", 7)))
    best = with_best_class(model, tmp_path / "best.onnx")
    assert best.usage.detection == Detection(head="best")
    assert assert_same(best, model) > 5


def test_redline_runs_serves_and_exports_it_as_the_detector_that_it_was(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    best = with_best_class(model, tmp_path / "best.onnx")
    engine = load_backend("onnxruntime", {"threads": 1}).compile(best, tmp_path / "engines")
    Image.fromarray(IMAGE).save(tmp_path / "i.png")
    one, other, third = (run(path, tmp_path / "i.png").boxes() for path in (model.path, best.path, engine.path))
    assert one == other == third
    assert len(one[0]) > 20
    served = make_opener(threads=1, instances=1)(best.path)
    served.close()
    assert (served.detection, served.notes) == (best.usage.detection, ())
    export_triton(best.path, tmp_path / "r")
    told = json.loads((tmp_path / "r" / "best" / "1" / "redline.json").read_text())
    assert from_plain(Usage, told["usage"], where="usage") == best.usage


def plain_model(path: Path, *, opset: int, ir: int = 9, name: str = "output0") -> OnnxModel:
    """A head of three classes from operators that every operator set has alike."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Conv", ["mean", "zeros"], ["nothing4"]),
        helper.make_node("Reshape", ["nothing4", "shape"], ["nothing3"]),
        helper.make_node("Add", ["nothing3", "predictions"], [name]),
    ]
    constants = {
        "zeros": np.zeros((1, 3, 1, 1), np.float32),
        "shape": np.array([0, 1, -1]),
        "predictions": values_of("v8", 3)[None],
    }
    inputs: dict[str, tuple[int, list[int | str]]] = {"images": (TensorProto.FLOAT, ["batch", 3, 64, 64])}
    if ir < 4:  # weights were inputs then
        inputs |= {
            key: (helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)) for key, value in constants.items()
        }
    save_graph(path, nodes, inputs, {name: (TensorProto.FLOAT, ["batch", 7, COUNT])}, constants, opset=opset)
    proto = onnx.load(str(path))
    proto.ir_version = ir
    onnx.save(proto, str(path))
    return read_onnx(path)


@pytest.mark.parametrize(("opset", "ir"), [(11, 3), (11, 6), (12, 7), (13, 7), (17, 8), (18, 8), (20, 9), (21, 10)])
def test_every_operator_set_and_version_of_the_format(tmp_path: Path, opset: int, ir: int) -> None:
    model = plain_model(tmp_path / "m.onnx", opset=opset, ir=ir)
    best = with_best_class(model, tmp_path / "best.onnx")
    proto = load_proto(best.path)
    assert (best.opset, proto.ir_version) == (opset, max(ir, 4))
    onnx.checker.check_model(proto, full_check=True)
    assert assert_same(best, model) > 5


def test_an_older_operator_set_is_left_alone(tmp_path: Path) -> None:
    model = plain_model(tmp_path / "m.onnx", opset=10)
    assert with_best_class(model, tmp_path / "best.onnx") is model


def test_names_that_are_taken_are_passed_over(tmp_path: Path) -> None:
    proto = onnx.load(str(plain_model(tmp_path / "m.onnx", opset=17).path))
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "output0_best"
    proto.graph.node[1].output[0] = proto.graph.node[2].input[0] = "output0_box_start"
    onnx.save(proto, str(tmp_path / "m.onnx"))
    model = read_onnx(tmp_path / "m.onnx")
    best = with_best_class(model, tmp_path / "best.onnx")
    assert best.signature.outputs[0].name == "output0_best_"
    assert assert_same(best, model) > 5


def test_an_open_number_of_boxes_stays_open(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    proto = onnx.load(str(model.path))
    graph = proto.graph
    next(node for node in graph.node if node.output[0] == "output0").output[0] = "all"
    for name, value in (("two", 2), ("zero1", 0), ("width", 3), ("after", 4)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    graph.node.append(helper.make_node("Shape", ["images"], ["sizes"]))
    graph.node.append(helper.make_node("Slice", ["sizes", "width", "after", "zero1"], ["end"]))
    graph.node.append(helper.make_node("Slice", ["all", "zero1", "end", "two"], ["output0"]))
    graph.output[0].type.tensor_type.shape.dim[2].dim_param = "cells"
    for axis in (2, 3):  # an open size of images, which the number of boxes follows
        graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    model = save_proto(proto, tmp_path / "open.onnx", step=MADE, parent=model)
    assert model.signature.outputs[0].shape == ("batch", 84, "cells")
    best = with_best_class(model, tmp_path / "best.onnx")
    assert best.signature.outputs[0].shape == ("batch", 6, "cells")
    assert assert_same(best, model) > 5


def test_classes_are_exact_where_the_whole_graph_is_half(tmp_path: Path) -> None:
    model = model_of(tmp_path, classes=2048, levels=64)
    best = with_best_class(model, tmp_path / "best.onnx")
    half = to_half(best, tmp_path / "half.onnx")
    session = open_onnx(half)
    (answer,) = session({"images": np.zeros((1, 3, 64, 64), np.float32)}).values()
    session.close()
    assert answer.dtype == np.float32
    # The scores are multiples of a 64th, so that FP16 holds them and ties are the same ones.
    expected = values_of("v8", 2048, levels=64)[4:]
    np.testing.assert_array_equal(answer[0, 4], expected.max(axis=0))
    np.testing.assert_array_equal(answer[0, 5], expected.argmax(axis=0))
    assert answer[0, 5].max() > 1024
