"""What a tune leaves for people and programs: the reports, and the folder of the recommended variant."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

from redline.commands.report import WRITERS
from redline.commands.tune_job import TuneJob
from redline.core.artifact import Engine
from redline.core.errors import MissingDependencyError
from redline.core.files import sha256_of, whole_folder
from redline.measurement.summary import Row, Study
from redline.variants import AUTO

MANIFEST = "manifest.json"


def write_best(job: TuneJob, study: Study) -> Path | None:
    """Write ``best/`` whole or not at all; None where nothing is recommended."""
    row = next((r for r in study.rows if r.recommended and r.batch == job.options.batches[0]), None)
    best = job.folder / "best"
    if row is None or study.conclusion is None:
        if best.exists():
            shutil.rmtree(best)
        return None
    with whole_folder(best) as folder:
        files = _copy(job, row, folder)
        manifest = {
            "format": 1,
            "variant": row.variant,
            "title": row.title,
            "backend": row.backend,
            "precision": row.precision,
            "layers": row.layers_text,
            **files,
            "sha256": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
            "threads": job.threads,
            "inputs": job.model["inputs"],
            "outputs": job.model["outputs"],
            "preprocess": job.model["preprocess"],
            "class_names": job.model["class_names"],
            "measured": _measured(row),
            "recommendation": study.conclusion["sentences"],
            "run_id": study.run["run_id"],
            "command": study.run["command"],
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return best


def _copy(job: TuneJob, row: Row, folder: Path) -> dict[str, Any]:
    variant = next(v for v in (*job.variants, *AUTO) if v.name == row.variant)
    if variant.runtime == "torch":
        weights = job.model["weights_file"]
        if weights:
            shutil.copy2(job.path(weights), folder / "weights.safetensors")
        torch = {"ref": job.model["ref"], "weights_file": "weights.safetensors" if weights else None}
        return {"engine": None, "model": None, "torch": {**torch, **variant.options}}
    shutil.copy2(_model_of(job, row.variant), folder / "model.onnx")
    sidecar = _engine_of(job, row.variant)
    if sidecar is None:
        return {"engine": None, "model": "model.onnx", "torch": None}
    engine = Engine.read(sidecar)
    shutil.copy2(engine.path, folder / engine.path.name)
    shutil.copy2(sidecar, folder / sidecar.name)
    return {"engine": engine.path.name, "model": "model.onnx", "torch": None}


def _model_of(job: TuneJob, variant: str) -> Path:
    record = job.journal.find("variant", name=variant)
    name = record["artifact"] if record else ""
    made = job.folder / "artifacts" / name
    return made if made.is_file() else Path(job.model["name"])


def _engine_of(job: TuneJob, variant: str) -> Path | None:
    found = sorted((job.folder / "engines" / variant).glob("*.engine.json"))
    return found[0] if found else None


def _measured(row: Row) -> dict[str, Any]:
    names = (
        "batch",
        "p50_s",
        "p90_s",
        "throughput_per_s",
        "speedup",
        "speedup_low",
        "speedup_high",
        "verdict",
        "private_peak_bytes",
        "size_bytes",
        "top1_agreement",
        "accuracy",
        "accuracy_drop",
        "max_abs",
    )
    return {name: getattr(row, name) for name in names}


def write_reports(study: Study, folder: Path) -> Path | None:
    """Write ``report.html``, ``report.md`` and ``results.csv``; None where what draws the page is not installed."""
    page: Path | None = folder / "report.html"
    for out in (folder / "report.md", folder / "results.csv", folder / "report.html"):
        module, _, function = WRITERS[out.suffix].partition(":")
        try:
            getattr(importlib.import_module(module), function)(study, out)
        except MissingDependencyError:
            page = None
    return page
