"""Images keep their aspect, lie in the middle, and every point finds its way back."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.core.errors import InputError, MissingDependencyError
from redline.detection.letterbox import batch_of, boxes_to_source, letterbox, placement_of


@pytest.mark.parametrize(
    ("source", "target", "scale", "left", "top"),
    [
        ((480, 640), (640, 640), 1.0, 0, 80),
        ((1080, 810), (640, 640), 640 / 1080, 80, 0),
        ((100, 200), (640, 640), 3.2, 0, 160),
        ((3084, 3084), (640, 640), 640 / 3084, 0, 0),
        # 320.5 becomes 321, and of the odd 319 left the larger half goes to the right.
        ((639, 320), (640, 640), 640 / 639, 159, 0),
        ((641, 320), (640, 640), 640 / 641, 160, 0),
        ((5, 640), (640, 640), 1.0, 0, 317),
        ((7, 640), (10, 640), 1.0, 0, 1),
        ((514, 514), (640, 960), 640 / 514, 160, 0),
    ],
)
def test_placement(source, target, scale, left, top):
    placed = placement_of(source, target)
    assert (placed.scale, placed.left_px, placed.top_px) == (pytest.approx(scale), left, top)


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda sides: (32 * sides[0], 32 * sides[1])),
)
def test_the_image_lies_within_the_input_and_touches_two_sides(source, target):
    placed = placement_of(source, target)
    height, width = (max(1, round(side * placed.scale)) for side in source)
    assert 0 <= placed.left_px <= target[1] - width
    assert 0 <= placed.top_px <= target[0] - height
    assert height == target[0] or width == target[1]
    assert abs((target[1] - width) - 2 * placed.left_px) <= 1
    assert abs((target[0] - height) - 2 * placed.top_px) <= 1


def test_points_come_back_and_stay_within():
    placed = placement_of((300, 400), (640, 640))
    corners = np.array([[0, 80, 640, 560], [64, 144, 128, 160], [-50, 0, 900, 900]], np.float32)
    back = boxes_to_source(corners, [placed], np.zeros(3, np.int64))
    np.testing.assert_allclose(back, [[0, 0, 400, 300], [40, 40, 80, 50], [0, 0, 400, 300]], atol=1e-4)
    assert back.dtype == np.float32


def test_an_image_of_the_right_size_is_not_touched(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    image = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    assert letterbox(image, (8, 6)) is image


def test_padding_alone_needs_no_scaling(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    image = np.full((4, 6, 3), 200, np.uint8)
    boxed = letterbox(image, (9, 6))
    assert boxed.shape == (9, 6, 3)
    assert boxed[2:6].min() == boxed[2:6].max() == 200
    assert set(boxed[[0, 1, 6, 7, 8]].ravel().tolist()) == {114}


def test_without_opencv_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r"opencv-python-headless .*redline\[detect\]"):
        letterbox(np.zeros((4, 6, 3), np.uint8), (12, 12))


@pytest.mark.parametrize("channels", [1, 3])
def test_scaled_and_centred(channels):
    pytest.importorskip("cv2")
    image = np.full((10, 20, channels), 30, np.uint8)
    boxed = letterbox(image, (40, 40))
    assert boxed.shape == (40, 40, channels)
    assert (boxed[10:30] == 30).all()
    assert (boxed[:10] == 114).all()
    assert (boxed[30:] == 114).all()


def test_scaling_is_bilinear_about_the_middle_of_pixels():
    pytest.importorskip("cv2")
    image = np.array([[0, 100]], np.uint8).reshape(1, 2, 1)
    assert letterbox(image, (2, 4))[0, :, 0].tolist() == [0, 25, 75, 100]


def test_a_batch_is_scaled_to_one_and_laid_out():
    images = [np.full((8, 6, 3), (255, 0, 51), np.uint8), np.zeros((8, 6, 3), np.uint8)]
    batch = batch_of(images, (8, 6))
    assert (batch.shape, batch.dtype) == ((2, 3, 8, 6), np.float32)
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch[0, :, 3, 2], np.array([255, 0, 51], np.float32) / 255)
    assert not batch[1].any()
    last = batch_of(images, (8, 6), np.float16, "nhwc")
    assert (last.shape, last.dtype) == ((2, 8, 6, 3), np.float16)
    np.testing.assert_array_equal(last, batch.transpose(0, 2, 3, 1).astype(np.float16))


def test_every_value_is_what_division_makes_of_it():
    image = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    expected = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(batch_of([image], (16, 16))[0], expected)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(InputError, match="expected uint8"):
        batch_of([bad], (8, 8))
    with pytest.raises(InputError, match="expected at least one"):
        batch_of([], (8, 8))
