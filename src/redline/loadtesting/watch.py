"""CPU seconds and resident memory of a process with all its descendants."""

from __future__ import annotations

import contextlib

import psutil

from redline.core.errors import WorkerError


class ProcessTree:
    """A process and whatever it starts; looked at from outside, so that nothing of its own time is spent."""

    def __init__(self, pid: int) -> None:
        try:
            self._root = psutil.Process(pid)
        except psutil.Error as error:
            raise WorkerError(f"process {pid} is not there, so it cannot be watched") from error

    def cpu_s(self) -> float:
        """CPU seconds so far of all that run and, where they were waited for, of those that ended."""
        total = 0.0
        for process in self._all():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
                total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return total

    def rss_bytes(self) -> int:
        """Resident now; what several of them share is counted for each."""
        total = 0
        for process in self._all():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def _all(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [self._root, *self._root.children(recursive=True)]
        return []


def listening_pid(port: int) -> int | None:
    """The process of this user that listens on a local port; None where nobody says so."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return int(one.pid)
    except (psutil.Error, OSError):
        return None
    return None
