"""The measuring of a tune: the machine's limits, then all variants in interleaved rounds."""

from __future__ import annotations

from collections.abc import Mapping

from redline.commands.ceilings import measure_cpu, measure_gpu
from redline.commands.tune_job import TuneJob
from redline.core.errors import WorkerError
from redline.measurement.interleave import Schedule, Window, interleave
from redline.measurement.worker import Worker

_BATCHES_IN_TURN = 4


def measure_all(job: TuneJob, workers: Mapping[str, Worker]) -> None:
    """The machine's ceilings, then every batch size in interleaved rounds, smallest batch first."""
    _measure_ceilings(job)
    failed: set[str] = set()
    for batch in sorted(job.options.batches):
        _measure_batch(job, {n: w for n, w in workers.items() if n not in failed}, batch, failed)


def _measure_batch(job: TuneJob, workers: dict[str, Worker], batch: int, failed: set[str]) -> None:
    schedule = Schedule(rounds=job.options.rounds, window_s=job.options.window_s, seed=job.options.seed)
    done = job.journal.rounds(batch)
    turn_s = 1.5 * schedule.window_s

    def fail(name: str, reason: str) -> None:
        failed.add(name)
        job.journal.append({"kind": "failed", "variant": name, "batch": batch, "stage": "measure", "reason": reason})

    def keep(window: Window) -> None:
        record = {"variant": window.variant, "batch": batch, "round": window.round, "samples_s": window.samples_s}
        job.journal.append({"kind": "samples", **record})
        job.progress.advance(turn_s, f"measure batch {batch}, round {window.round + 1} of {schedule.rounds}")

    ready = {}
    for name, worker in workers.items():
        timed = all((name, index) in done for index in range(schedule.rounds))
        if timed and job.journal.has("memory", variant=name, batch=batch):
            job.progress.advance(turn_s * schedule.rounds, "already measured")
            continue
        try:
            job.progress.say(f"warm up {name}")
            starts = range(0, _BATCHES_IN_TURN * batch, batch)
            worker.prepare(batch, [job.verification.batch(start, batch) for start in starts])
            ready[name] = worker
        except WorkerError as error:
            fail(name, str(error))
    interleave(ready, batch, schedule, done=done, on_window=keep, on_failure=fail)
    for name, worker in ready.items():
        if name not in failed:
            _record_memory(job, name, batch, worker)


def _record_memory(job: TuneJob, name: str, batch: int, worker: Worker) -> None:
    memory = worker.memory()
    job.journal.append(
        {
            "kind": "memory",
            "variant": name,
            "batch": batch,
            "private_peak_bytes": memory.private_peak_bytes,
            "private_before_bytes": memory.private_before_bytes,
            "rss_peak_bytes": memory.rss_peak_bytes,
        }
    )


def _measure_ceilings(job: TuneJob) -> None:
    if job.journal.has("bandwidth"):
        return
    job.progress.say("measure this machine's limits")
    measured = measure_gpu(job.threads) if job.options.device == "cuda" else measure_cpu(job.scratch, job.threads)
    for record in measured:
        job.journal.append(record)
