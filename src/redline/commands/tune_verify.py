"""Open every variant in a worker of its own and verify that it answers as the reference does."""

from __future__ import annotations

from typing import Self

from redline.commands.tune_job import TuneJob
from redline.commands.ways import Files, open_variant, reason_against
from redline.core.artifact import Layers
from redline.core.errors import RedlineError, WorkerError
from redline.core.tensor import Array
from redline.measurement.worker import Worker
from redline.variants import Variant
from redline.verification.compare import Gate, compare_outputs, outputs_of
from redline.verification.dependence import dependence
from redline.verification.tolerance import coarsest

_VERIFY_S = 6.0
Outputs = dict[str, Array]


class Opened:
    """The workers that are open, by variant, and the answers of the reference."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.reference: Outputs | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def drop(self, name: str) -> None:
        """Close one."""
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.close()


def open_variants(job: TuneJob, files: Files, variants: tuple[Variant, ...], opened: Opened) -> None:
    """Open a worker for each variant that loads and answers, and verify it; record the others with the reason.

    The baseline is opened first: its answers are the reference.
    """
    for variant in sorted(variants, key=lambda v: v.name != job.baseline):
        job.progress.say(f"verify {variant.title}")
        reason = reason_against(variant)
        if reason:
            _record_variant(job, variant, None, files)
            job.journal.append({"kind": "skipped", "variant": variant.name, "reason": reason})
        elif variant.file and variant.file not in files:
            _record_variant(job, variant, None, files)
        elif not _finished(job, variant):
            if opened.reference is None and not job.journal.has("agreement", variant=variant.name):
                _open_baseline(job, files, opened)
            if variant.name not in opened.workers:
                _open(job, variant, files, opened)
        job.progress.advance(_VERIFY_S, f"verify {variant.title}")


def _open_baseline(job: TuneJob, files: Files, opened: Opened) -> None:
    baseline = next(variant for variant in job.variants if variant.name == job.baseline)
    _open(job, baseline, files, opened)


def _finished(job: TuneJob, variant: Variant) -> bool:
    """Whether nothing is left to do for a variant, so that a resumed run need not open it."""
    rounds = {(variant.name, index) for index in range(job.options.rounds)}
    measured = all(
        rounds <= job.journal.rounds(batch) and job.journal.has("memory", variant=variant.name, batch=batch)
        for batch in job.options.batches
    )
    return measured and job.journal.has("agreement", variant=variant.name)


def _open(job: TuneJob, variant: Variant, files: Files, opened: Opened) -> None:
    stage = "build"
    try:
        source, found = open_variant(variant, job.place, files)
        worker = opened.workers[variant.name] = Worker(source)
        layers = found or worker.attribute("layers")
        _record_variant(job, variant, layers, files)
        stage = "verify"
        _verify(job, variant, layers, opened)
    except RedlineError as error:
        opened.drop(variant.name)
        _record_variant(job, variant, None, files)
        record = {"kind": "failed", "variant": variant.name, "batch": None, "stage": stage, "reason": str(error)}
        job.journal.append(record)
        if variant.name == job.baseline:
            raise WorkerError(f"the reference itself ({variant.title}) failed to {stage}: {error}") from error


def _record_variant(job: TuneJob, variant: Variant, layers: Layers | None, files: Files) -> None:
    if job.journal.has("variant", name=variant.name, complete=True):
        return
    file = files.get(variant.file) if variant.file else None
    weights = job.model["weights_file"]
    size_of = file or (job.path(weights) if weights else None)
    job.journal.append(
        {
            "kind": "variant",
            "name": variant.name,
            "title": variant.title,
            "backend": variant.runtime,
            "artifact": file.name if file else None,
            "requested": variant.requested,
            "precision": layers.precision if layers else "none",
            "layers": [list(pair) for pair in layers.counts] if layers else [],
            "size_bytes": size_of.stat().st_size if size_of and size_of.is_file() else None,
            "note": variant.note,
            "control": variant.control,
            "complete": layers is not None,
        }
    )


def _verify(job: TuneJob, variant: Variant, layers: Layers, opened: Opened) -> None:
    worker = opened.workers[variant.name]
    known = job.journal.has("agreement", variant=variant.name)
    is_reference = variant.name == job.baseline
    if known and not is_reference:
        return
    first_s, outputs = _answers(job, worker)
    if is_reference:
        opened.reference = outputs
        if not job.journal.has("dependence"):
            job.journal.append({"kind": "dependence", **dependence(outputs, job.verification).to_json()})
    if known:
        return
    if opened.reference is None:
        raise WorkerError("the reference has not answered")
    gate = Gate(min_agreement=job.options.min_agreement, max_accuracy_drop=job.options.max_accuracy_drop)
    agreement = compare_outputs(
        opened.reference,
        outputs,
        labels=job.verification.labels,
        precision=coarsest(layers, _file_layers(job, variant)),
        gate=gate,
    )
    job.journal.append({"kind": "load", "variant": variant.name, "load_s": worker.load_s, "first_call_s": first_s})
    job.journal.append(agreement.to_json(variant.name))


def _file_layers(job: TuneJob, variant: Variant) -> Layers:
    record = job.journal.find("variant", name=variant.name)
    artifact = job.journal.find("artifact", name=record["artifact"]) if record else None
    return Layers.of(dict(artifact["layers"]) if artifact else {})


def _answers(job: TuneJob, worker: Worker) -> tuple[float, Outputs]:
    batch = worker.signature.fixed_batch or job.options.batches[0]
    first = worker.prepare(batch, [job.verification.batch(0, batch)], limit_s=0.0)
    return first.first_call_s, outputs_of(worker, job.verification, batch)
