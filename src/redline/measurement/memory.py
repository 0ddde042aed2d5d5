"""How much memory a process has for itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one worker process, bytes.

    Attributes:
        private_peak_bytes: The most that the process had for itself alone (USS: unique set size), seen by polling
            while it loaded and warmed up and once after it was timed. Shared libraries that others map too are not
            in it; it is a size and not a difference, so it cannot be negative.
        private_before_bytes: USS of the same process before it loaded anything.
        rss_peak_bytes: The kernel's own high-water mark of everything resident; no polling can miss it.
    """

    private_peak_bytes: int
    private_before_bytes: int
    rss_peak_bytes: int


class MemoryWatch:
    """Polls one process from outside, so that the process's own time is not spent on it."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._peak = self._private()

    @contextmanager
    def polling(self, *, period_s: float = 0.02) -> Iterator[None]:
        """Poll in a thread while the block runs."""
        stop = threading.Event()

        def poll() -> None:
            while not stop.wait(period_s):
                self.look()

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Take one reading."""
        self._peak = max(self._peak, self._private())

    def result(self) -> Memory:
        """What was seen so far."""
        return Memory(
            private_peak_bytes=self._peak,
            private_before_bytes=self._before,
            rss_peak_bytes=max(_high_water_mark(self._process.pid), self._peak),
        )

    def _private(self) -> int:
        try:
            return int(self._process.memory_full_info().uss)
        except psutil.Error:
            return 0


def _high_water_mark(pid: int) -> int:
    # Not ru_maxrss: a child inherits its parent's across fork and exec.
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024
