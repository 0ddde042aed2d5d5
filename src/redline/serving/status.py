"""What the page shows of the models that are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redline.core.errors import RequestError
from redline.core.tensor import TensorSpec
from redline.serving.models import Models
from redline.serving.shadow import Shadow
from redline.serving.versions import Version


def status_of(models: Models, shadows: Mapping[str, Shadow]) -> dict[str, Any]:
    """A JSON value: each model's versions, the newest first, with what they have done lately."""
    return {
        "default": models.default_name,
        "models": [
            {
                "name": name,
                "versions": _versions(models, name),
                "shadow": shadows[name].summary() if name in shadows else None,
            }
            for name in models.names
        ],
    }


def _versions(models: Models, name: str) -> list[dict[str, Any]]:
    try:
        return [_version(models.get(name, number)) for number in reversed(models.versions(name))]
    except RequestError:  # unloaded meanwhile
        return []


def _version(served: Version) -> dict[str, Any]:
    loaded = served.loaded
    preprocess = loaded.preprocess
    return {
        "version": served.number,
        "precision": loaded.precision,
        "backend": loaded.backend,
        "platform": loaded.platform,
        "size_bytes": loaded.size_bytes,
        "notes": list(loaded.notes),
        "inputs": [_tensor(spec) for spec in loaded.signature.inputs],
        "outputs": [_tensor(spec) for spec in loaded.signature.outputs],
        "classes": None if loaded.class_names is None else len(loaded.class_names),
        "image": None
        if preprocess is None
        else {"height_px": preprocess.height_px, "width_px": preprocess.width_px, "color": preprocess.color},
        "batching": None if served.batching is None else served.batching.max_rows,
        "runs": len(loaded.runs),
        "waiting": served.scheduler.waiting,
        "running": served.scheduler.running,
        **served.statistics.snapshot(),
        "spent_ns": served.statistics.to_v2()["inference_stats"],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
