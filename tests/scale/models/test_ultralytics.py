"""Ultralytics' own files: the same answers as their exports, which remember the file that they were made of."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from redline.core.errors import ArtifactError, MissingDependencyError
from redline.core.files import sha256_of
from redline.opening.sessions import open_onnx
from scale.models.files import EXPORTED
from scale.models.opening import open_model
from scale.models.spec import ModelSpec
from scale.models.ultralytics import ExportOptions, export_onnx, open_torch, require_ultralytics

SIDE_PX = 64
ARCHITECTURES = ("yolov8n", "yolov8n-seg", "yolo11n", "yolo26n")


def test_importing_asks_for_nothing() -> None:
    code = "import scale.models.ultralytics, sys; assert not {'ultralytics', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(find_spec("ultralytics") is not None, reason="ultralytics is here")
def test_without_the_package_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"ultralytics is not installed; .*'redline\[yolo\]'"):
        open_torch(tmp_path / "m.pt")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights, as Ultralytics saves it."""
    pytest.importorskip("ultralytics", reason="needs the extra yolo")
    import torch

    torch.manual_seed(0)
    try:
        network = require_ultralytics().YOLO(f"{request.param}.yaml")
    except FileNotFoundError:
        pytest.skip(f"this Ultralytics has no {request.param}")
    network.model.names = {index: f"class {index}" for index in range(80)}
    if request.param == "yolo26n":
        network.model.end2end = True  # whatever the file says, an export answers by Ultralytics' own default
    path = tmp_path_factory.mktemp("weights") / "m.pt"
    network.save(str(path))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_file_and_its_export_give_the_same(
    weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch = open_torch(weights, input_px=SIDE_PX, threads=1)
    assert torch.usage.class_names[:2] == ("class 0", "class 1")
    assert torch.usage.detection is not None
    assert torch.precision == "fp32"
    model = export_onnx(weights, tmp_path / "m.onnx", ExportOptions(input_px=SIDE_PX, batch=2))
    assert model.usage == torch.usage
    assert capfd.readouterr().out == ""  # a command that prints JSON prints nothing else
    assert model.signature.fixed_batch == 2
    assert (model.provenance[0].step, model.provenance[0].parent_sha256) == (EXPORTED, sha256_of(weights))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]
    image = np.random.default_rng(0).random((2, 3, SIDE_PX, SIDE_PX), dtype=np.float32)
    session = open_onnx(model, options={"threads": 1})
    exported = list(session({"images": image}).values())
    (name,) = [spec.name for spec in torch.session.signature.inputs]
    answers = list(torch.session({name: image}).values())
    assert [answer.shape for answer in answers] == [right.shape for right in exported]
    for answer, right in zip(answers, exported, strict=True):
        # Finished boxes of random weights are many ties, whose order is nobody's.
        order = torch.usage.detection.head == "end2end"
        np.testing.assert_allclose(
            np.sort(answer[..., 4] if order else answer, 1), np.sort(right[..., 4] if order else right, 1), atol=1e-3
        )
    session.close()
    torch.session.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dynamic_export_and_the_model_as_a_whole(weights: Path, tmp_path: Path) -> None:
    model = export_onnx(weights, tmp_path / "m.onnx", ExportOptions(input_px=SIDE_PX, dynamic=True))
    assert model.signature.dynamic_batch
    images = list(np.random.default_rng(0).integers(0, 255, (3, 80, 50, 3), dtype=np.uint8))
    found = {}
    for path in (weights, model.path):
        spec = ModelSpec(name="m", path=path, class_names={}, confidence=0.0, iou=1.0, input_px=SIDE_PX, batch=2)
        opened = open_model(spec, engine="never", device="cpu", threads=1)
        found[opened.runtime] = opened(images)
        opened.close()
    assert set(found) == {"torch", "onnxruntime"}
    for mine, theirs in zip(found["torch"], found["onnxruntime"], strict=True):
        assert len(mine) == len(theirs)
        np.testing.assert_allclose(np.sort(mine.scores), np.sort(theirs.scores), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_model_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics", reason="needs the extra yolo")
    (tmp_path / "m.pt").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"^m\.pt: Ultralytics cannot open it: [^\n]+$"):
        open_torch(tmp_path / "m.pt")
    with pytest.raises(ArtifactError, match="is not a file"):
        open_torch(tmp_path / "yolo11n.pt")
