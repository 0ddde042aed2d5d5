"""What a file says about the use of its model survives being written down."""

import pytest

from redline.core.errors import InputError
from redline.core.plain import from_text, to_line
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
    assert from_text(Usage, to_line(usage), where="usage") == usage


@pytest.mark.parametrize("wrong", [{"task": "pose"}, {"head": "v3"}, {"stride": 0}])
def test_a_detection_that_nobody_knows_is_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        Detection(**wrong)
