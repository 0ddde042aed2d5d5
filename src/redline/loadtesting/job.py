"""What a generator of load is told and what it answers: plain values that cross a process boundary as JSON.

Standard library only: a generator imports no NumPy, so that it starts at once and its CPU time is its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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
        (folder / "bodies.bin").write_bytes(b"".join(self.bodies))
        told = {"host": self.host, "port": self.port, "path": self.path, "headers": dict(self.headers)}
        (folder / "parcel.json").write_text(json.dumps({**told, "sizes": [len(body) for body in self.bodies]}))

    @classmethod
    def load(cls, folder: Path) -> Parcel:
        """The inverse of :meth:`save`."""
        told = json.loads((folder / "parcel.json").read_bytes())
        content, bodies, start = (folder / "bodies.bin").read_bytes(), [], 0
        for size in told.pop("sizes"):
            bodies.append(content[start : start + size])
            start += size
        return cls(bodies=tuple(bodies), **told)

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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        """The inverse of :meth:`to_json`."""
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it; the fields are those of :class:`redline.loadtesting.results.Window`."""

    seconds: float
    elapsed_s: float
    lead: int
    offered: int
    sent: int
    dropped: int
    late_p99_s: float | None
    response_s: Sequence[float]
    service_s: Sequence[float]
    statuses: Mapping[str, int]
    client_cpu_s: float
    client_rss_bytes: int
    notes: Sequence[str] = ()


@dataclass(slots=True)
class Sent:
    """One request: when it was intended to go, when it went and when it ended, and how, by the generator's clock."""

    intended_s: float
    sent_s: float
    done_s: float = 0.0
    status: str = ""


def open_outcome(job: Job, sent: Sequence[Sent], cost: Mapping[str, Any]) -> Outcome:
    """The outcome of an open loop; what was due within the lead-in is left out of it."""
    ours = sorted((one for one in sent if one.intended_s >= job.lead_s), key=lambda one: one.intended_s)
    offered = sum(due >= job.lead_s for due in job.due)
    good = [one for one in ours if one.status == "200"]
    # Answers come as long after the schedule's end as one takes; only what comes later than that is a backlog.
    fastest = min((one.done_s - one.sent_s for one in good), default=0.0)
    last = max((one.done_s for one in good), default=0.0) - job.lead_s - fastest
    return Outcome(
        seconds=max(job.seconds, last),
        lead=len(sent) - len(ours),
        offered=offered,
        sent=len(ours),
        dropped=offered - len(ours),
        late_p99_s=_p99([one.sent_s - one.intended_s for one in ours]),
        response_s=[_rounded(one.done_s - one.intended_s) for one in good],
        service_s=[_rounded(one.done_s - one.sent_s) for one in good],
        statuses=_statuses(ours),
        **cost,
    )


def closed_outcome(job: Job, sent: Sequence[Sent], cost: Mapping[str, Any]) -> Outcome:
    """The outcome of a closed loop: what ended after the lead-in and before the end.

    Time counts from the last answer before the lead-in's end to the last one within the window, so that it holds a
    whole number of answers.
    """
    end = job.lead_s + job.seconds
    ours = sorted((one for one in sent if job.lead_s < one.done_s <= end), key=lambda one: one.done_s)
    if job.requests is not None:
        ours = ours[: job.requests]
    begin = max((one.done_s for one in sent if one.done_s <= job.lead_s), default=job.lead_s)
    good = [one for one in ours if one.status == "200"]
    times = [_rounded(one.done_s - one.sent_s) for one in good]
    return Outcome(
        seconds=max(ours[-1].done_s - begin, 1e-6) if ours else job.seconds,
        lead=len(sent) - len(ours),
        offered=len(ours),
        sent=len(ours),
        dropped=0,
        late_p99_s=None,
        response_s=times,
        service_s=times,
        statuses=_statuses(ours),
        **cost,
    )


def _statuses(sent: Sequence[Sent]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in sent:
        counts[one.status] = counts.get(one.status, 0) + 1
    return counts


def _p99(values: list[float]) -> float | None:
    return _rounded(sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]) if values else None


def _rounded(seconds: float) -> float:
    return round(max(seconds, 0.0), 7)
