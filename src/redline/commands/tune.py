"""Tune: from a model to every variant, verified and measured, and the one to deploy."""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redline import __version__
from redline.commands.steps import describe_onnx, describe_torch, prepare_samples
from redline.commands.tune_files import make_auto_file, make_files
from redline.commands.tune_folder import RESULTS, WEIGHTS, held_folder
from redline.commands.tune_job import Listener, Progress, TuneJob
from redline.commands.tune_measure import measure_all
from redline.commands.tune_outputs import write_best, write_reports
from redline.commands.tune_verify import Opened, open_variants
from redline.commands.ways import require_gpu
from redline.core.errors import InputError, MissingDependencyError, WorkerError
from redline.core.files import sha256_of
from redline.core.processes import command_line
from redline.core.samples import save_samples
from redline.core.tensor import Signature
from redline.measurement.environment import fingerprint, noise_check, usable_cores
from redline.measurement.results import FORMAT, ResultsFile
from redline.measurement.summary import Study, summarize
from redline.measurement.worker import Source, call_in_fresh_process, thread_environment
from redline.tuning.conclusion import conclude
from redline.tuning.journal import Journal
from redline.tuning.options import TuneOptions
from redline.tuning.plan import BASELINE, BASELINE_WITHOUT_TORCH, with_control
from redline.variants import AUTO, Variant, choose_variants


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What a tune found.

    Attributes:
        study: Every row with its conditions.
        best: The folder of the recommended variant, None where none passed the gate.
        report: The HTML page, None where the package that draws it is missing.
    """

    study: Study
    best: Path | None
    report: Path | None


def tune(
    model: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    labels: str | Path | None = None,
    options: TuneOptions | None = None,
    listener: Listener | None = None,
) -> TuneResult:
    """Make every variant of a model, verify and measure each, and recommend one.

    ``out`` gets ``results.jsonl`` (every raw sample), ``report.html``, ``report.md``, ``results.csv``, ``artifacts/``,
    ``engines/`` and ``best/`` with a manifest. What is finished is on the disk at once: a run that is killed goes on
    with ``resume``.

    Args:
        model: As on the command line: a built-in name, ``file.py:factory``, ``.pt2``, TorchScript or ``.onnx``.
        out: The folder to write.
        data: A folder of images, or arrays in a ``.npz``; half calibrates, the rest verifies.
        labels: A CSV file with the columns file and label.
        options: Everything else.
        listener: Called with (what is being done, expected seconds done, expected seconds in all).

    Raises:
        BusyError: another tune holds the folder.
        InputError: the model, the data or the folder cannot be used; says what to do.
    """
    options = options or TuneOptions()
    folder = Path(out)
    with (
        held_folder(folder, resume=options.resume),
        tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as scratch,
        ResultsFile(folder / RESULTS) as file,
    ):
        job = _job(model, data, labels, options, _Place(folder, Path(scratch), file, listener))
        return _run(job)


@dataclass(frozen=True, slots=True)
class _Place:
    folder: Path
    scratch: Path
    results: ResultsFile
    listener: Listener | None


def _job(
    model: str, data: str | Path | None, labels: str | Path | None, options: TuneOptions, place: _Place
) -> TuneJob:
    if options.device == "cuda":
        require_gpu()
    environment = fingerprint(noise=noise_check())
    threads = options.threads or usable_cores(environment)
    is_onnx = model.lower().endswith(".onnx")
    variants = tuple(v for v in choose_variants(options.variants, options.device) if v.file is not None or not is_onnx)
    baseline = BASELINE_WITHOUT_TORCH if is_onnx else BASELINE
    if baseline not in {variant.name for variant in variants}:
        variants = (*choose_variants((baseline,), options.device), *variants)
    variants = with_control(variants, baseline)
    progress = Progress(place.listener, _expected_s(options, variants))
    journal = Journal(place.results, place.folder)
    settings = {**options.settings(), "threads": threads, "baseline": baseline}
    journal.check_request(model, settings)
    progress.say("load the model")
    identity, description = _describe(model, options, place.folder, threads)
    _check_batches(model, description, options.batches)
    calibration, verification, warning = prepare_samples(
        description,
        str(data) if data else None,
        str(labels) if labels else None,
        (options.calibration_samples, options.verification_samples),
        options.seed,
    )
    journal.begin(
        {
            "kind": "run",
            "format": FORMAT,
            "run_id": uuid.uuid4().hex,
            "redline": __version__,
            "command": command_line(f"redline.tune({model!r}, …)"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": identity,
            "settings": settings,
            "data": {
                "source": verification.source,
                "fingerprint": verification.fingerprint()[:16],
                "calibration": len(calibration),
                "verification": len(verification),
                "labelled": verification.labels is not None,
                "skipped": [{"name": s.name, "reason": s.reason} for s in verification.skipped],
                "depends_on_input": None,
                "warning": warning,
            },
            "environment": environment.to_json(),
        }
    )
    save_samples(calibration, place.scratch / "calibration.npz")
    return TuneJob(
        folder=place.folder,
        model=identity,
        description=description,
        variants=variants,
        baseline=baseline,
        options=options,
        threads=threads,
        journal=journal,
        verification=verification,
        scratch=place.scratch,
        progress=progress,
    )


def _describe(model: str, options: TuneOptions, folder: Path, threads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    ref: dict[str, Any] = {"name": model, "weights": options.weights, "size_px": options.size_px}
    weights_file: Path | None = None
    if model.lower().endswith(".onnx"):
        step = Source(factory=f"{describe_onnx.__module__}:{describe_onnx.__name__}", arguments={"path": model})
    else:
        _need_torch()
        weights_file = folder / WEIGHTS
        step = Source(
            factory=f"{describe_torch.__module__}:{describe_torch.__name__}",
            arguments={"ref": ref, "weights_file": str(weights_file)},
            environment=thread_environment(threads),
        )
    try:
        description = call_in_fresh_process(step, timeout_s=600)
    except WorkerError as error:
        if error.missing is not None:
            raise error.missing from error
        raise
    has_file = weights_file is not None and not description["from_file"]
    source = weights_file if has_file else Path(model)
    identity = {
        "name": model,
        "ref": ref if weights_file else None,
        "weights_file": WEIGHTS if has_file else None,
        "sha256": sha256_of(source) if source is not None else None,
        "parameters": description["parameters"],
        "inputs": description["signature"]["inputs"],
        "outputs": description["signature"]["outputs"],
        "preprocess": description["preprocess"],
        "class_names": description["class_names"],
        "notes": description["notes"],
    }
    return identity, description


def _check_batches(model: str, description: dict[str, Any], batches: tuple[int, ...]) -> None:
    fixed = Signature.from_json(description["signature"]).fixed_batch
    if fixed is not None and batches != (fixed,):
        given = ",".join(map(str, batches))
        raise InputError(f"{model} takes batches of {fixed} only, got --batch {given}; type --batch {fixed}")


def _need_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise MissingDependencyError("torch", extra="torch")


def _run(job: TuneJob) -> TuneResult:
    if not job.journal.has("conclusion"):
        with Opened() as opened:
            files = make_files(job)
            open_variants(job, files, job.variants, opened)
            if _int8_fails(job):
                make_auto_file(job, files)
                open_variants(job, files, AUTO, opened)
            measure_all(job, opened.workers)
        study = summarize(job.journal.results.records)
        job.journal.append(conclude(study, batch=job.options.batches[0], objective=job.options.objective))
    study = summarize(job.journal.results.records)
    job.progress.say("write the report")
    best = write_best(job, study)
    return TuneResult(study=study, best=best, report=write_reports(study, job.folder))


def _int8_fails(job: TuneJob) -> bool:
    """Whether every static INT8 variant was verified and refused, so that some layers should stay in float."""
    static = [job.journal.find("agreement", variant=v.name) for v in job.variants if v.file == "int8_static"]
    return any(static) and not any(record["passed"] for record in static if record)


def _expected_s(options: TuneOptions, variants: tuple[Variant, ...]) -> float:
    turns = options.rounds * len(options.batches) * len(variants)
    return 60.0 + 6.0 * len(variants) + 1.6 * options.window_s * turns
