"""The model files of a tune: each made once, in a process of its own, or reused as it lies on the disk."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from redline.commands.tune_job import TuneJob
from redline.commands.ways import STEPS, Files, file_source, stem_of
from redline.core.errors import WorkerError
from redline.core.files import sha256_of
from redline.core.samples import load_saved, save_samples
from redline.measurement.worker import Source, call_in_fresh_process
from redline.variants import AUTO, AUTO_FILE, FileStep, files_of

_STEP_S = 6.0


def make_files(job: TuneJob) -> Files:
    """Every model file that the variants need, by step; a step that failed is missing and recorded.

    Where the graph passes fail, what was exported is used in place of what would have been optimized.
    """
    is_onnx = job.model["ref"] is None
    files: Files = {"exported": Path(job.model["name"])} if is_onnx else {}
    failures: dict[str, str] = {}
    for step in files_of(job.variants, have_torch=not is_onnx):
        job.progress.say(step.title)
        try:
            files[step.name] = _make(job, step, files, failures)
        except WorkerError as error:
            failures[step.name] = str(error)
            if step.name == "optimized" and "exported" in files:
                files["optimized"] = files["exported"]
            _record_failure(job, step, str(error))
        job.progress.advance(_STEP_S, step.title)
    _count_macs(job, files)
    return files


def make_auto_file(job: TuneJob, files: Files) -> bool:
    """Static INT8 with the fewest layers in float; adds it to ``files`` and says whether it could be made."""
    if "optimized" not in files:
        return False
    job.progress.say(AUTO_FILE.title)
    # Layers are chosen on samples that neither calibrate nor are reported.
    half, rest = load_saved(str(job.scratch / "calibration.npz")).split(job.options.calibration_samples, seed=0)
    save_samples(half, job.scratch / "calibration_half.npz")
    save_samples(rest, job.scratch / "selection.npz")
    try:
        files[AUTO_FILE.name] = _make(job, AUTO_FILE, files, {})
    except WorkerError as error:
        _record_failure(job, AUTO_FILE, str(error))
        return False
    return True


def _make(job: TuneJob, step: FileStep, files: Files, failures: dict[str, str]) -> Path:
    name = f"{stem_of(job.model['name'])}{step.suffix}"
    record = job.journal.whole_artifact(name)
    if record is not None:
        return job.folder / str(record["path"])
    if step.parent is not None and step.parent not in files:
        raise WorkerError(f"needs the file of the step that failed ({step.parent}: {failures.get(step.parent)})")
    out = job.folder / "artifacts" / name
    source = file_source(step, files, out, job.place, **_own_arguments(job, step))
    made = call_in_fresh_process(source, timeout_s=step.timeout_s)
    job.journal.append({**made, "name": name, "path": f"artifacts/{name}"})
    return out


def _own_arguments(job: TuneJob, step: FileStep) -> dict[str, str | float]:
    if step != AUTO_FILE:
        return {}
    return {
        "calibration": str(job.scratch / "calibration_half.npz"),
        "verification": str(job.scratch / "selection.npz"),
        "min_agreement": job.options.min_agreement,
        "max_accuracy_drop": job.options.max_accuracy_drop,
    }


def _record_failure(job: TuneJob, step: FileStep, reason: str) -> None:
    if step.name in ("exported", "optimized"):
        return
    for variant in (*job.variants, *AUTO):
        if variant.file == step.name and find_spec(variant.runtime) is not None:
            job.journal.append(
                {"kind": "failed", "variant": variant.name, "batch": None, "stage": "build", "reason": reason}
            )


def _count_macs(job: TuneJob, files: Files) -> None:
    if job.journal.has("macs") or "optimized" not in files:
        return
    source = Source(factory=f"{STEPS}:macs", arguments={"model": str(files["optimized"])})
    try:
        counted = call_in_fresh_process(source, timeout_s=120)
    except WorkerError:
        return
    job.journal.append({"kind": "macs", "macs_per_sample": counted, "model_sha256": sha256_of(files["optimized"])})
