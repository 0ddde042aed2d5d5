"""What the commands of ``scale`` share: which models a user names, and how numbers are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from redline.core.errors import InputError

if TYPE_CHECKING:
    from scale.models.spec import ModelSpec


def parse_overlap(text: str) -> float:
    """An overlap as a share of the window or as pixels.

    >>> parse_overlap("0.25"), parse_overlap("25%"), parse_overlap("128px"), parse_overlap("128")
    (0.25, 0.25, 128.0, 128.0)
    """
    number, share = text.strip().lower().removesuffix("px"), 1.0
    if number.endswith("%"):
        number, share = number.removesuffix("%"), 0.01
    try:
        return float(number) * share
    except ValueError as error:
        raise InputError(f"got overlap {text!r}, expected a share as 0.25, or pixels as 128") from error


def models_of(
    paths: Sequence[Path],
    config: Path | None,
    *,
    window_px: int | None = None,
    confidence: float | None = None,
    batch: int | None = None,
    max_detections: int | None = None,
) -> list[ModelSpec]:
    """The models that a user names.

    Args:
        paths: Model files, and folders of model files. With ``config`` at most one folder: where its files lie.
        config: A TOML file that names models.
        window_px: Side of the windows, in place of what is said elsewhere.
        confidence: Below which detections are dropped, in place of what is said elsewhere.
        batch: The most windows in one call, in place of what is said elsewhere.
        max_detections: The most boxes of one window, in place of what is said elsewhere.

    Raises:
        InputError: there is none, or what is there cannot be used.
    """
    specs = _from_config(paths, config) if config is not None else _from_files(paths, window_px)
    wanted = {"window_px": window_px, "confidence": confidence, "batch": batch, "max_detections": max_detections}
    changes = {name: value for name, value in wanted.items() if value is not None}
    return [replace(spec, **changes) for spec in specs]  # type: ignore[arg-type]


def _from_config(paths: Sequence[Path], config: Path) -> list[ModelSpec]:
    from scale.models.config import read_models

    if len(paths) > 1 or any(not path.is_dir() for path in paths):
        raise InputError("got --config and model files; --config names the models, --models then only their folder")
    return list(read_models(config, paths[0] if paths else None).models)


def _from_files(paths: Sequence[Path], window_px: int | None) -> list[ModelSpec]:
    if not paths:
        raise InputError("got no models; name files or a folder by --models, or a TOML file by --config")
    files = [file for path in paths for file in _files_in(path)]
    return [_spec_of(file, window_px) for file in files]


def _files_in(path: Path) -> list[Path]:
    """A file itself; of a folder one file for each model: an engine, ONNX and PyTorch file of one stem are one."""
    from scale.models.spec import SUFFIXES

    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path} is not there; expected a model file, or a folder of them")
        return [path]
    stems: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for file in sorted(path.glob(f"*{suffix}")):
            stems.setdefault(file.stem, file)
    if not stems:
        raise InputError(f"{path} holds no model; expected files that end in {', '.join(SUFFIXES)}")
    return [stems[stem] for stem in sorted(stems)]


def _spec_of(file: Path, window_px: int | None) -> ModelSpec:
    """A model that is known by its file alone: its windows are as large as its input, so that nothing is scaled."""
    from scale.models.spec import ModelSpec

    return ModelSpec(name=file.stem, path=file, window_px=window_px or _input_px(file))


def _input_px(file: Path) -> int:
    default = 640
    onnx = file.with_suffix(".onnx")
    if not onnx.is_file():
        return default
    from redline.formats.onnx_file import read_onnx

    model = read_onnx(onnx)
    told = model.usage.preprocess
    if told is not None:
        return max(told.height_px, told.width_px)
    shape = model.signature.inputs[0].shape if model.signature.inputs else ()
    sizes = [size for size in shape[2:] if isinstance(size, int)]
    return max(sizes, default=default)


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "window"), counted(1200, "window")
    ('1 window', '1,200 windows')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def duration(seconds: float) -> str:
    """A time that nobody needs to the second.

    >>> duration(4), duration(90), duration(7300)
    ('4 s', '2 min', '2.0 h')
    """
    if seconds < 1:
        return "1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
