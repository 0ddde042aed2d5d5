"""The shipped detector of nuclei finds the same on a real slide in PyTorch and in what runs its exported file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

import scale
from redline.core.artifact import Argument
from redline.core.session import Session
from redline.core.tensor import Array
from redline.detection.detector import Detector
from redline.detection.results import Detections
from redline.formats.onnx_file import read_onnx
from redline.opening.opening import open_any
from redline.opening.sessions import open_onnx
from scale.models.opening import OnnxRuntime, open_model
from scale.models.spec import ModelSpec
from scale.slides.opening import open_slide

ASSETS = Path(scale.__file__).parent / "assets"
EXPORTED = ASSETS / "nuclei.onnx"
WINDOW_PX = 256
PLACES = ((0, 0), (512, 768), (1024, 256), (1700, 2400))
# By default OpenVINO computes in BF16 on a processor that has it, and its boxes are others then.
RUNTIMES: dict[str, dict[str, Argument]] = {
    "onnxruntime": {"threads": 1},
    "openvino": {"threads": 1, "precision": "f32"},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two small threads wait for each other
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def windows() -> list[Array]:
    with open_slide(ASSETS / "cmu_small_region.svs") as slide:
        return [slide.read(x0, y0, WINDOW_PX, WINDOW_PX) for x0, y0 in PLACES]


@pytest.fixture(scope="module")
def by_torch(windows: list[Array]) -> list[Detections]:
    opened = open_any("nuclei", threads=1)
    with closing(opened.session):
        found = Detector(opened.session, opened.usage)(windows)
    assert sum(map(len, found)) > 60  # else there is nothing to disagree on
    return found


def assert_same(found: list[Detections], expected: list[Detections]) -> None:
    assert [len(one) for one in found] == [len(one) for one in expected]
    for one, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.boxes, right.boxes, rtol=0, atol=0.01)
        np.testing.assert_allclose(one.scores, right.scores, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(one.classes, right.classes)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_detector_finds_what_it_finds_by_pytorch(
    backend: str, windows: list[Array], by_torch: list[Detections]
) -> None:
    pytest.importorskip(backend)
    model = read_onnx(EXPORTED)
    session: Session = open_onnx(model, backend=backend, options=RUNTIMES[backend])
    with closing(session):
        assert_same(Detector(session, model.usage)(windows), by_torch)


@pytest.mark.parametrize("runtime", ["auto", "openvino"])
def test_so_does_the_file_as_scale_opens_it(
    runtime: OnnxRuntime, windows: list[Array], by_torch: list[Detections]
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    spec = ModelSpec(name="nuclei", path=EXPORTED, batch=3)
    model = open_model(spec, device="cpu", threads=1, onnx_runtime=runtime)
    with closing(model):
        assert model.runtime == ("onnxruntime" if runtime == "auto" else runtime)
        assert model.precision == "fp32"
        assert_same(model(windows), by_torch)
