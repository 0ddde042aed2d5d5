"""A detector's file is all that the server and the command line need to tell boxes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.detection.models import NAMES, detector_model, ultralytics_metadata, v8_predictions

from redline.backends import load_backend
from redline.cli import main
from redline.commands.run import Thresholds, run
from redline.commands.serve_models import make_opener
from redline.core.artifact import Engine
from redline.core.errors import InputError
from redline.core.preprocess import Detection
from redline.data.images import size_of
from redline.formats.onnx_file import read_onnx
from redline.opening.opening import open_any

FOUND = [(32, 32, 32, 16, 0, 0.9), (34, 32, 32, 16, 0, 0.8), (50, 50, 8, 8, 2, 0.2)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return detector_model(tmp_path / "finder.onnx", v8_predictions(FOUND), metadata=ultralytics_metadata())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "wide.png"
    Image.new("RGB", (256, 128)).save(path)
    return path


def test_an_engine_keeps_what_the_file_says(model: Path, tmp_path: Path) -> None:
    engine = load_backend("onnxruntime", {"threads": 1}).compile(read_onnx(model), tmp_path / "engines")
    assert Engine.read(engine.path).usage == read_onnx(model).usage
    opened = open_any(engine.path)
    opened.session.close()
    assert opened.detection == Detection(stride=32)
    assert (opened.usage.class_names, opened.usage.preprocess.resize) == (NAMES, "letterbox")  # type: ignore[union-attr]
    assert opened.assumption is None


def test_the_server_opens_it_as_a_detector(model: Path) -> None:
    loaded = make_opener(threads=1, instances=1)(model)
    assert (loaded.detection, loaded.class_names) == (Detection(stride=32), NAMES)
    assert loaded.notes == ()
    loaded.close()


def test_without_opencv_the_server_says_so_at_the_start(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    loaded = make_opener(threads=1, instances=1)(model)
    assert loaded.notes[0].startswith("takes only images of 64x64 pixels: opencv-python-headless is not installed")
    loaded.close()


def test_other_outputs_than_it_says_are_noted_and_served_as_they_are(tmp_path: Path) -> None:
    path = detector_model(tmp_path / "odd.onnx", np.zeros((40, 40), np.float32), metadata=ultralytics_metadata())
    loaded = make_opener(threads=1, instances=1)(path)
    assert loaded.detection is None
    assert "answers with its outputs and not with boxes" in loaded.notes[0]
    loaded.close()


def test_run_tells_boxes_in_pixels_of_the_image(model: Path, image: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    result = run(model, image, tmp_path / "boxes.json")
    assert result.boxes() == [
        [{"class": 0, "name": "cat", "score": pytest.approx(0.9), "box": [64.0, 32.0, 192.0, 96.0]}]
    ]
    saved = json.loads((tmp_path / "boxes.json").read_text())
    assert saved["images"] == [{"image": "wide.png", "boxes": result.boxes()[0]}]
    assert len(run(model, image, thresholds=Thresholds(confidence=0.1, iou=0.95)).boxes()[0]) == 3


def test_run_on_a_folder_and_on_arrays(model: Path, image: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    folder = tmp_path / "images"
    folder.mkdir()
    Image.open(image).save(folder / "b.png")
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    result = run(model, folder, tmp_path / "raw.npz")
    assert result.samples == ("a.png", "b.png")
    assert [found[0]["box"] for found in result.boxes()] == [[8.0, 12.0, 24.0, 20.0], [64.0, 32.0, 192.0, 96.0]]
    with np.load(tmp_path / "raw.npz") as saved:
        assert saved["output0"].shape == (2, 7, 84)
    np.save(tmp_path / "in.npy", np.zeros((2, 3, 64, 64), np.float32))
    assert [found[0]["box"] for found in run(model, tmp_path / "in.npy").boxes()] == [[16.0, 24.0, 48.0, 40.0]] * 2


def test_the_command_prints_them(model: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    assert main(["run", str(model), "-i", str(image), "--confidence", "0.1"]) == 0
    said = capsys.readouterr().out
    assert "wide.png: 2 boxes" in said
    assert "0.900  cat  x 64.0 to 192.0, y 32.0 to 96.0" in said
    assert main(["run", str(model), "-i", str(image), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["boxes"][0][0]["name"] == "cat"
    assert main(["run", str(model), "-i", str(image), "--iou", "2"]) == 2


def test_boxes_of_what_is_no_detector_are_refused(tmp_path: Path) -> None:
    path = detector_model(tmp_path / "plain.onnx", v8_predictions(FOUND))
    np.save(tmp_path / "in.npy", np.zeros((1, 3, 64, 64), np.float32))
    assert run(path, tmp_path / "in.npy").found is None
    with pytest.raises(InputError, match="no detector that says so"):
        run(path, tmp_path / "in.npy", tmp_path / "boxes.json")
    odd = detector_model(tmp_path / "odd.onnx", np.zeros((40, 40), np.float32), metadata=ultralytics_metadata())
    result = run(odd, tmp_path / "in.npy")
    assert (result.found, "no boxes: the outputs" in result.notes[-1]) == (None, True)
    with pytest.raises(InputError, match="gave no boxes"):
        run(odd, tmp_path / "in.npy", tmp_path / "boxes.json")


def test_size_of_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "plain.jpg")
    assert (size_of(tmp_path / "turned.jpg"), size_of(tmp_path / "plain.jpg")) == ((30, 20), (20, 30))
