"""The table of models that ships, and those of users: what does not belong there is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.core.errors import InputError
from scale.models.config import default_models, find_models, read_models
from scale.models.spec import Postprocessing

GOOD = """
[[model]]
name = "Cells"
file = "nets/cells.onnx"
window = 512
confidence = 0.3
iou = 0.6
batch = 8
max_detections = 900
input = 640
classes = { 0 = "Nucleus", 2 = "Mitosis" }

[[model]]
name = "All"
file = "/elsewhere/all.pt"
window = 1024

[postprocess.Nucleus]
nms = 0.4
coverage = 0.7
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text)
    return path


def test_the_table_that_ships_has_the_models_of_the_suite() -> None:
    table = default_models()
    rows = {
        model.name: (model.window_px, model.confidence, tuple(model.class_names.values())) for model in table.models
    }
    assert rows == {
        "EoE": (514, 0.4, ("EoE",)),
        "Meta": (514, 0.2, ("Meta",)),
        "Neutrophils": (514, 0.3, ("Neutrophils",)),
        "Plasma Cells": (514, 0.3, ("Plasma Cells",)),
        "Enterocytes": (514, 0.4, ("Enterocytes",)),
        "Paneth": (514, 0.4, ("Paneth",)),
        "Mild": (1028, 0.6, ("Mild",)),
        "Moderate": (3084, 0.7, ("Moderate",)),
        "Granulomas": (3084, 0.2, ("Granulomas",)),
        "Dysplasia": (3084, 0.2, ("Dysplasia",)),
        "LP": (3084, 0.5, ("Crypts", "Muscularis mucosae", "Surface epithelium", "White space")),
    }
    assert {model.path.parent for model in table.models} == {Path("models")}
    meta = next(model for model in table.models if model.name == "Meta")
    assert meta.path == Path("models/nn_det2_data_outputs_meta_train4.pt")
    classes = {name for model in table.models for name in model.class_names.values()}
    assert classes == set(table.postprocess)
    assert len(classes) == 14


def test_its_settings_are_those_of_the_suite() -> None:
    settings = default_models().postprocess
    assert settings["Meta"] == Postprocessing(0.4, None)
    assert settings["Mild"] == settings["Dysplasia"] == Postprocessing(0.7, 0.4)
    assert settings["Crypts"] == Postprocessing(0.7, 0.5)
    assert settings["Muscularis mucosae"] == Postprocessing(None, 0.2)
    assert settings["White space"] == Postprocessing(None, 0.1)


def test_a_folder_of_ones_own() -> None:
    assert {model.path.parent for model in default_models("weights").models} == {Path("weights")}


def test_a_users_own_table(tmp_path: Path) -> None:
    cells, everything = read_models(written(tmp_path, GOOD)).models
    assert cells.path == tmp_path / "nets" / "cells.onnx"
    assert (cells.window_px, cells.confidence, cells.iou, cells.batch, cells.input_px) == (512, 0.3, 0.6, 8, 640)
    assert (cells.max_detections, everything.max_detections) == (900, 300)
    assert cells.class_names == {0: "Nucleus", 2: "Mitosis"}
    assert cells.postprocess == {"Nucleus": Postprocessing(0.4, 0.7)}
    assert everything.path == Path("/elsewhere/all.pt")
    assert everything.class_names == {}
    assert everything.confidence == 0.25
    assert (
        find_models(tmp_path / "models.toml", tmp_path / "b").models[0].path == tmp_path / "b" / "nets" / "cells.onnx"
    )


def test_classes_may_be_a_list(tmp_path: Path) -> None:
    text = '[[model]]\nname = "a"\nfile = "a.onnx"\nwindow = 5\nclasses = ["x", "y"]\n'
    assert read_models(written(tmp_path, text)).models[0].class_names == {0: "x", 1: "y"}


ONE = '[[model]]\nname = "a"\nfile = "a.onnx"\nwindow = 5\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no model; expected at least one table"),
        ("models = []", "key 'models' is not known; did you mean model"),
        (ONE + "windwo = 3", "model 1: key 'windwo' is not known; did you mean window"),
        (ONE + "conf = 0.3", "did you mean confidence"),
        ('[[model]]\nname = "a"\nfile = "a.onnx"', "model 1 has no window"),
        (ONE.replace("5", "5.5"), r"model 1: window is 5\.5, expected a whole number"),
        (ONE.replace("5", "true"), "window is True"),
        (ONE.replace("a.onnx", "a.tflite"), r"model 1: model a: got file .*a\.tflite"),
        (ONE + "confidence = 3", "model 1: model a: confidence is 3"),
        (ONE + 'classes = { x = "y" }', "classes has x = 'y'"),
        (ONE + "classes = { 0 = 1 }", "classes has 0 = 1"),
        (ONE + ONE, "two models are called 'a'"),
        (
            ONE + 'classes = ["Cell"]\n[postprocess.Cel]\nnms = 0.4',
            "class in .postprocess. 'Cel' is not known; did you mean Cell",
        ),
        (ONE + "[postprocess.Cell]\nnsm = 0.4", r"postprocess\.Cell: key 'nsm' is not known; did you mean nms"),
        (ONE + "[postprocess.Cell]\nnms = 4", r"postprocess\.Cell: nms_thres is 4"),
        (ONE + '[postprocess.Cell]\nnms = "much"', r"postprocess\.Cell\.nms is 'much'"),
        ("postprocess = 3\n" + ONE, "postprocess is 3"),
        ("[[model", "is not TOML"),
    ],
)
def test_what_does_not_belong_there_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_models(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"models\.toml is not a file"):
        read_models(tmp_path / "models.toml")


def test_a_class_of_a_model_that_takes_all_may_have_settings(tmp_path: Path) -> None:
    table = read_models(written(tmp_path, ONE + "[postprocess.Whatever]\nnms = 0.4"))
    assert table.models[0].postprocess == {"Whatever": Postprocessing(0.4)}
