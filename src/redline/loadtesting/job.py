"""What a generator of load is told and what it answers: plain values that cross a process boundary.

A generator imports no NumPy, so that it starts at once and its CPU time is its own.
"""

from __future__ import annotations

import re
import resource
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

_PARCEL = "parcel.msgpack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """The requests that one target is sent in turn: all to one path with the same headers."""

    host: str
    port: int
    path: str
    headers: Mapping[str, str]
    bodies: tuple[bytes, ...]

    def save(self, folder: Path) -> None:
        """Write it into ``folder`` for :meth:`load`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _PARCEL).write_bytes(msgspec.msgpack.encode(self))

    @classmethod
    def load(cls, folder: Path) -> Parcel:
        """The inverse of :meth:`save`."""
        return msgspec.msgpack.decode((folder / _PARCEL).read_bytes(), type=cls)

    def raw(self) -> tuple[bytes, ...]:
        """Each as the bytes of an HTTP/1.1 request."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in self.headers.items())])
        return tuple(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1") + body for body in self.bodies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One window of load.

    Attributes:
        parcel: The folder of a saved :class:`Parcel`.
        due: Open loop: when requests are to be sent, seconds from the start, the lead-in with them.
        users: Closed loop: how many requests are under way at once; None for an open loop.
        lead_s: How long the lead-in is.
        seconds: How long the window measures after it.
        requests: Closed loop: measure until so many are answered, however long that takes (but no longer than
            ``seconds``).
        connections: Open loop: the most connections at once.
        timeout_s: When a request is given up.
        first: Which body comes first.
    """

    parcel: str
    due: Sequence[float] = ()
    users: int | None = None
    lead_s: float = 0.0
    seconds: float = 1.0
    requests: int | None = None
    connections: int = 64
    timeout_s: float = 10.0
    first: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a generator of load found in one window.

    Attributes:
        seconds: How long it measured: to the end of its schedule, or to the last answer where that came later.
        elapsed_s: How long it took in all, with lead-in and stragglers; CPU seconds are over this.
        lead: Requests of the lead-in.
        offered: How many requests the schedule had; for a closed loop, how many were sent.
        sent: How many were sent.
        dropped: Those that could not be sent before the window was over, for want of a free connection.
        late_p99_s: 99th percentile of how much later than intended requests were sent; None for a closed loop.
        response_s: Of every request answered with 200, in the order of the schedule: from when it was intended to be
            sent (in a closed loop: from when it was sent) to the last byte of its answer.
        service_s: Of the same requests in the same order, from when they were really sent.
        statuses: How many requests ended how: by HTTP status, or ``timeout``, ``refused``, ``broken``.
        client_rss_bytes: The most that the generator of load had resident so far; 0 where it cannot be told (ab).
    """

    seconds: float
    elapsed_s: float
    lead: int
    sent: int
    offered: int
    dropped: int
    late_p99_s: float | None
    response_s: tuple[float, ...]
    service_s: tuple[float, ...]
    statuses: Mapping[str, int]
    client_cpu_s: float
    client_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Measured):
    """What came of a job."""

    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Sent:
    """One request: when it was intended to go, when it went and when it ended, and how, by the generator's clock."""

    intended_s: float
    sent_s: float
    done_s: float = 0.0
    status: str = ""


def outcome_of(job: Job, sent: Sequence[Sent], *, elapsed_s: float, client_cpu_s: float) -> Outcome:
    """The outcome in this process of a job whose requests ended so; those of the lead-in are left out."""
    opened = job.users is None
    ours, offered, seconds = (_of_open if opened else _of_closed)(job, sent)
    good = [one for one in ours if one.status == "200"]
    return Outcome(
        seconds=seconds,
        elapsed_s=elapsed_s,
        lead=len(sent) - len(ours),
        offered=offered,
        sent=len(ours),
        dropped=offered - len(ours),
        late_p99_s=_p99([one.sent_s - one.intended_s for one in ours]) if opened else None,
        response_s=tuple(_rounded(one.done_s - one.intended_s) for one in good),
        service_s=tuple(_rounded(one.done_s - one.sent_s) for one in good),
        statuses=Counter(one.status for one in ours),
        client_cpu_s=client_cpu_s,
        client_rss_bytes=rss_bytes(),
    )


def rss_bytes() -> int:
    """The most that was resident since the program began (getrusage's figure begins with that of its parent)."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _of_open(job: Job, sent: Sequence[Sent]) -> tuple[list[Sent], int, float]:
    """What was due after the lead-in, how many requests that should have been, and how long it took."""
    ours = sorted((one for one in sent if one.intended_s >= job.lead_s), key=lambda one: one.intended_s)
    good = [one for one in ours if one.status == "200"]
    # Answers come as long after the schedule's end as one takes; only what comes later than that is a backlog.
    fastest = min((one.done_s - one.sent_s for one in good), default=0.0)
    last = max((one.done_s for one in good), default=0.0) - job.lead_s - fastest
    return ours, sum(due >= job.lead_s for due in job.due), max(job.seconds, last)


def _of_closed(job: Job, sent: Sequence[Sent]) -> tuple[list[Sent], int, float]:
    """What ended after the lead-in and before the end, how many these are, and how long they took.

    Time counts from the last answer before the lead-in's end to the last one within the window, so that it holds a
    whole number of answers.
    """
    end = job.lead_s + job.seconds
    ours = sorted((one for one in sent if job.lead_s < one.done_s <= end), key=lambda one: one.done_s)
    ours = ours[: job.requests]
    begin = max((one.done_s for one in sent if one.done_s <= job.lead_s), default=job.lead_s)
    return ours, len(ours), max(ours[-1].done_s - begin, 1e-6) if ours else job.seconds


def _p99(values: list[float]) -> float | None:
    return _rounded(sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]) if values else None


def _rounded(seconds: float) -> float:
    return round(max(seconds, 0.0), 7)
