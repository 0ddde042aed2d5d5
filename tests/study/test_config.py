"""A study's file is read as it stands, and what does not belong there is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.core.errors import InputError
from redline.core.plain import from_plain, to_plain
from redline.study.config import StudyConfig, read_config

STUDIES = Path(__file__).parents[2] / "studies"
SMALL = """
name = "Small"
models = ["digits"]
[grid]
backends = ["torch"]
batches = [1, 8]
sizes = [224, "256x320"]
[measure]
window_s = 1
[data]
images = "photos"
[interpreters]
tensorrt = "/opt/trt/bin/python"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_a_study_says_what_it_says(tmp_path: Path) -> None:
    config = StudyConfig(**read_config(written(tmp_path, SMALL)))
    assert config.sizes == ((224, 224), (256, 320))
    assert (config.name, config.models, config.batches, config.window_s) == ("Small", ("digits",), (1, 8), 1.0)
    assert config.interpreters == (("tensorrt", "/opt/trt/bin/python"),)
    assert config.data == str(tmp_path / "photos")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.name)
def test_every_study_that_ships_is_one(path: Path) -> None:
    config = StudyConfig(**read_config(path))
    assert from_plain(StudyConfig, to_plain(config), where="it") == config


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("batches", "batchs", r"'batchs' as .*key in \[grid\]; did you mean batches\?"),
        ("[measure]", "[mesure]", r"'mesure' as .*did you mean measure\?"),
        ("window_s = 1", 'window_s = "1"', r"measure\.window_s is '1', expected a number"),
        ("[1, 8]", '[1, "8"]', r"grid\.batches is '8', expected whole numbers"),
        ("[1, 8]", "[1, true]", r"grid\.batches is True, expected whole numbers"),
        ("256x320", "256by320", r"got size '256by320', expected 224 or '224x320'"),
        ('["digits"]', '"digits"', r"models is 'digits', expected a list"),
        ("tensorrt =", "tensort =", r"'tensort' as .*did you mean tensorrt"),
        ("models =", "models ==", r"is not TOML: .*line 3"),
    ],
)
def test_what_does_not_belong_there_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_config(written(tmp_path, SMALL.replace(old, new)))


def test_a_study_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml is not a file"):
        read_config(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"backends": ("tensort",)}, r"'tensort' as backends; did you mean tensorrt\?"),
        ({"precisions": ("fp31",)}, r"'fp31' as precisions; did you mean"),
        ({"devices": ("tpu",)}, r"'tpu' as devices; .*cpu"),
        ({"loaders": ()}, r"loaders is empty"),
        ({"batches": (8, 8)}, r"batches names something twice: 8, 8"),
        ({"batches": (0,)}, r"batches are \(0,\)"),
        ({"sizes": ((0, 224),)}, r"sizes are"),
        ({"rounds": 2}, r"rounds is 2, expected at least 3"),
        ({"window_s": 0.0}, r"window_s is 0\.0"),
        ({"cell_timeout_s": 0.0}, r"cell_timeout_s is 0\.0"),
        ({"baseline": "torch"}, r"'torch' as baseline; did you mean torch-"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        StudyConfig(**{"models": ("digits",), **values})  # type: ignore[arg-type]
