"""TensorRT engines on a GPU: built from ONNX, found beside it, the same detections, and what answers instead."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gpu import needs_tensorrt
from tests.scale.detector_models import spot_model
from tests.scale.models.yolo_tools import SIDE_PX, bright_model, image_with

from redline.core.artifact import Engine
from redline.core.errors import EngineMismatchError
from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.aimodels import YOLOTensorRTModel
from scale.models.conversion import ConvertOptions
from scale.models.convert import convert
from scale.models.engine_file import with_description
from scale.models.loaded import OpenModel
from scale.models.opening import FallbackWarning, open_model
from scale.models.spec import ModelSpec

pytestmark = [pytest.mark.gpu, needs_tensorrt]

NAMES = {0: "Red", 1: "Green"}
HEADER = {
    "task": "detect",
    "stride": 8,
    "names": {"0": "Red", "1": "Green"},
    "imgsz": [64, 64],
    "args": {"half": False},
}
#: FP16 has 11 bits: boxes to 64 px in steps of 1/32, scores in steps of 1/2048; a few roundings each.
BOX_PX, SCORE = 0.25, 0.01


def spec(path: Path, **changes: Any) -> ModelSpec:
    return ModelSpec(**({"name": "m", "path": path, "class_names": NAMES, "confidence": 0.5, "iou": 1.0} | changes))


def noise(count: int) -> list[Array]:
    """Images whose cells are red or green, of any brightness: scores from 0 to 1, and never a tie of classes."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 256, (count, SIDE_PX // 8, SIDE_PX // 8, 3)).astype(np.uint8)
    red = rng.random(cells.shape[:3]) < 0.5
    cells[~red, 0] = cells[red, 1] = 0
    return [np.ascontiguousarray(image.repeat(8, 0).repeat(8, 1)) for image in cells]


def without_words(given: ModelSpec, **arguments: Any) -> OpenModel:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return open_model(given, **arguments)


def assert_near(one: Detections, other: Detections, *, box_px: float, score: float) -> None:
    """Whatever is clearly above the confidence in one is in the other, of the same class, in the same place."""
    for mine, theirs in ((one, other), (other, one)):
        for box, value, kind in zip(mine.boxes, mine.scores, mine.classes, strict=True):
            if value < 0.5 + score:
                continue
            apart = np.abs(theirs.boxes - box).max(axis=1) + 1e6 * (theirs.classes != kind)
            assert apart.min(initial=np.inf) <= box_px
            assert abs(theirs.scores[apart.argmin()] - value) <= score


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each precision, with a model and the engine that was made of it."""
    found = {}
    for name, half in (("fp32", False), ("fp16", True)):
        found[name] = tmp_path_factory.mktemp(name)
        bright_model(found[name] / "m.onnx")
        result = convert(found[name], options=ConvertOptions(half=half, batch=8))
        assert [row.result for row in result.conversions] == ["built"], result.to_json()
    return found


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the FP32 model and its engine, to be spoilt."""
    shutil.copytree(folders["fp32"], tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(("precision", "box_px", "score"), [("fp32", 1e-3, 1e-4), ("fp16", BOX_PX, SCORE)])
def test_the_engine_beside_the_model_finds_the_same(
    folders: dict[str, Path], precision: str, box_px: float, score: float
) -> None:
    path = folders[precision] / "m.onnx"
    images = noise(19)  # two full batches and a part of one
    right = open_model(spec(path), device="cpu")
    mine = without_words(spec(path), fallback=False, engine="expected")
    assert mine.runtime == "tensorrt"
    assert mine.origin.path == path.with_suffix(".engine")
    assert mine.batch == 8
    expected, found = right(images), mine(images)
    assert sum(map(len, expected)) > 100
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other, box_px=box_px, score=score)
    right.close()
    mine.close()


@pytest.mark.parametrize("keep_head", [False, True])
def test_an_engine_that_names_the_best_class_finds_the_same(tmp_path: Path, keep_head: bool) -> None:
    names = tuple(f"spot {number}" for number in range(80))
    path = spot_model(tmp_path / "m.onnx", size_px=128, names=names)
    assert convert(tmp_path, options=ConvertOptions(half=False, batch=8, keep_head=keep_head)).passed
    images = list(np.random.default_rng(0).integers(0, 256, (19, 128, 128, 3)).astype(np.uint8))
    given = spec(path, class_names=dict(enumerate(names)), confidence=0.4)
    right = open_model(given, device="cpu")
    mine = without_words(given, fallback=False, engine="expected")
    shape = mine.detector.session.signature.outputs[0].shape
    assert (shape[1], mine.runtime) == (84 if keep_head else 6, "tensorrt")
    expected, found = right(images), mine(images)
    assert sum(map(len, expected)) > 100
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other, box_px=1e-3, score=1e-4)
    right.close()
    mine.close()


