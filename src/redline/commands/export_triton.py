"""``redline.export_triton``: a model repository that NVIDIA's Triton loads, with what runs it past one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redline.core.errors import InputError
from redline.core.files import write_whole
from redline.deployment.kubernetes import (
    DOCKERIGNORE,
    Workload,
    dockerfile,
    kserve,
    kubernetes_name,
    manifests,
    memory_for,
)
from redline.deployment.readme import HEADING, readme
from redline.deployment.repository import CONFIG, Added, add_version, models_in
from redline.deployment.triton import config_pbtxt
from redline.deployment.triton_models import OnnxBackend, Prepared, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """One model as it lies in the repository."""

    prepared: Prepared
    added: Added


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonExport:
    """What an export wrote.

    Attributes:
        files: Beside the models: the README, and what Kubernetes takes.
        notes: What the user should know.
    """

    repository: Path
    models: tuple[ExportedModel, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export_triton(
    models: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    backend: OnnxBackend = "onnxruntime",
    max_batch: int | None = None,
    max_delay_ms: float = 0.0,
    instances: int | None = None,
    kubernetes: bool = False,
    kserve: bool = False,
) -> TritonExport:
    """Add models to a Triton model repository; one that is there already gets a new version.

    Args:
        models: Each an ONNX file, a TensorRT plan, or the folder of a tune; ``NAME=PATH`` names it.
        out: The repository; made where it is not there.
        backend: What runs an ONNX file within Triton. ``python`` is for a Triton without the ONNX Runtime backend: it
            gets a ``model.py`` that needs onnxruntime in Triton's Python.
        max_batch: The most rows that run at once; None takes 32, or what a plan's profiles allow.
        max_delay_ms: How long a batch may wait to fill.
        instances: How many of each model run side by side; None takes one a core, or one a GPU.
        kubernetes: Write a Deployment, a Service, an autoscaler and a Dockerfile too.
        kserve: Write a ServingRuntime and an InferenceService of KServe too.

    Raises:
        InputError: a model that Triton cannot run, a name that is taken by another model, or two of one name.
    """
    given = [models] if isinstance(models, str | Path) else list(models)
    if not given:
        raise InputError("got no model, expected at least one path or NAME=PATH")
    prepared = [
        prepare(str(one), backend=backend, max_batch=max_batch, max_delay_s=max_delay_ms / 1e3, instances=instances)
        for one in given
    ]
    names = [one.model.name for one in prepared]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"got {twice[0]} twice; name them apart: NAME=PATH")
    for one in prepared:
        config_pbtxt(one.model)  # whatever it refuses, nothing is written then
    repository = Path(out)
    added = [add_version(repository, one.model, one.files, comment=one.comment) for one in prepared]
    files, notes = _write_files(repository, prepared, kubernetes=kubernetes, with_kserve=kserve)
    told = [f"{one.model.name}: {note}" for one, new in zip(prepared, added, strict=True) for note in _told(one, new)]
    return TritonExport(
        repository=repository,
        models=tuple(ExportedModel(prepared=one, added=new) for one, new in zip(prepared, added, strict=True)),
        files=files,
        notes=(*told, *notes),
    )


def _told(prepared: Prepared, added: Added) -> tuple[str, ...]:
    return (*prepared.notes, *added.notes)


def _write_files(
    repository: Path, prepared: Sequence[Prepared], *, kubernetes: bool, with_kserve: bool
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Write what lies beside the models, as files: Triton takes every folder for a model."""
    workload = _workload(repository)
    texts: dict[str, str] = {}
    if kubernetes or with_kserve:
        texts |= {"Dockerfile": dockerfile(workload), ".dockerignore": DOCKERIGNORE}
    if kubernetes:
        texts["kubernetes.yaml"] = manifests(workload)
    if with_kserve:
        texts["kserve.yaml"] = kserve(workload, f"pvc://models/{workload.name}")
    page = repository / "README.md"
    texts["README.md"] = readme(models_in(repository), prepared[0].model, workload)
    written, notes = [], []
    for name, text in texts.items():
        path = repository / name
        old = path.read_text(encoding="utf-8") if path.is_file() else None
        if old is None or old == text or (path == page and old.startswith(HEADING)):
            write_whole(path, text)
            written.append(path)
        else:
            notes.append(f"{path} is there and stays as it is; remove it to get the one of now")
    return tuple(written), tuple(notes)


def _workload(repository: Path) -> Workload:
    """What it takes to run everything that is in the repository."""
    names = models_in(repository)
    gpu = any("KIND_GPU" in (repository / name / CONFIG).read_text(encoding="utf-8") for name in names)
    newest = [repository / name / str(versions[-1]) for name, versions in names.items()]
    sizes = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in newest]
    return Workload(
        name=kubernetes_name(repository.resolve().name),
        server="triton" if gpu else "redline",
        gpus=1 if gpu else 0,
        memory_bytes=memory_for(sizes),
    )
