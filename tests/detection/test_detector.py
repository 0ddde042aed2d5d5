"""From images to boxes in their own pixels, over a session of ONNX Runtime or one that says what it was asked."""

import numpy as np
import pytest
from onnx import TensorProto
from tests.detection.models import NAMES, detector_model, ultralytics_metadata, v8_predictions

from redline.core.errors import InputError
from redline.core.preprocess import Detection, Preprocess, Usage
from redline.core.tensor import Signature, TensorSpec
from redline.detection.detector import Detector
from redline.detection.preparing import letterbox_preprocess
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx

USAGE = Usage(preprocess=letterbox_preprocess(64, 64), class_names=NAMES, detection=Detection())
SQUARE = np.zeros((64, 64, 3), np.uint8)
# Centre, size, class, score: two of the same cat, one dog at the same place, one bird that is not sure.
FOUND = [(20, 20, 10, 20, 0, 0.9), (21, 20, 10, 20, 0, 0.8), (20, 20, 10, 20, 1, 0.7), (50, 50, 8, 8, 2, 0.2)]


class FakeSession:
    """Answers with what it was given and remembers its inputs."""

    def __init__(self, answer, *, batch="batch", side=64, dtype="float32", profiles=None):
        self.signature = Signature(
            (TensorSpec("images", (batch, 3, side, side), dtype),),
            (TensorSpec("output0", (batch, *answer.shape), dtype),),
        )
        self.answer = answer
        self.asked = []
        if profiles:
            self.batch_sizes = profiles

    def __call__(self, inputs, /):
        self.signature.check(inputs)
        self.asked.append(inputs["images"])
        return {"output0": np.repeat(self.answer[None], len(inputs["images"]), axis=0)}

    def close(self):
        pass


def detector(boxes=FOUND, *, usage=USAGE, **options):
    session = FakeSession(v8_predictions(boxes), **options)
    return Detector(session, usage), session


def test_an_onnx_file_of_ultralytics_is_all_it_takes(tmp_path):
    path = detector_model(tmp_path / "m.onnx", v8_predictions(FOUND), metadata=ultralytics_metadata())
    model = read_onnx(path)
    session = open_onnx(model)
    found = Detector(session, model.usage)([SQUARE, SQUARE])
    session.close()
    assert len(found) == 2
    for one in found:
        np.testing.assert_allclose(one.boxes, [[15, 10, 25, 30], [15, 10, 25, 30]])
        np.testing.assert_allclose(one.scores, [0.9, 0.7])
        assert one.classes.tolist() == [0, 1]
        assert one.polygons is None


def test_half_precision_in_and_out(tmp_path):
    path = detector_model(tmp_path / "m.onnx", v8_predictions(FOUND), dtype=TensorProto.FLOAT16)
    session = open_onnx(read_onnx(path))
    found = Detector(session, USAGE)([SQUARE])[0]
    session.close()
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-3)
    assert found.scores.dtype == np.float32


def test_boxes_are_in_the_pixels_of_each_image():
    pytest.importorskip("cv2")
    model, _ = detector([(32, 32, 32, 16, 0, 0.9), (32, 4, 8, 4, 1, 0.8)])
    wide, small = model([np.zeros((128, 256, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)])
    # 256 x 128 is quartered and lies 16 px below the top; a box in the padding is cut to the edge.
    np.testing.assert_allclose(wide.boxes, [[64, 32, 192, 96], [112, 0, 144, 0]])
    np.testing.assert_allclose(small.boxes, [[8, 12, 24, 20], [14, 1, 18, 3]])


def test_thresholds_and_limits():
    session = FakeSession(v8_predictions(FOUND))
    assert len(Detector(session, USAGE, confidence=0.1)([SQUARE])[0]) == 3
    assert len(Detector(session, USAGE, iou=0.99)([SQUARE])[0]) == 3
    assert len(Detector(session, USAGE, confidence=0.95)([SQUARE])[0]) == 0
    assert Detector(session, USAGE, max_detections=1)([SQUARE])[0].scores.tolist() == [pytest.approx(0.9)]
    # The class is chosen before the limit: the surest box is of another one.
    of_one = Detector(session, USAGE, max_detections=1, classes=[1])([SQUARE])[0]
    assert (of_one.classes.tolist(), of_one.scores.tolist()) == ([1], [pytest.approx(0.7)])
    for wrong in ({"confidence": 1.5}, {"iou": -0.1}, {"max_detections": 0}):
        with pytest.raises(InputError, match="expected"):
            Detector(session, USAGE, **wrong)


def test_a_fixed_batch_is_filled_and_never_exceeded():
    model, session = detector(batch=4)
    assert (model.batch, model.largest_batch) == (4, 4)
    assert len(model([SQUARE] * 6)) == 6
    assert [len(asked) for asked in session.asked] == [4, 4]
    prepared = model.prepare([SQUARE])
    assert (prepared.count, len(prepared.placements)) == (1, 1)
    assert len(model.decode(model.run(prepared), prepared)) == 1
    with pytest.raises(InputError, match="got 5 images, expected 1 to 4"):
        model.prepare([SQUARE] * 5)


def test_the_largest_profile_limits_a_dynamic_batch():
    model, session = detector(profiles=(1, 2, 3))
    assert (model.batch, model.largest_batch) == (None, 3)
    assert len(model([SQUARE] * 7)) == 7
    assert [len(asked) for asked in session.asked] == [3, 3, 1]
    assert model([]) == []


def test_names_may_be_replaced_without_changing_the_head():
    session = FakeSession(v8_predictions(FOUND))
    assert Detector(session, USAGE).class_names == NAMES
    model = Detector(session, USAGE, class_names=["only this"])
    assert model.class_names == ("only this",)
    assert len(model([SQUARE])[0]) == 2


def test_without_metadata_the_input_says_its_size():
    model, _ = detector(usage=Usage())
    assert (model.input_hw, model.task, model.class_names) == ((64, 64), "detect", ())
    assert len(model([SQUARE])[0]) == 2
    with pytest.raises(InputError, match="does not say the size"):
        detector(usage=Usage(), side="side")


def test_colours_and_scale_are_as_the_usage_says():
    image = np.full((64, 64, 3), (255, 51, 0), np.uint8)
    plain = {"height_px": 64, "width_px": 64, "resize": "letterbox"}
    for preprocess, expected in [
        (Preprocess(**plain, mean=(0.0,) * 3, std=(1.0,) * 3), [1, 0.2, 0]),
        (Preprocess(**plain, mean=(0.0,) * 3, std=(1.0,) * 3, color="bgr"), [0, 0.2, 1]),
        (Preprocess(**plain, mean=(0.5,) * 3, std=(0.5,) * 3), [1, -0.6, -1]),
    ]:
        model, _ = detector(usage=Usage(preprocess=preprocess, class_names=NAMES))
        np.testing.assert_allclose(model.prepare([image]).inputs["images"][0, :, 5, 5], expected, atol=1e-6)


def test_what_cannot_be_a_detector_is_refused():
    with pytest.raises(InputError, match="expected 'letterbox'"):
        detector(usage=Usage(preprocess=Preprocess(height_px=64, width_px=64)))
    with pytest.raises(InputError, match="no detector that is known"):
        Detector(FakeSession(np.zeros(1000, np.float32)), USAGE)
    with pytest.raises(InputError, match="no detector that is known for 3 classes"):
        Detector(FakeSession(np.zeros((84, 8400), np.float32)), USAGE)
    session = FakeSession(v8_predictions(FOUND))
    session.signature = Signature((TensorSpec("ids", ("batch", 4), "int64"),), ())
    with pytest.raises(InputError, match=r"takes ids int64\['batch', 4\]"):
        Detector(session, USAGE)


@pytest.mark.parametrize("bad", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3))])
def test_what_is_no_image_is_refused(bad):
    model, _ = detector()
    with pytest.raises(InputError, match=r"expected uint8 \(height, width, 3\)"):
        model.prepare([bad])


