"""Exports of Ultralytics say how they are used, in files that nobody vouches for."""

import pytest
from tests.detection.models import NAMES, detector_model, ultralytics_metadata, v8_predictions

from redline.core.preprocess import Detection, Usage
from redline.formats.onnx_file import read_onnx, save_proto
from redline.formats.ultralytics_metadata import usage_of_metadata


def test_a_detector():
    usage = usage_of_metadata(ultralytics_metadata(size_px=640))
    assert usage.class_names == NAMES
    assert usage.detection == Detection(task="detect", stride=32)
    told = usage.preprocess
    assert (told.height_px, told.width_px, told.resize, told.color) == (640, 640, "letterbox", "rgb")
    assert (told.mean, told.std) == ((0.0,) * 3, (1.0,) * 3)


def test_an_engine_says_it_in_json():
    told = {"task": "segment", "names": {"0": "a", "1": "b"}, "imgsz": [640, 960], "stride": 32, "end2end": True}
    usage = usage_of_metadata(told)
    assert usage.class_names == ("a", "b")
    assert usage.detection == Detection(task="segment", head="end2end", stride=32)
    assert (usage.preprocess.height_px, usage.preprocess.width_px) == (640, 960)


def test_yolov5_says_less():
    usage = usage_of_metadata({"stride": "32", "names": "['cat', 'dog']"}, (1, 3, 320, 640))
    assert (usage.class_names, usage.detection) == (("cat", "dog"), Detection(stride=32))
    assert (usage.preprocess.height_px, usage.preprocess.width_px) == (320, 640)
    assert usage_of_metadata({"stride": "32", "names": "['cat']"}, (1, 3, 0, 0)).preprocess is None


def test_the_input_has_the_last_word_on_its_size():
    assert usage_of_metadata(ultralytics_metadata(size_px=640), (1, 3, 64, 64)).preprocess.width_px == 64


def test_a_classifier_and_other_tasks():
    usage = usage_of_metadata(ultralytics_metadata(task="classify"))
    assert (usage.detection, usage.preprocess.resize, usage.preprocess.resize_ratio) == (None, "crop", 1.0)
    pose = usage_of_metadata(ultralytics_metadata(task="pose"))
    assert (pose.detection, pose.preprocess.resize, pose.class_names) == (None, "letterbox", NAMES)
    other = usage_of_metadata(ultralytics_metadata(task="depth"))
    assert other == Usage(class_names=NAMES)


def test_one_channel_is_gray():
    assert usage_of_metadata(ultralytics_metadata() | {"channels": "1"}).preprocess.color == "gray"


def test_other_files_say_nothing():
    assert usage_of_metadata({}) == Usage()
    assert usage_of_metadata({"names": "{0: 'a'}"}) == Usage()
    assert usage_of_metadata({"task": "detect", "stride": "32"}) == Usage()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{0: 'a', 2: 'c'}", ("a", "1", "c")),
        ("['x']", ("x",)),
        ("__import__('os').system('true')", ()),
        ("{" * 5000, ()),
        ("{-1: 'a'}", ()),
        ("{'zero': 'a'}", ()),
        ("{999999999: 'a'}", ()),
        ("{}", ()),
        ("[" + "'a', " * 400_000 + "]", ()),
        ("7", ()),
    ],
)
def test_names_are_read_and_nothing_is_run(names, expected):
    assert usage_of_metadata({"task": "detect", "names": names}).class_names == expected


@pytest.mark.parametrize("size", ["640", "[640, 640]", "(640, 640)"])
def test_sizes_in_any_form(size):
    assert usage_of_metadata(ultralytics_metadata() | {"imgsz": size}).preprocess.height_px == 640


@pytest.mark.parametrize("size", ["[0, 640]", "'large'", "[1, 2, 3]", "-1", "", "[true, true"])
def test_sizes_that_are_none(size):
    assert usage_of_metadata(ultralytics_metadata() | {"imgsz": size}).preprocess is None


def test_what_a_file_says_travels_on_as_our_own(tmp_path):
    import onnx

    from redline.core.artifact import Step

    path = detector_model(tmp_path / "m.onnx", v8_predictions([]), metadata=ultralytics_metadata(size_px=640))
    read = read_onnx(path)
    assert read.usage.detection == Detection(stride=32)
    assert read.usage.preprocess.height_px == 64
    proto = onnx.load(str(path))
    del proto.metadata_props[:]
    step = Step(step="test", arguments={}, parent_sha256=None, versions={})
    saved = save_proto(proto, tmp_path / "n.onnx", step=step, parent=read)
    assert read_onnx(saved.path).usage == read.usage
