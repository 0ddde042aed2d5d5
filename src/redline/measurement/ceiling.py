"""What this machine could do at best, so that each variant is a share of it (the roofline of Williams et al. 2009)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np

_BYTES_PER_WEIGHT = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_COPY_BYTES = 1 << 27


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The machine's measured ceilings and what one sample asks of it."""

    gflops: Mapping[str, float]
    gbytes_per_s: float | None
    macs_per_sample: int | None
    weight_count: int | None


@dataclass(frozen=True, slots=True)
class LeastTime:
    """The shortest time that the ceilings allow, in seconds, and which ceiling sets it."""

    seconds: float
    by: Literal["compute", "memory"]


def limit_of(limit: Limit, *, precision: str, batch: int) -> LeastTime | None:
    """The least time of one call: all multiply-adds at the peak rate, or all weights read once.

    A layer that runs in another precision than most, or an algorithm that needs fewer multiplications (Winograd),
    can pass this limit; a share above 1 says just that. None where a ceiling was not measured.
    """
    rate = limit.gflops.get(precision)
    if rate is None or not limit.macs_per_sample:
        return None
    compute_s = 2 * limit.macs_per_sample * batch / (rate * 1e9)
    memory_s = 0.0
    if limit.gbytes_per_s and limit.weight_count:
        memory_s = limit.weight_count * _BYTES_PER_WEIGHT[precision] / (limit.gbytes_per_s * 1e9)
    return LeastTime(memory_s, "memory") if memory_s > compute_s else LeastTime(compute_s, "compute")


def gflops(samples_s: Sequence[float], *, multiply_adds: int) -> float:
    """The best rate among calls of so many multiply-adds each, in 1e9 operations a second (2 per multiply-add).

    >>> gflops([0.02, 0.01], multiply_adds=1_000_000_000)
    200.0
    """
    return 2 * multiply_adds / min(samples_s) / 1e9


def copy_gbytes_per_s(threads: int, *, repeats: int = 5, clock: Callable[[], float] = perf_counter) -> float:
    """The best rate at which ``threads`` threads copy memory, reads and writes counted, in 1e9 bytes a second."""
    sources = [np.ones(_COPY_BYTES // threads // 8) for _ in range(threads)]
    targets = [np.empty_like(source) for source in sources]
    best_s = float("inf")
    for _ in range(repeats):
        workers = [
            threading.Thread(target=np.copyto, args=(target, source))
            for target, source in zip(targets, sources, strict=True)
        ]
        before = clock()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best_s = min(best_s, clock() - before)
    return 2 * sum(source.nbytes for source in sources) / best_s / 1e9
