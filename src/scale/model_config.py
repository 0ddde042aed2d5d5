"""Which models look at a slide, at which windows, by the names that users already have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from redline.core.errors import InputError
from scale.aimodels import YOLOModel, YOLOTensorRTModel
from scale.models.config import ModelTable, find_models
from scale.models.spec import ModelSpec, Postprocessing

__all__ = [
    "ModelConfig",
    "Postprocessing",
    "create_model_configs",
    "create_tensorrt_model_configs",
    "get_postprocess_settings",
]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model and the side of its windows, in pixels of level 0."""

    model: YOLOModel
    window_size: int

    def __post_init__(self) -> None:
        if self.window_size < 1:
            raise InputError(f"window_size is {self.window_size}, expected at least 1 pixel")

    @property
    def spec(self) -> ModelSpec:
        """The model's description, with these windows."""
        return replace(self.model.spec, window_px=self.window_size)


def create_model_configs(
    use_tensorrt: bool = False,
    tensorrt_fallback: bool = True,
    *,
    models_dir: str | Path | None = None,
    config: str | Path | None = None,
    device: str = "auto",
) -> list[ModelConfig]:
    """The models that ship with their windows, or those of a TOML file; no file of a model is opened yet.

    Args:
        use_tensorrt: Run TensorRT engines.
        tensorrt_fallback: Whether another file may answer where no engine works.
        models_dir: Where the models lie; None is ``models``, or the folder of ``config``.
        config: A TOML file that names models; see ``scale/models/default.toml``.
        device: ``auto`` takes a GPU where there is one; ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        InputError: ``config`` cannot be used; names what is wrong in it.
    """
    specs = _table(config, models_dir).models
    return [
        ModelConfig(
            YOLOTensorRTModel.of(spec, device=device, fallback_to_pt=tensorrt_fallback)
            if use_tensorrt
            else YOLOModel.of(spec, device=device),
            spec.window_px,
        )
        for spec in specs
    ]


def create_tensorrt_model_configs(
    fallback_to_pt: bool = True,
    *,
    models_dir: str | Path | None = None,
    config: str | Path | None = None,
    device: str = "auto",
) -> list[ModelConfig]:
    """The same, run by TensorRT engines; see :func:`create_model_configs`."""
    return create_model_configs(True, fallback_to_pt, models_dir=models_dir, config=config, device=device)


def get_postprocess_settings(config: str | Path | None = None) -> dict[str, Postprocessing]:
    """What is done with the detections of each class when all windows were seen.

    Args:
        config: A TOML file that names models; None takes the settings that ship.
    """
    return dict(_table(config, None).postprocess)


def _table(config: str | Path | None, models_dir: str | Path | None) -> ModelTable:
    return find_models(config, models_dir)
