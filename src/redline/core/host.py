"""Which processor this is, and how many of its cores are ours: what an engine compiled here depends on."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, as the driver describes it.

    Attributes:
        index: CUDA's number for it, so ``CUDA_VISIBLE_DEVICES`` is obeyed.
        compute_capability: Such as ``9.0``.
        driver: Version of the driver.
        cuda: Newest CUDA that the driver runs, such as ``13.0``.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver: str
    cuda: str


def available_cores() -> int:
    """How many cores this process may use; all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def cpu_info() -> tuple[str, tuple[str, ...]]:
    """The processor's name and its sorted feature flags (empty where the system does not tell)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), ()
    return parse_cpuinfo(text)


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Name and flags of the first processor in the text of Linux's ``/proc/cpuinfo`` (x86 and arm).

    >>> parse_cpuinfo("model name : AMD EPYC\nflags : sse2 avx2\n\nmodel name : other")
    ('AMD EPYC', ('avx2', 'sse2'))
    """
    fields: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip().lower()] = value.strip()
    flags = fields.get("flags") or fields.get("features") or ""
    name = fields.get("model name") or fields.get("cpu part") or platform.machine()
    return name, tuple(sorted(flags.split()))


def cpu_identity() -> dict[str, str]:
    """Architecture, processor name and a digest of its flags: equal values run the same machine code."""
    name, flags = cpu_info()
    digest = hashlib.sha256(" ".join(flags).encode()).hexdigest()[:12]
    return {"machine": platform.machine(), "cpu": name, "cpu_flags": digest}
