"""Models by the names that users have: opened late, used by several threads, the same by every runtime."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.scale.models.yolo_tools import bright_model, image_with

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.aimodels import YOLOModel, YOLOTensorRTModel
from scale.domain import Box, Coords
from scale.models.opening import FallbackWarning
from scale.models.spec import ModelSpec


def bgr(*cells: tuple[int, int, int]) -> Array:
    return np.ascontiguousarray(image_with(*cells)[:, :, ::-1])


def test_importing_loads_nothing_heavy() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "cv2", "shapely", "ultralytics", "tensorrt", "openvino"}
    code = (
        f"import scale.aimodels, scale.model_config, sys; found = {heavy} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_needs_no_file_before_it_is_used(tmp_path: Path) -> None:
    model = YOLOTensorRTModel(
        model_path="models/nn_det2_data_outputs_meta_train4.pt",
        min_conf=0.2,
        cls_index_to_name={0: "Meta"},
        fallback_to_pt=True,
    )
    assert (model.model_path.name, model.min_conf) == ("nn_det2_data_outputs_meta_train4.pt", 0.2)
    assert model.cls_index_to_name == {0: "Meta"}
    missing = YOLOTensorRTModel(tmp_path / "meta.pt", 0.2, {0: "Meta"})
    with pytest.raises(FileNotFoundError, match=r"meta\.pt is not there"):
        missing.predict([bgr()])
    bright_model(tmp_path / "meta.onnx")  # what was missing may come later
    with pytest.warns(FallbackWarning, match="there is no meta.engine or meta.plan"):
        assert missing.predict([bgr((0, 0, 0))])[0]["Meta"]


def test_predictions_are_by_class_in_pixels_of_their_image(tmp_path: Path) -> None:
    model = YOLOModel(bright_model(tmp_path / "m.onnx"), 0.5, {0: "Red", 1: "Green"})
    large = np.zeros((128, 256, 3), np.uint8)
    large[32:64, 64:96, 2] = 255  # red: the image is scaled by a quarter, and padded above and below
    first, second, third = model.predict([bgr((1, 2, 0), (3, 4, 1)), bgr((0, 0, 2)), large])
    assert {name: [found.box for found in several] for name, several in first.items()} == {
        "Red": [Box(Coords(8, 16), Coords(16, 24))],
        "Green": [Box(Coords(24, 32), Coords(32, 40))],
    }
    assert first["Red"][0].conf == pytest.approx(1, abs=1e-3)
    assert first["Red"][0].polygon is None
    assert second == {"Red": [], "Green": []}
    assert [found.box for found in third["Red"]] == [Box(Coords(64, 32), Coords(96, 64))]
    assert model.predict([]) == []


def test_a_warning_once_and_not_at_every_call(tmp_path: Path) -> None:
    model = YOLOTensorRTModel(bright_model(tmp_path / "m.onnx"), 0.5, {0: "Red"})
    with pytest.warns(FallbackWarning) as told:
        model.predict([bgr((1, 2, 0))])
    assert len(told) == 1
    model.predict([bgr((1, 2, 0))])
    assert model.opened.runtime == "onnxruntime"


def test_without_fallback_a_model_without_engine_is_an_error(tmp_path: Path) -> None:
    model = YOLOTensorRTModel(bright_model(tmp_path / "m.onnx"), 0.5, {0: "Red"}, False)
    with pytest.raises(FileNotFoundError, match=r"there is no m\.engine or m\.plan .*fallback_to_pt=True"):
        model.predict([bgr()])


def test_threads_may_share_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = YOLOModel(bright_model(tmp_path / "m.onnx", batch=2), 0.5, {0: "Red"}, batch=2)
    detector = model.opened.detector
    real, within, most, guard = detector.run, 0, 0, threading.Lock()

    def run(prepared: Any) -> Any:
        nonlocal within, most
        with guard:
            within += 1
            most = max(most, within)
        try:
            return real(prepared)
        finally:
            with guard:
                within -= 1

    monkeypatch.setattr(detector, "run", run)
    images = [bgr((index, index, 0)) for index in range(8)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model.predict(images), range(12)))
    assert most == 1
    assert all(answer == answers[0] for answer in answers)
    assert [found["Red"][0].box.start.x for found in answers[0]] == [8.0 * index for index in range(8)]


def test_threads_that_come_first_open_it_once(tmp_path: Path) -> None:
    model = YOLOModel(bright_model(tmp_path / "m.onnx"), 0.5, {0: "Red"})
    with ThreadPoolExecutor(4) as pool:
        opened = {id(found) for found in pool.map(lambda _: model.opened, range(8))}
    assert len(opened) == 1
    again = model.open()
    assert again is not model.opened
    again.close()


def test_a_closed_model_opens_again(tmp_path: Path) -> None:
    model = YOLOModel(bright_model(tmp_path / "m.onnx"), 0.5, {0: "Red"})
    before = model.predict([bgr((1, 2, 0))])
    model.close()
    model.close()
    assert model.predict([bgr((1, 2, 0))]) == before


def test_a_model_goes_to_another_process_without_its_session(tmp_path: Path) -> None:
    model = YOLOTensorRTModel(bright_model(tmp_path / "m.onnx"), 0.5, {0: "Red"}, False, device="cuda:1")
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is YOLOTensorRTModel
    assert (again.spec, again.device, again.fallback, again.engine) == (model.spec, "cuda:1", False, "expected")
    plain = YOLOModel(tmp_path / "m.onnx", 0.5, {0: "Red"})
    before = plain.predict([bgr((1, 2, 0))])
    assert pickle.loads(pickle.dumps(plain)).predict([bgr((1, 2, 0))]) == before


def test_a_plain_model_given_an_engine_runs_it() -> None:
    assert YOLOModel("m.engine", 0.5, {}).engine == "if-there"
    assert YOLOModel("m.onnx", 0.5, {}).engine == "never"


def test_of_a_description() -> None:
    spec = ModelSpec(name="Meta", path=Path("models/meta.pt"), window_px=514, confidence=0.2, iou=0.5, input_px=320)
    model = YOLOTensorRTModel.of(spec, fallback_to_pt=False)
    assert (model.spec, model.fallback, model.engine) == (spec, False, "expected")
    assert YOLOModel.of(spec).spec == spec


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4))])
def test_what_is_no_image_is_refused(tmp_path: Path, image: Array) -> None:
    model = YOLOModel(bright_model(tmp_path / "m.onnx"), 0.5, {0: "Red"})
    with pytest.raises(InputError, match=r"expected a list of uint8 arrays \(height, width, 3\)"):
        model.predict([image])
    with pytest.raises(InputError, match="expected a list"):
        model.predict(np.zeros((8, 8, 3), np.uint8))
