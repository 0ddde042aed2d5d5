"""Measure what this machine does at best: matrix products in each precision, and copies of memory."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from redline.core.artifact import Engine
from redline.core.errors import WorkerError
from redline.core.plain import Json
from redline.core.tensor import Array
from redline.measurement.ceiling import copy_gbytes_per_s, gflops
from redline.measurement.worker import Source, Worker, call_in_fresh_process, thread_environment
from redline.study.crew import openers
from redline.study.launch import STEPS
from redline.study.records import Bandwidth, Ceiling

_GEMM_SIZE = 1024
_GEMM_TRIALS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("fp32", "onnxruntime", {}),
    ("int8", "onnxruntime", {}),
    ("fp32", "openvino", {"precision": "f32"}),
    ("fp32", "openvino", {"precision": "default"}),
    ("int8", "openvino", {"precision": "f32"}),
)


def measure_cpu(scratch: Path, threads: int) -> list[Ceiling | Bandwidth]:
    """Records of the best rate in each precision that a runtime here really ran, and of copying memory."""
    best: dict[str, tuple[float, str]] = {}
    trials = [(precision, backend, more) for precision, backend, more in _GEMM_TRIALS if find_spec(backend)]
    # They are opened side by side, and timed one after the other; a worker ends with the thread that started it.
    with ThreadPoolExecutor(openers(threads)) as pool:
        opening = [pool.submit(_open, scratch, threads, *trial) for trial in trials]
        wait(opening)
        for trial, opened in zip(trials, opening, strict=True):
            try:
                ran, rate = _rate(*opened.result())
            except WorkerError:
                continue
            if rate > best.get(ran, (0.0, ""))[0]:
                best[ran] = (rate, f"{_GEMM_SIZE} x {_GEMM_SIZE} matrix product, {trial[1]}, {threads} threads")
    rates = [Ceiling(device="cpu", precision=ran, gflops=rate, how=how) for ran, (rate, how) in sorted(best.items())]
    how = f"copy of 128 MiB, reads and writes counted, {threads} threads"
    return [*rates, Bandwidth(device="cpu", gbytes_per_s=copy_gbytes_per_s(threads), how=how)]


def measure_gpu(threads: int) -> list[Ceiling | Bandwidth]:
    """Records of what the GPU reaches at best: matrix products in each type, and copies of its own memory.

    Empty where PyTorch, which measures it, cannot use the GPU.
    """
    source = Source(
        factory="redline.networks.ceilings:gpu_ceilings", arguments={}, environment=thread_environment(threads)
    )
    try:
        found = call_in_fresh_process(source, timeout_s=300)
    except WorkerError:
        return []
    how = f"{found['size']} x {found['size']} matrix product, PyTorch on the GPU"
    rates = [
        Ceiling(device="cuda", precision=precision, gflops=rate, how=how) for precision, rate in found["gflops"].items()
    ]
    copy = "copy of 1 GiB on the GPU, reads and writes counted"
    return [*rates, Bandwidth(device="cuda", gbytes_per_s=found["gbytes_per_s"], how=copy)]


def _open(scratch: Path, threads: int, precision: str, backend: str, more: Mapping[str, str]) -> tuple[Worker, Path]:
    folder = scratch / f"{backend}_{precision}_{more.get('precision', '')}"
    options: dict[str, Json] = {**more, "threads": threads}
    arguments: dict[str, Json] = {"folder": str(folder), "size": _GEMM_SIZE, "precision": precision, "backend": backend}
    source = Source(
        factory=f"{STEPS}:open_product",
        arguments={**arguments, "options": options},
        environment=thread_environment(threads),
    )
    return Worker(source), folder


def _rate(worker: Worker, folder: Path) -> tuple[str, float]:
    with worker:
        worker.prepare(1, [_matrix(_GEMM_SIZE)], limit_s=0.3)
        samples = worker.time(1, duration_s=0.5, min_calls=3)
    (sidecar,) = folder.glob("*.engine.json")
    return Engine.described(sidecar).precision, gflops(samples, multiply_adds=_GEMM_SIZE**3)


def _matrix(size: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)}
