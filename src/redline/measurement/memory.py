"""How much memory a process has for itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from redline.measurement import gpu_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one worker process, bytes.

    Attributes:
        private_peak_bytes: The most that the process had for itself alone (USS: unique set size; what of it was
            swapped out with it) while it loaded, warmed up and was timed. Shared libraries that others map too are
            not in it, nor are inputs that the parent maps too; it is a size and not a difference, so it cannot be
            negative. Seen by polling, and by the kernel's own high-water mark, which sees what is over between two
            polls.
        private_before_bytes: USS of the same process before it loaded anything.
        rss_peak_bytes: The kernel's own high-water mark of everything resident; no polling can miss it.
        device_peak_bytes: The most of a GPU's memory that the process had, its context with it, seen by polling;
            None without a GPU, or where the driver does not say.
        device_source: Who said so.
        allocator_peak_bytes: The most that the session's own allocator had given out on the GPU; None where the
            session has none that says so.
    """

    private_peak_bytes: int
    private_before_bytes: int
    rss_peak_bytes: int
    device_peak_bytes: int | None = None
    device_source: str | None = None
    allocator_peak_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class MemoryWatch:
    """Watches one process from outside, so that the process's own time is not spent on it."""

    def __init__(self, pid: int, *, cuda_device: int | None = None) -> None:
        self._pid = pid
        self._cuda_device = cuda_device
        self._device_peak: int | None = None
        self._peak = self._shared = self._rss_peak = self._high_seen = 0
        self.look()
        self._before = self._peak

    @contextmanager
    def polling(self, *, period_s: float = 0.02) -> Iterator[None]:
        """Poll in a thread while the block runs."""
        stop = threading.Event()

        def poll() -> None:
            while not stop.wait(period_s):
                self._look_back()
                self.look()

        thread = threading.Thread(target=poll, daemon=True)
        with self.noting_peak():
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
                self.look()

    @contextmanager
    def noting_peak(self) -> Iterator[None]:
        """Note the most that the process has while the block runs, without a reading during it.

        What the process had before, such as the harness's own messages to it, does not count.
        """
        self._forget()
        try:
            yield
        finally:
            self._look_back()
            self._look_at_device()

    def look(self) -> None:
        """Take one reading."""
        private, self._shared = _usage(self._pid)
        self._peak = max(self._peak, private)
        self._look_at_device()

    def result(self) -> Memory:
        """What was seen so far."""
        return Memory(
            private_peak_bytes=self._peak,
            private_before_bytes=self._before,
            rss_peak_bytes=max(self._rss_peak, _high_water_mark(self._pid), self._peak),
            device_peak_bytes=self._device_peak,
            device_source=None if self._device_peak is None else "nvml process",
        )

    def _forget(self) -> None:
        """Have the kernel start its high-water mark anew, from what is resident now."""
        self._rss_peak = max(self._rss_peak, _high_water_mark(self._pid))
        # Where that is forbidden an older and higher peak hides a later one; it is never taken for one.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._pid}/clear_refs").write_text("5")
        self._high_seen = _high_water_mark(self._pid)

    def _look_back(self) -> None:
        """Note a peak that is over by now; what others map too is taken to have been as large then as it is now."""
        high = _high_water_mark(self._pid)
        if high == 0:
            self.look()
        elif high > self._high_seen and high - self._shared > self._peak:
            self.look()
            self._peak = max(self._peak, high - self._shared)
        self._high_seen = max(self._high_seen, high)

    def _look_at_device(self) -> None:
        if self._cuda_device is None:
            return
        held = gpu_state.process_bytes(self._pid, self._cuda_device)
        if held is not None:
            self._device_peak = max(self._device_peak or 0, held)


def _usage(pid: int) -> tuple[int, int]:
    """Bytes that a process has for itself, swapped out or not, and bytes that it shares; zeros when it has ended."""
    try:
        sizes = _sizes(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return _portable_usage(pid)
    private = sum(size for name, size in sizes.items() if name.startswith("Private_"))
    return private + sizes.get("SwapPss", 0), sizes.get("Shared_Clean", 0) + sizes.get("Shared_Dirty", 0)


def _portable_usage(pid: int) -> tuple[int, int]:
    try:
        found = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0, 0
    return int(found.uss), max(int(found.rss) - int(found.uss), 0)


def _high_water_mark(pid: int) -> int:
    # Not ru_maxrss: a child inherits its parent's across fork and exec.
    try:
        return _sizes(Path(f"/proc/{pid}/status").read_text()).get("VmHWM", 0)
    except OSError:
        return 0


def _sizes(text: str) -> dict[str, int]:
    """The lines of a file in /proc that say how many kB, as bytes."""
    lines = (line.split() for line in text.splitlines() if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
