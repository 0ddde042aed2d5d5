"""The models of a suite by the names that users have."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.core.errors import InputError
from scale.aimodels import YOLOModel, YOLOTensorRTModel
from scale.model_config import (
    ModelConfig,
    Postprocessing,
    create_model_configs,
    create_tensorrt_model_configs,
    get_postprocess_settings,
)

OWN = """
[[model]]
name = "Cells"
file = "cells.onnx"
window = 512
classes = ["Nucleus"]
[postprocess.Nucleus]
nms = 0.3
"""


def test_the_models_that_ship_need_no_files() -> None:
    configs = create_model_configs()
    assert [type(config.model) for config in configs] == [YOLOModel] * 11
    assert sorted({config.window_size for config in configs}) == [514, 1028, 3084]
    assert [config.spec.window_px for config in configs] == [config.window_size for config in configs]
    assert configs[1].model.model_path == Path("models/nn_det2_data_outputs_meta_train4.pt")


@pytest.mark.parametrize("fallback", [True, False])
def test_both_ways_to_ask_for_engines_are_one(fallback: bool) -> None:
    ways = (
        create_tensorrt_model_configs(fallback_to_pt=fallback),
        create_tensorrt_model_configs(fallback),
        create_model_configs(use_tensorrt=True, tensorrt_fallback=fallback),
        create_model_configs(True, fallback),
    )
    for configs in ways:
        assert {type(config.model) for config in configs} == {YOLOTensorRTModel}
        assert {config.model.fallback for config in configs} == {fallback}
        assert [config.spec for config in configs] == [config.spec for config in ways[0]]


def test_every_class_has_its_settings() -> None:
    settings = get_postprocess_settings()
    classes = {name for config in create_model_configs() for name in config.model.cls_index_to_name.values()}
    assert set(settings) == classes
    assert settings["White space"] == Postprocessing(nms_thres=None, cov_thres=0.1)
    settings.clear()
    assert get_postprocess_settings()


def test_a_table_and_a_folder_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    (config,) = create_tensorrt_model_configs(config=path, device="cuda:1")
    assert (config.model.model_path, config.window_size, config.model.device) == (
        tmp_path / "cells.onnx",
        512,
        "cuda:1",
    )
    (elsewhere,) = create_model_configs(config=path, models_dir=tmp_path / "weights")
    assert elsewhere.model.model_path == tmp_path / "weights" / "cells.onnx"
    assert get_postprocess_settings(path) == {"Nucleus": Postprocessing(0.3)}
    assert create_model_configs(models_dir="weights")[0].model.model_path.parent == Path("weights")


def test_a_config_of_ones_own_model() -> None:
    config = ModelConfig(YOLOModel("m.onnx", 0.5, {0: "Cell"}), 1024)
    assert config.spec.window_px == 1024
    assert config.spec.path == Path("m.onnx")
    with pytest.raises(InputError, match="window_size is 0"):
        ModelConfig(config.model, 0)
