"""Is the engine that is there already the one that would be built?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from redline.core.artifact import Argument, Engine, OnnxModel
from redline.core.errors import ArtifactError, EngineMismatchError

#: Options that say how to build or run and not what comes of it.
_WITHOUT_EFFECT = frozenset(
    {"calibration", "calibration_cache", "timing_cache", "cuda_graph", "device", "rebuild", "name"}
)
#: A new driver runs the engines of an old one.
_MAY_CHANGE = frozenset({"driver"})


def built_before(
    path: Path,
    model: OnnxModel,
    options: Mapping[str, Argument],
    platform: Mapping[str, str],
    calibration_cache: str | None,
) -> Engine | None:
    """The engine at ``path`` where it is whole and of the same model, options, platform and calibration.

    Args:
        path: Of the plan.
        model: What it would be built from.
        options: What it would be built with.
        platform: What it would be built for.
        calibration_cache: Name of the file that the calibration would write, which holds the digest of its samples.
    """
    try:
        engine = Engine.read(path)
    except (ArtifactError, EngineMismatchError):
        return None
    step = engine.provenance[-1] if engine.provenance else None
    if step is None or step.parent_sha256 != model.sha256:
        return None
    if _effective(engine.options) != _effective(options) or _fixed(engine.platform) != _fixed(platform):
        return None
    return engine if step.arguments.get("calibration_cache") == calibration_cache else None


def _effective(options: Mapping[str, Argument]) -> dict[str, Argument]:
    return {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}


def _fixed(platform: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in platform.items() if name not in _MAY_CHANGE}
