"""What a container may use: CPU time and memory, from control groups version 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from redline.core.files import text_of

# Version 1 has no word for "no limit": it is the largest multiple of the page size, near 2^63.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Limits:
    """CPU cores' worth of time and bytes of memory; None where there is no limit."""

    cpus: float | None
    memory_bytes: int | None


def container_limits(root: Path = Path("/")) -> Limits:
    """The tightest limit from this process's control group up to the root one.

    Args:
        root: Where ``/proc`` and ``/sys`` are.
    """
    groups = _groups(text_of(root / "proc/self/cgroup") or "")
    mount = root / "sys/fs/cgroup"
    cpus: list[float] = []
    memory: list[int] = []
    for folder in _upwards(mount, groups.get("", "/")):
        cpus += _quota_v2(text_of(folder / "cpu.max"))
        memory += _bytes(text_of(folder / "memory.max"))
    for folder in _upwards_v1(mount, "cpu", groups):
        cpus += _quota_v1(text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us"))
    for folder in _upwards_v1(mount, "memory", groups):
        memory += _bytes(text_of(folder / "memory.limit_in_bytes"))
    return Limits(min(cpus, default=None), min(memory, default=None))


def _groups(text: str) -> dict[str, str]:
    """Paths by controller in the text of ``/proc/self/cgroup``; that of version 2 has the empty name."""
    found = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                found[controller] = parts[2]
    return found


def _upwards(mount: Path, group: str) -> list[Path]:
    # Within a container the path is often that of the host, which is not there: the mount itself is then ours.
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    return [mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _upwards_v1(mount: Path, controller: str, groups: dict[str, str]) -> list[Path]:
    folders = (mount / controller, mount / "cpu,cpuacct") if controller == "cpu" else (mount / controller,)
    return [folder for base in folders for folder in _upwards(base, groups.get(controller, "/"))]


def _quota_v2(text: str | None) -> list[float]:
    words = (text or "").split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return []
    return [int(words[0]) / int(words[1])]


def _quota_v1(quota: str | None, period: str | None) -> list[float]:
    return _quota_v2(f"{quota} {period}")


def _bytes(text: str | None) -> list[int]:
    return [int(text)] if text and text.isdigit() and int(text) < _NO_LIMIT_BYTES else []