def test_the_precision_is_the_engines_own(folders: dict[str, Path]) -> None:
    opened = without_words(spec(folders["fp32"] / "m.onnx"))
    assert opened.precision == "fp32" == Engine.read(folders["fp32"] / "m.engine").layers.describe()
    opened.close()


def test_a_good_engine_is_kept(folders: dict[str, Path]) -> None:
    result = convert(folders["fp32"], options=ConvertOptions(half=False, batch=8))
    assert [row.result for row in result.conversions] == ["kept"]


def test_an_engine_of_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    path = bright_model(tmp_path / "m.onnx", batch=4)
    assert convert(tmp_path, options=ConvertOptions(half=False, batch=4)).passed
    opened = without_words(spec(path), fallback=False)
    assert opened.batch == 4
    found = opened([image_with((index % 8, index // 8, 0)) for index in range(10)])
    assert [each.boxes[0].tolist()[:2] for each in found] == [[index % 8 * 8, index // 8 * 8] for index in range(10)]
    opened.close()


@pytest.mark.parametrize("header", [True, False])
def test_engines_that_others_built(folder: Path, header: bool) -> None:
    engine = folder / "m.engine"
    plan = engine.read_bytes()
    Engine.described(engine).sidecar.unlink()
    engine.write_bytes(with_description(plan, HEADER) if header else plan)
    opened = without_words(spec(folder / "m.onnx"), fallback=False)
    assert (opened.runtime, opened.precision) == ("tensorrt", "fp32" if header else "unknown")
    assert opened.detector.class_names == (("Red", "Green") if header else ())
    assert opened([image_with((1, 2, 0))])[0].boxes.tolist() == [[8, 16, 16, 24]]
    opened.close()
    engine.rename(folder / "alone.engine")
    alone = without_words(spec(folder / "alone.engine"), fallback=False)
    assert len(alone([image_with((1, 2, 0))])[0]) == 1
    alone.close()


def spoil(folder: Path, how: str) -> None:
    engine = folder / "m.engine"
    described = Engine.described(engine)
    match how:
        case "truncated":
            engine.write_bytes(engine.read_bytes()[:-100])
        case "truncated, without a description":
            described.sidecar.unlink()
            engine.write_bytes(engine.read_bytes()[: engine.stat().st_size // 2])
        case "noise":
            described.sidecar.unlink()
            engine.write_bytes(np.random.default_rng(0).bytes(100_000))
        case "another GPU" | "another TensorRT":
            value = json.loads(described.sidecar.read_text())
            value["platform"] |= {"gpu": "NVIDIA Other"} if how == "another GPU" else {"tensorrt": "1.2.3"}
            described.sidecar.write_text(json.dumps(value))
        case "another model":
            bright_model(folder / "m.onnx", gain=30)
        case "older":
            described.sidecar.unlink()
            os.utime(engine, (1, 1))
        case "gone":
            engine.unlink()
            described.sidecar.unlink()


WHY = {
    "truncated": "build the engine again",
    "truncated, without a description": "cannot load it",
    "noise": "cannot load it",
    "another GPU": "was compiled for gpu 'NVIDIA Other'",
    "another TensorRT": "was compiled for tensorrt '1.2.3'",
    "another model": r"was made of another m\.onnx",
    "older": r"is older than m\.onnx",
    "gone": r"there is no m\.engine or m\.plan",
}


@pytest.mark.parametrize("how", WHY)
def test_an_engine_that_cannot_be_used_is_replaced_with_one_warning(folder: Path, how: str) -> None:
    spoil(folder, how)
    model = YOLOTensorRTModel(folder / "m.onnx", 0.5, {0: "Red"})
    image = np.ascontiguousarray(image_with((1, 2, 0))[:, :, ::-1])
    with pytest.warns(FallbackWarning, match=WHY[how]) as told:
        (found,) = model.predict([image])
    assert len(told) == 1
    assert len(found["Red"]) == 1
    assert model.opened.runtime in ("onnxruntime", "onnxruntime-cuda")
    model.close()
    strict = YOLOTensorRTModel(folder / "m.onnx", 0.5, {0: "Red"}, fallback_to_pt=False)
    with pytest.raises((EngineMismatchError, FileNotFoundError), match=WHY[how]):
        strict.predict([image])


def test_without_fallback_the_engine_beside_a_pt_file_that_is_gone_answers(folder: Path) -> None:
    model = YOLOTensorRTModel(folder / "m.pt", 0.5, {0: "Red"}, fallback_to_pt=False)
    (found,) = model.predict([np.ascontiguousarray(image_with((1, 2, 0))[:, :, ::-1])])
    assert len(found["Red"]) == 1
    assert model.opened.runtime == "tensorrt"
    model.close()
