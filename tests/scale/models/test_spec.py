"""What is known of a model is checked where it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redline.core.errors import InputError
from scale.models.spec import ModelSpec


def spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {"name": "Meta", "path": Path("models/meta.pt"), "class_names": {0: "Meta"}}
    return ModelSpec(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "has no name"),
        ({"path": Path("meta.txt")}, r"got file meta\.txt, expected one of \.pt"),
        ({"confidence": 1.5}, r"confidence is 1\.5"),
        ({"iou": -0.1}, r"iou is -0\.1"),
        ({"window_px": 0}, "window is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"max_detections": 0}, "max_detections is 0"),
        ({"input_px": -1}, "input is -1"),
        ({"class_names": {-1: "a"}}, "class -1 is 'a'"),
        ({"class_names": {0: ""}}, "class 0 is ''"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        spec(**changes)


def test_files_need_not_be_there() -> None:
    assert spec(path=Path("nowhere/meta.ENGINE")).path.name == "meta.ENGINE"
