"""The measuring of a tune: the machine's limits, then all variants in interleaved rounds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from redline.commands.tune_job import TuneJob
from redline.commands.ways import STEPS, measure_gpu
from redline.core.artifact import Layers
from redline.core.errors import WorkerError
from redline.core.tensor import Array
from redline.measurement.ceiling import copy_gbytes_per_s, gflops
from redline.measurement.interleave import Schedule, Window, interleave
from redline.measurement.worker import Source, Worker, call_in_fresh_process

_GEMM_SIZE = 1024
_GEMM_TRIALS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("fp32", "onnxruntime", {}),
    ("int8", "onnxruntime", {}),
    ("fp32", "openvino", {"precision": "f32"}),
    ("fp32", "openvino", {"precision": "default"}),
    ("int8", "openvino", {"precision": "f32"}),
)
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
    """The peak rate of a matrix product in each precision that a runtime here really ran, and of copying memory."""
    if job.journal.has("bandwidth"):
        return
    job.progress.say("measure this machine's limits")
    if job.options.device == "cuda":
        for record in measure_gpu(job.place.environment):
            job.journal.append(record)
        return
    best: dict[str, tuple[float, str]] = {}
    for precision, backend, options in _GEMM_TRIALS:
        if find_spec(backend) is None:
            continue
        try:
            ran, rate = _gemm_rate(job, precision, backend, options)
        except WorkerError:
            continue
        if rate > best.get(ran, (0.0, ""))[0]:
            best[ran] = (rate, f"{_GEMM_SIZE} x {_GEMM_SIZE} matrix product, {backend}, {job.threads} threads")
    for ran, (rate, how) in sorted(best.items()):
        job.journal.append({"kind": "ceiling", "precision": ran, "gflops": rate, "how": how})
    how = f"copy of 128 MiB, reads and writes counted, {job.threads} threads"
    job.journal.append({"kind": "bandwidth", "gbytes_per_s": copy_gbytes_per_s(job.threads), "how": how})


def _gemm_rate(job: TuneJob, precision: str, backend: str, options: Mapping[str, str]) -> tuple[str, float]:
    path = job.scratch / f"gemm_{precision}.onnx"
    if not path.exists():
        arguments: dict[str, Any] = {"out": str(path), "size": _GEMM_SIZE, "precision": precision}
        call_in_fresh_process(Source(factory=f"{STEPS}:gemm", arguments=arguments), timeout_s=120)
    compiled = call_in_fresh_process(
        Source(
            factory=f"{STEPS}:compile_engine",
            arguments={
                "model": str(path),
                "backend": backend,
                "options": {**options, "threads": job.threads},
                "directory": str(job.scratch / f"{backend}_{precision}_{options.get('precision', '')}"),
            },
            environment=job.place.environment,
        ),
        timeout_s=120,
    )
    source = Source(
        factory="redline.backends:open_engine",
        arguments={"path": compiled["engine"]},
        environment=job.place.environment,
    )
    with Worker(source) as worker:
        matrix = _matrix(_GEMM_SIZE)
        worker.prepare(1, [matrix], limit_s=0.5)
        samples = worker.time(1, duration_s=0.8, min_calls=3)
    return Layers.of(dict(compiled["layers"])).precision, gflops(samples, multiply_adds=_GEMM_SIZE**3)


def _matrix(size: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)}
