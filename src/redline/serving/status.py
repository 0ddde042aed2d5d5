"""What the page shows of the models that are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from redline.core.errors import RequestError
from redline.core.tensor import TensorSpec
from redline.serving.models import Models
from redline.serving.shadow import Shadow, ShadowSummary
from redline.serving.statistics import Snapshot, Took
from redline.serving.versions import Version


class VersionStatus(Snapshot):
    """A version that answers; ``batching`` is the most rows that are put together, None where none are."""

    precision: str
    backend: str
    platform: str
    size_bytes: int
    notes: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: int | None
    image: dict[str, int | str] | None
    batching: int | None
    runs: int
    waiting: int
    running: int
    spent_ns: dict[str, Took]


class ModelStatus(TypedDict):
    """A model with its versions, the newest first."""

    name: str
    versions: list[VersionStatus]
    shadow: ShadowSummary | None


class Status(TypedDict):
    """Every model with what it has done lately."""

    default: str | None
    models: list[ModelStatus]


def status_of(models: Models, shadows: Mapping[str, Shadow]) -> Status:
    """A JSON value for the page."""
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


def _versions(models: Models, name: str) -> list[VersionStatus]:
    try:
        return [_version(models.get(name, number)) for number in reversed(models.versions(name))]
    except RequestError:  # unloaded meanwhile
        return []


def _version(served: Version) -> VersionStatus:
    loaded = served.loaded
    preprocess = loaded.preprocess
    return {
        **served.statistics.snapshot(),
        "precision": loaded.precision,
        "backend": loaded.backend,
        "platform": loaded.platform,
        "size_bytes": loaded.size_bytes,
        "notes": loaded.notes,
        "inputs": loaded.signature.inputs,
        "outputs": loaded.signature.outputs,
        "classes": None if loaded.class_names is None else len(loaded.class_names),
        "image": None
        if preprocess is None
        else {"height_px": preprocess.height_px, "width_px": preprocess.width_px, "color": preprocess.color},
        "batching": None if served.batching is None else served.batching.max_rows,
        "runs": len(loaded.runs),
        "waiting": served.scheduler.waiting,
        "running": served.scheduler.running,
        "spent_ns": served.statistics.to_v2()["inference_stats"],
    }
