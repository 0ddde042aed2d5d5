"""Wall and CPU seconds and peak memory of one call; only the standard library, for every peer's environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any


def timed_call(call: Callable[[], Any]) -> dict[str, Any]:
    """Call once; memory is what is resident, before and at the highest of the call (Linux)."""
    # The peak starts again from what is resident now; ru_maxrss would still hold the parent process's.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    kept = len(result) if isinstance(result, Sized) else result
    peak = _status_bytes("VmHWM")
    return {"wall_s": wall, "cpu_s": cpu, "peak_rss_bytes": peak, "rss_before_bytes": before, "kept": kept}


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