def test_fewer_rows_than_images_are_refused():
    model, session = detector()
    prepared = model.prepare([SQUARE, SQUARE])
    with pytest.raises(InputError, match="1 rows, expected one for each of 2"):
        model.decode({"output0": session.answer[None]}, prepared)


def test_segments_come_with_polygons_in_the_pixels_of_the_image(tmp_path):
    pytest.importorskip("cv2")
    prototypes = np.stack([np.ones((16, 16)), -np.ones((16, 16))]).astype(np.float32)
    # The better box has no mask, as its share of the prototypes is negative everywhere.
    boxes = [(32, 32, 32, 16, 0, 0.8, 1, 0), (32, 32, 32, 16, 1, 0.9, 0, 1)]
    path = detector_model(
        tmp_path / "m.onnx",
        v8_predictions(boxes, shares=2),
        prototypes=prototypes,
        metadata=ultralytics_metadata(task="segment"),
    )
    model = read_onnx(path)
    session = open_onnx(model)
    found = Detector(session, model.usage)([np.zeros((128, 256, 3), np.uint8)])[0]
    session.close()
    assert found.classes.tolist() == [0]
    np.testing.assert_allclose(found.boxes, [[64, 32, 192, 96]])
    ring = found.polygons.ring(0)
    np.testing.assert_allclose(ring.min(axis=0), [64, 32], atol=8)
    np.testing.assert_allclose(ring.max(axis=0), [192, 96], atol=8)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_bytes_go_in_as_they_are(color):
    told = Preprocess(height_px=64, width_px=64, mean=(0.0,) * 3, std=(1.0,) * 3, color=color, resize="letterbox")
    session = FakeSession(v8_predictions(FOUND), batch=3, dtype="uint8")
    model = Detector(session, Usage(preprocess=told, class_names=NAMES, detection=Detection()))
    images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8))
    inputs = model.prepare(images).inputs["images"]
    assert inputs.dtype == np.uint8
    assert inputs.shape == (3, 3, 64, 64)
    order = [0, 1, 2] if color == "rgb" else [2, 1, 0]
    for image, got in zip(images, inputs, strict=False):
        assert np.array_equal(got, image[:, :, order].transpose(2, 0, 1))


def test_bytes_go_into_an_array_that_is_there():
    model, _ = detector(dtype="uint8", batch=2)
    buffers = {"images": np.zeros((2, 3, 64, 64), np.uint8)}
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    prepared = model.prepare([image, SQUARE], into=buffers)
    assert np.shares_memory(prepared.inputs["images"], buffers["images"])
    assert np.array_equal(buffers["images"][0], image.transpose(2, 0, 1))
    # One of floats is made anew, whatever it is given.
    floats, _ = detector(batch=2)
    assert floats.prepare([image, SQUARE], into=buffers).inputs["images"].dtype == np.float32


@pytest.mark.parametrize("usage", [USAGE, Usage()])
def test_a_model_may_take_its_colours_last(usage):
    session = FakeSession(v8_predictions(FOUND), dtype="uint8")
    outputs = (TensorSpec("output0", ("batch", 7, 84), "uint8"),)
    session.signature = Signature((TensorSpec("images", ("batch", 64, 64, 3), "uint8"),), outputs)
    model = Detector(session, usage)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert model.input_hw == (64, 64)
    assert np.array_equal(model.prepare([image]).inputs["images"][0], image)


def test_other_integers_are_no_images():
    with pytest.raises(InputError, match="a detector takes one input of four sizes, float or uint8"):
        detector(dtype="int32")
