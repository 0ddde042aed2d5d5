"""A detector's answer: boxes in pixels of the image that was sent, over HTTP and on the page."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.detection.models import v8_predictions
from tests.serving.detectors import SIDE_PX, DetectorShelf
from tests.serving.fakes import serve
from tests.serving.test_page import browse, needs_browser, site, words
from tests.serving.test_predict import answer_of, error_of, form

from redline.serving.core import Call, Reply, Server

cv2 = pytest.importorskip("cv2")


def photo(width_px: int, height_px: int, *, orientation: int = 1) -> bytes:
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width_px, height_px), "olive").save(file, "PNG", exif=exif)
    return file.getvalue()


@contextmanager
def finder(folder: Path, *names: str, **shelf: Any) -> Iterator[Server]:
    models = serve(folder, *(names or ("finder",)), shelf=DetectorShelf(**shelf))
    try:
        yield Server(models)
    finally:
        models.close()


def ask(server: Server, body: bytes, content_type: str = "image/png", path: str = "/predict", **query: str) -> Reply:
    return server.answer(Call(method="POST", path=path, headers={"content-type": content_type}, query=query, body=body))


def test_boxes_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    with finder(tmp_path) as server:
        answer = answer_of(ask(server, photo(256, 128)))
        assert answer["boxes"] == [
            [
                {"class": 0, "name": "cat", "score": pytest.approx(0.9), "box": [64, 32, 192, 96]},
                {"class": 1, "name": "dog", "score": pytest.approx(0.6), "box": [24, 0, 56, 32]},
            ]
        ]
        assert "predictions" not in answer
        assert set(answer["ms"]) == {"queue", "decode", "infer", "encode"}


def test_an_image_that_lies_on_its_side_is_set_upright_first(tmp_path: Path) -> None:
    with finder(tmp_path) as server:
        upright = answer_of(ask(server, photo(128, 256)))["boxes"]
        assert answer_of(ask(server, photo(256, 128, orientation=6)))["boxes"] == upright


def test_several_images_of_several_sizes(tmp_path: Path) -> None:
    with finder(tmp_path, batch=3) as server:
        body, content_type = form(photo(256, 128), photo(64, 64))
        rows = answer_of(ask(server, body, content_type))["boxes"]
        assert [row[0]["box"] for row in rows] == [[64, 32, 192, 96], [16, 24, 48, 40]]


def test_thresholds_are_the_clients(tmp_path: Path) -> None:
    with finder(tmp_path) as server:
        body = photo(64, 64)
        assert [len(answer_of(ask(server, body, confidence=c))["boxes"][0]) for c in ("0.1", "0.7", "1")] == [3, 1, 0]
        assert len(answer_of(ask(server, body, iou="0.95"))["boxes"][0]) == 3
        for wrong in ("-0.1", "1.1", "x", "", "nan", "1e-99999999999999999", "٣"):
            refused = ask(server, body, confidence=wrong)
            assert (refused.status, error_of(refused)) == (400, "'confidence' is no number from 0 to 1")


def test_tensors_give_boxes_in_pixels_of_the_input(tmp_path: Path) -> None:
    with finder(tmp_path) as server:
        body = json.dumps({"inputs": np.zeros((2, 3, SIDE_PX, SIDE_PX)).tolist()}).encode()
        rows = answer_of(ask(server, body, "application/json"))["boxes"]
        assert [row[0]["box"] for row in rows] == [[16, 24, 48, 40]] * 2


def test_the_open_inference_protocol_gives_the_outputs(tmp_path: Path) -> None:
    with finder(tmp_path) as server:
        inputs = {"name": "images", "datatype": "FP32", "shape": [1, 3, SIDE_PX, SIDE_PX]}
        inputs["data"] = [0.0] * (3 * SIDE_PX * SIDE_PX)
        reply = server.answer(
            Call(method="POST", path="/v2/models/finder/infer", body=json.dumps({"inputs": [inputs]}).encode())
        )
        assert reply.status == 200
        assert json.loads(bytes(reply.body))["outputs"][0]["shape"] == [1, 7, 84]


def test_masks_come_as_polygons(tmp_path: Path) -> None:
    prototypes = np.ones((2, 16, 16), np.float32)
    predictions = v8_predictions([(32, 32, 32, 16, 0, 0.9, 1, 1)], shares=2)
    with finder(tmp_path, predictions=predictions, prototypes=prototypes) as server:
        (box,) = answer_of(ask(server, photo(128, 128)))["boxes"][0]
        polygon = np.array(box["polygon"])
        assert polygon.shape[1] == 2
        np.testing.assert_allclose(polygon.min(axis=0), box["box"][:2], atol=5)
        np.testing.assert_allclose(polygon.max(axis=0), box["box"][2:], atol=5)


def test_without_names_classes_have_numbers(tmp_path: Path) -> None:
    with finder(tmp_path, names=()) as server:
        assert [one["name"] for one in answer_of(ask(server, photo(64, 64)))["boxes"][0]] == [None, None]


def test_outputs_that_are_no_detectors_are_the_servers_fault(tmp_path: Path) -> None:
    with finder(tmp_path, predictions=np.zeros((40, 40), np.float32)) as server:
        reply = ask(server, photo(64, 64))
        assert (reply.status, "no detector that is known" in error_of(reply)) == (500, True)


def test_without_opencv_the_answer_says_what_is_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with finder(tmp_path) as server:
        monkeypatch.setitem(sys.modules, "cv2", None)
        assert ask(server, photo(SIDE_PX, SIDE_PX)).status == 200
        reply = ask(server, photo(200, 100))
        assert (reply.status, "lacks opencv-python-headless" in error_of(reply)) == (500, True)


def test_the_description_knows_thresholds_and_boxes(tmp_path: Path) -> None:
    def parameters(server: Server) -> set[str]:
        described = json.loads(bytes(server.answer(Call(method="GET", path="/openapi.json")).body))
        assert (
            "box"
            in described["components"]["schemas"]["Prediction"]["properties"]["boxes"]["items"]["items"]["properties"]
        )
        return {one["name"] for one in described["paths"]["/predict"]["post"]["parameters"]}

    with finder(tmp_path) as server:
        assert parameters(server) >= {"top", "version", "confidence", "iou"}
    with finder(tmp_path, "colours") as server:
        assert not parameters(server) & {"confidence", "iou"}


@needs_browser
@pytest.mark.parametrize("width_px", [1280, 390])
def test_the_page_draws_boxes_with_names(tmp_path: Path, width_px: int) -> None:
    odd = '<img src=x onerror="document.title=1">'
    prototypes = np.ones((1, 16, 16), np.float32)
    predictions = v8_predictions(
        [(32, 32, 32, 16, 0, 0.9, 1), (10, 20, 8, 8, 1, 0.6, 1), (50, 50, 8, 8, 2, 0.15, 1)], shares=1
    )
    shelf = {"predictions": predictions, "prototypes": prototypes, "names": ("cat", odd, "bird")}
    with finder(tmp_path, **shelf) as server, site(server) as url:
        document, console = browse(tmp_path, f"{url}#sunset", width_px=width_px)
    assert not console
    said = words(document)
    # The third has a confidence below what the slider begins at, above what the page asks for.
    assert "2 boxes with a confidence above 25 %" in said
    assert "cat 90 %" in said
    assert f"{odd} 60 %" in said
    assert "<img" not in document
    assert "<title>Redline</title>" in document
    drawn = re.search(r'<svg id="drawn".*?</svg>', document, re.DOTALL)
    assert drawn is not None
    assert 'viewBox="0 0 224 224"' in drawn[0]
    # 32 x 16 of 64 in an image of 224 pixels.
    assert '<rect class="own-0" x="56" y="84" width="112" height="56">' in drawn[0]
    assert drawn[0].count("<polygon") == 2
    widths = re.search(r'data-widths="(\d+) (\d+)"', document)
    assert widths is not None
    assert int(widths[2]) <= int(widths[1])


@needs_browser
def test_the_page_still_tells_classes(tmp_path: Path) -> None:
    with finder(tmp_path, "colours") as server, site(server) as url:
        document, console = browse(tmp_path, f"{url}#sunset")
    assert not console
    assert "boxes with" not in words(document)
    assert '<svg id="drawn"' in document
    assert '<rect class="own' not in document
