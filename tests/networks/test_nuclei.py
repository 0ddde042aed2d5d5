"""The shipped detector of nuclei agrees with the labels of a part of the slide that it was not trained on."""

from contextlib import closing

import numpy as np
import pytest
import torch

from redline.commands.export import export
from redline.detection.detector import Detector
from redline.formats.onnx_file import read_onnx
from redline.networks.nuclei import (
    Agreement,
    Schedule,
    _likeness,
    _pairs,
    _turned,
    agreement,
    train,
    training_batches,
    visible,
)
from redline.networks.nuclei_labels import (
    HELD_OUT_Y0,
    HELD_OUT_Y1,
    SLIDE,
    Part,
    _part,
    _read_slide,
    _within_any,
    nuclei_of,
)
from redline.networks.table import MODELS
from redline.networks.weights import read_weights
from redline.networks.zoo import ASSETS, build
from redline.opening.sessions import open_onnx

pytest.importorskip("skimage")
pytest.importorskip("openslide")

SHIPPED = SLIDE.parent / "nuclei.onnx"
LEAST_F1_OVERLAP, LEAST_F1_NEAR = 0.7, 0.79


@pytest.fixture(scope="module")
def held_out() -> Part:
    return _part(_read_slide(SLIDE)[HELD_OUT_Y0:HELD_OUT_Y1], HELD_OUT_Y0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two small threads wait for each other
    yield
    torch.set_num_threads(before)


def test_agreement_with_classical_labels_on_what_was_held_out(held_out):
    """Agreement with image processing, not with a pathologist: see the decision record."""
    found = agreement(build("nuclei"), held_out)
    assert found.labels > 200
    assert found.f1_overlap > LEAST_F1_OVERLAP
    assert found.f1_near > LEAST_F1_NEAR


def test_an_untrained_network_does_not_agree(held_out):
    assert agreement(build("nuclei", "random"), held_out).f1_near < 0.1


def test_the_weights_say_what_they_were_measured_at():
    stored = read_weights(ASSETS / "nuclei.safetensors")
    assert float(stored.metadata["held_out_f1_near"]) > LEAST_F1_NEAR
    assert "classical" in stored.metadata["labels"]


def test_the_shipped_file_answers_as_the_shipped_weights():
    images = _read_slide(SLIDE)[1200:1456, 1000:1512].reshape(256, 2, 256, 3).transpose(1, 3, 0, 2)
    images = np.ascontiguousarray(images, np.float32) / np.float32(255)
    with torch.inference_mode():
        expected = build("nuclei")(torch.from_numpy(images)).numpy()
    with closing(open_onnx(read_onnx(SHIPPED))) as session:
        for batch in (1, 2):
            given = session({"images": images[:batch]})["output"]
            np.testing.assert_allclose(given, expected[:batch], rtol=1e-3, atol=1e-3)


def test_the_shipped_file_says_how_it_is_used():
    model = read_onnx(SHIPPED)
    entry = MODELS["nuclei"]
    assert (model.usage.preprocess, model.usage.class_names) == (entry.preprocess, ("nucleus",))
    assert model.usage.detection == entry.detection
    assert model.opset == 17
    assert [spec.shape for spec in model.signature.inputs] == [("batch", 3, 256, 256)]
    assert model.provenance[0].step == "export"
    assert SHIPPED.stat().st_size < 1_500_000


def test_an_image_goes_in_and_nuclei_come_out():
    model = read_onnx(SHIPPED)
    window = _read_slide(SLIDE)[1600:1856, 1000:1256]
    with closing(open_onnx(model)) as session:
        detector = Detector(session, model.usage)
        found, glass = detector([window, np.full((256, 256, 3), 243, np.uint8)])
    assert detector.class_names == ("nucleus",)
    assert 30 < len(found) < 250
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert 6 < np.median(sides) < 25
    darkness = [window[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].mean() for x0, y0, x1, y1 in found.boxes]
    assert np.median(darkness) < window.mean() - 10
    assert len(glass) == 0


def test_export_of_the_built_in_model_is_a_detector(tmp_path):
    exported = export("nuclei", tmp_path / "a.onnx", opset=17)
    assert exported.model.usage.detection == MODELS["nuclei"].detection
    assert exported.max_abs_difference < 1e-2
    assert exported.model.signature.outputs[0].shape == ("batch", 5, 4096)


def test_blobs_are_found_where_they_are_and_glass_is_empty():
    stained = np.full((128, 128, 3), (228, 150, 190), np.uint8)
    y, x = np.mgrid[:128, :128]
    for cx, cy in ((30, 40), (90, 40), (60, 100)):
        stained[((x - cx) / 5) ** 2 + ((y - cy) / 4) ** 2 < 1] = (70, 45, 110)
    boxes = nuclei_of(stained)
    centres = sorted(map(tuple, ((boxes[:, :2] + boxes[:, 2:]) / 2).round().astype(int).tolist()))
    assert np.abs(np.array(centres) - [(30, 40), (60, 100), (90, 40)]).max() <= 1
    assert np.abs((boxes[:, 2:] - boxes[:, :2]) - [10, 8]).max() <= 4
    assert len(nuclei_of(np.full((64, 64, 3), 243, np.uint8))) == 0


def test_areas_outlined_by_hand_are_left_out():
    points = np.array([[1400, 1500], [1000, 1500], [1700, 1000], [1270, 2080], [10, 10]], np.float32)
    assert _within_any(points).tolist() == [True, False, True, True, False]


def test_boxes_turn_with_their_pixels():
    random = np.random.default_rng(0)
    for _ in range(12):
        pixels, boxes = np.zeros((32, 32, 3), np.uint8), np.array([[4, 8, 10, 20]], np.float32)
        pixels[8:20, 4:10] = 255
        turned, moved = _turned(pixels, boxes, random)
        ((x0, y0, x1, y1),) = moved.astype(int)
        assert turned[y0:y1, x0:x1].min() == 255
        assert (turned == 255).sum() == (pixels == 255).sum()


def test_boxes_at_the_edge_of_a_window_are_cut_or_left_out():
    boxes = np.array([[90, 10, 110, 20], [97, 10, 117, 20], [0, 0, 5, 5], [50, 50, 60, 60]], np.float32)
    assert visible(boxes, 0, 0, 100).tolist() == [[90, 10, 100, 20], [0, 0, 5, 5], [50, 50, 60, 60]]


def test_each_detection_and_each_label_is_in_one_pair():
    labels = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    found = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [24, 0, 34, 10]], np.float32)
    overlaps, near = _likeness(found, labels)
    assert _pairs(overlaps, 0.5) == 1
    assert _pairs(near, 1 - 6 / 256) == 2
    assert Agreement(found=3, labels=2, overlapping=1, near=2).f1_overlap == pytest.approx(0.4)
    assert Agreement(found=0, labels=0, overlapping=0, near=0).f1_near == 0


def test_training_is_the_same_twice(held_out):
    schedule = Schedule(steps=2, batch_size=2, size_px=64)
    first, second = (train([held_out], schedule) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = train([held_out], schedule, seed=1)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_crops_have_boxes_within_them(held_out):
    schedule = Schedule(steps=3, batch_size=4, size_px=96)
    batches = list(training_batches([held_out], schedule, np.random.default_rng(0)))
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 96, 96)] * 3
    boxes = torch.cat([own for _, several in batches for own in several])
    assert len(boxes) > 20
    assert ((boxes >= 0) & (boxes <= 96)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
