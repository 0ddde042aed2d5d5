"""How much memory a process has for itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from redline.measurement import gpu_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one worker process, bytes.

    Attributes:
        private_peak_bytes: The most that the process wrote for itself (private dirty pages and what of them was
            swapped out) while it loaded, warmed up and was timed, and the pages of its model's own files that it
            maps. Clean pages of libraries are not in it: the kernel calls them private as long as nobody else maps
            them, so that whoever came first would seem to need them all. Nor are inputs that the parent maps too. It
            is a size and not a difference, so it cannot be negative. Seen by polling, and bounded by the kernel's own
            high-water mark, which sees what is over between two polls.
        private_before_bytes: The same before it loaded anything.
        libraries_bytes: What else was resident at the end: libraries and other files, whoever maps them.
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
    libraries_bytes: int | None = None
    device_peak_bytes: int | None = None
    device_source: str | None = None
    allocator_peak_bytes: int | None = None


class MemoryWatch:
    """Watches one process from outside, so that the process's own time is not spent on it."""

    def __init__(self, pid: int, *, cuda_device: int | None = None, own_files: Sequence[Path] = ()) -> None:
        """Begin to watch.

        Args:
            pid: Of the process.
            cuda_device: CUDA's number of the GPU whose memory counts too.
            own_files: The model's own: what the process maps of them is its own memory.
        """
        self._pid = pid
        self._own_files = frozenset(str(path.resolve()) for path in own_files)
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
        own = _clean_bytes_of(self._pid, self._own_files)
        return Memory(
            private_peak_bytes=self._peak + own,
            private_before_bytes=self._before,
            rss_peak_bytes=max(self._rss_peak, _high_water_mark(self._pid), self._peak),
            libraries_bytes=max(_usage(self._pid)[1] - own, 0) or None,
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
        """Note a peak that is over by now; what others map too is taken to have been as large then as it is now.

        So a file that was mapped, read and let go since counts in full: the mark does not say what it was of.
        """
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
    """Bytes that a process wrote for itself, swapped out or not, and what else is resident; zeros when it has ended."""
    try:
        sizes = _sizes(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return _portable_usage(pid)
    dirty = sizes.get("Private_Dirty", 0)
    beside = sizes.get("Private_Hugetlb", 0) + sizes.get("SwapPss", 0)  # neither is among what is resident
    return dirty + beside, max(sizes.get("Rss", 0) - dirty, 0)


def _portable_usage(pid: int) -> tuple[int, int]:
    try:
        found = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0, 0
    return int(found.uss), max(int(found.rss) - int(found.uss), 0)


def _clean_bytes_of(pid: int, files: Collection[str]) -> int:
    """Clean resident bytes of those files that a process maps; a private copy of a page is counted elsewhere."""
    if not files:
        return 0
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:
        return 0
    total, inside = 0, False
    for line in lines:
        words = line.split()
        if words and not words[0].endswith(":"):  # the head of a mapping: its path, if it has one, is the sixth word
            inside = len(words) > 5 and line.split(None, 5)[5].strip() in files
        elif inside and words[0] in ("Private_Clean:", "Shared_Clean:"):
            total += int(words[1]) * 1024
    return total


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
