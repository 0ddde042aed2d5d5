"""The document of a load test: raw times of every window with their conditions, written whole, read back typed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from redline.core.errors import ArtifactError
from redline.core.files import write_whole
from redline.core.plain import from_plain, to_plain
from redline.measurement.environment import Environment

FORMAT = 1
FILE_NAME = "loadtest.json"

Tool = Literal["open", "locust", "ab"]
Mode = Literal["open", "closed"]
Arrivals = Literal["constant", "poisson"]
BodyKind = Literal["image/jpeg", "binary", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model behind a URL.

    Attributes:
        path: Its file, where we started the server; None for a URL.
        precision: As the server told it; None where it did not.
    """

    name: str
    url: str
    path: str | None
    size_bytes: int | None
    precision: str | None
    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What was sent: its kind, the mean size of a request's body, how many different ones took turns."""

    kind: BodyKind
    bytes: int
    inputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSplit:
    """How the server's own statistics grew during a window: seconds summed over its inferences."""

    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float
    inferences: int
    executions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One target under one load in one round.

    Each window begins with a lead-in, whose requests are in the figures of CPU and of the server's statistics, and in
    ``lead``, but in nothing else.

    Attributes:
        target: Its position among the document's targets.
        order: Its position among all windows of the test.
        round: Windows of the same round and load are paired.
        start_s: When it began, after the first window of the test began.
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
        server_cpu_s: CPU seconds of the server's processes; None where they are not on this machine.
        client_rss_bytes: The most that the generator of load had resident so far; 0 where it cannot be told (ab).
    """

    target: int
    order: int
    round: int
    start_s: float
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
    server: ServerSplit | None
    server_cpu_s: float | None
    server_rss_bytes: int | None
    client_cpu_s: float
    client_rss_bytes: int

    @property
    def errors(self) -> int:
        """Requests that were sent and not answered with 200."""
        return sum(count for status, count in self.statuses.items() if status != "200")

    def to_json(self) -> dict[str, Any]:
        """As it stands in the document."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "server": asdict(self.server) if self.server else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, round_: int = 0) -> Window:
        """From the document's JSON; ``round_`` where it does not say its round."""
        split = value.get("server")
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        changed = {
            "round": value.get("round", round_),
            "elapsed_s": value.get("elapsed_s", value["seconds"]),
            "lead": value.get("lead", 0),
            "response_s": tuple(value["response_s"]),
            "service_s": tuple(value["service_s"]),
            "server": ServerSplit(**split) if split else None,
        }
        return cls(**{**known, **changed})


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load: a rate of arrivals (``open``) or a number of users of which each waits for its answer (``closed``)."""

    mode: Mode
    arrivals: Arrivals | None = None
    rate: float | None = None
    users: int | None = None
    windows: tuple[Window, ...] = ()

    @property
    def label(self) -> str:
        """In words.

        >>> Point(mode="open", arrivals="poisson", rate=40.0).label, Point(mode="closed", users=1).label
        ('40/s', '1 user')
        """
        if self.mode == "open":
            return f"{self.rate:.4g}/s"
        return f"{self.users} user{'' if self.users == 1 else 's'}"

    def to_json(self) -> dict[str, Any]:
        """As it stands in the document."""
        values = {name: getattr(self, name) for name in ("mode", "arrivals", "rate", "users")}
        return {**values, "windows": [window.to_json() for window in self.windows]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Point:
        """From the document's JSON; windows without a round get it by their order."""
        seen: Counter[int] = Counter()
        windows = []
        for one in sorted(value["windows"], key=lambda window: int(window["order"])):
            windows.append(Window.from_json(one, round_=seen[one["target"]]))
            seen[one["target"]] += 1
        return cls(**{**value, "windows": tuple(windows)})


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerAgreement:
    """The same inputs once through the first target and the last.

    Attributes:
        inputs: How many.
        top1: Share with the same most probable class; None where no output looks like classes.
        relative_error: Norm of the difference over the norm of the first target's answers.
        accuracy: Share of right answers by target name; None where nobody labelled the inputs.
        source: Where the inputs came from, in words.
    """

    inputs: int
    top1: float | None
    relative_error: float | None
    accuracy: Mapping[str, float] | None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTest:
    """A whole load test; its first target is the baseline."""

    command: str
    created: str
    tool: Tool
    seed: int
    environment: Environment
    slo_ms: float | None
    targets: tuple[Target, ...]
    body: Body
    points: tuple[Point, ...]
    agreement: AnswerAgreement | None = None
    notes: tuple[str, ...] = ()
    redline: str = field(default="")

    def to_json(self) -> dict[str, Any]:
        """The document."""
        values = {name: getattr(self, name) for name in ("redline", "created", "command", "tool", "seed")}
        return {
            "format": FORMAT,
            **values,
            "environment": to_plain(self.environment),
            "slo_ms": self.slo_ms,
            "targets": [asdict(target) for target in self.targets],
            "body": asdict(self.body),
            "points": [point.to_json() for point in self.points],
            "agreement": asdict(self.agreement) if self.agreement else None,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LoadTest:
        """The inverse of :meth:`to_json`."""
        agreement = value.get("agreement")
        return cls(
            **{name: value[name] for name in ("redline", "created", "command", "tool", "seed", "slo_ms")},
            environment=from_plain(Environment, value["environment"], where="environment"),
            targets=tuple(Target(**target) for target in value["targets"]),
            body=Body(**value["body"]),
            points=tuple(Point.from_json(point) for point in value["points"]),
            agreement=AnswerAgreement(**agreement) if agreement else None,
            notes=tuple(value["notes"]),
        )


def write_loadtest(document: LoadTest, path: Path) -> None:
    """Write it; ``path`` is either the old file or the whole new one."""
    write_whole(path, json.dumps(document.to_json(), allow_nan=False) + "\n")


def read_loadtest(path: Path) -> LoadTest:
    """Read ``loadtest.json``, or the one in a folder.

    Raises:
        ArtifactError: it is missing, is no load test, or has another format.
    """
    path = path / FILE_NAME if path.is_dir() else path
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is not a file; expected the {FILE_NAME} of redline loadtest") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON; expected the {FILE_NAME} of redline loadtest") from error
    if not isinstance(value, dict) or "points" not in value:
        raise ArtifactError(f"{path} is not a load test; expected the {FILE_NAME} of redline loadtest")
    if value.get("format") != FORMAT:
        raise ArtifactError(f"{path} has format {value.get('format')}, this Redline reads {FORMAT}")
    try:
        return LoadTest.from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} is a broken load test ({type(error).__name__}: {error})") from error
