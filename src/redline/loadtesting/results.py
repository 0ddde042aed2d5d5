"""The document of a load test: raw times of every window with their conditions, written whole, read back typed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redline.core.errors import ArtifactError
from redline.core.files import write_whole
from redline.core.plain import Json, from_plain, to_line
from redline.loadtesting.job import Measured
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
class Window(Measured):
    """One target under one load in one round.

    Each window begins with a lead-in, whose requests are in the figures of CPU and of the server's statistics, and in
    ``lead``, but in nothing else.

    Attributes:
        target: Its position among the document's targets.
        order: Its position among all windows of the test.
        round: Windows of the same round and load are paired.
        start_s: When it began, after the first window of the test began.
        server_cpu_s: CPU seconds of the server's processes; None where they are not on this machine.
    """

    target: int
    order: int
    round: int
    start_s: float
    server: ServerSplit | None
    server_cpu_s: float | None
    server_rss_bytes: int | None

    @property
    def errors(self) -> int:
        """Requests that were sent and not answered with 200."""
        return sum(count for status, count in self.statuses.items() if status != "200")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load: a rate of arrivals (``open``) or a number of users of which each waits for its answer (``closed``)."""

    mode: Mode
    arrivals: Arrivals | None = None
    rate: float | None = None
    users: int | None = None

    @property
    def label(self) -> str:
        """In words.

        >>> Load(mode="open", arrivals="poisson", rate=40.0).label, Load(mode="closed", users=1).label
        ('40/s', '1 user')
        """
        if self.mode == "open":
            return f"{self.rate:.4g}/s"
        return f"{self.users} user{'' if self.users == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Load):
    """One load with what was measured under it."""

    windows: tuple[Window, ...] = ()


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

    format: int = FORMAT
    redline: str = ""
    created: str
    command: str
    tool: Tool
    seed: int
    environment: Environment
    slo_ms: float | None
    targets: tuple[Target, ...]
    body: Body
    points: tuple[Point, ...]
    agreement: AnswerAgreement | None = None
    notes: tuple[str, ...] = ()


def write_loadtest(document: LoadTest, path: Path) -> None:
    """Write it; ``path`` is either the old file or the whole new one."""
    write_whole(path, to_line(document) + b"\n")


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
        for point in value["points"]:
            point["windows"] = _completed(point["windows"])
        return from_plain(LoadTest, value, where=FILE_NAME)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} is a broken load test ({type(error).__name__}: {error})") from error


def _completed(windows: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """By their order, with what earlier documents do not say: their round is how often the target had its turn."""
    seen: Counter[Json] = Counter()
    ordered = sorted(windows, key=lambda one: int(str(one["order"])))
    for one in ordered:
        one.update({"round": seen[one["target"]], "elapsed_s": one["seconds"], "lead": 0} | one)
        seen[one["target"]] += 1
    return ordered
