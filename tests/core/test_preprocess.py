"""What a file says about the use of its model survives being written down."""

import json

import pytest

from redline.core.errors import InputError
from redline.core.preprocess import Detection, Preprocess, Usage


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(class_names=("cat", "dog")),
        Usage(
            preprocess=Preprocess(height_px=64, width_px=32, resize="letterbox"),
            class_names=("cat",),
            detection=Detection(task="segment", head="v5", stride=32),
        ),
        Usage(detection=Detection()),
    ],
)
def test_usage_survives_json(usage):
    assert Usage.from_json(json.loads(json.dumps(usage.to_json()))) == usage


def test_a_model_that_detects_nothing_says_nothing_of_it():
    assert "detection" not in Usage(class_names=("cat",)).to_json()


@pytest.mark.parametrize("wrong", [{"task": "pose"}, {"head": "v3"}, {"stride": 0}])
def test_a_detection_that_nobody_knows_is_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        Detection(**wrong)
