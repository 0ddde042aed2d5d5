"""The figures that are derived from a load test's raw times: by target and load, by pair of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redline.core.plain import Json, to_plain
from redline.loadtesting.ratios import Comparative, Ratio
from redline.loadtesting.results import Arrivals, LoadTest, Mode, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Where the server's time went, by its own statistics: seconds an inference; ``batch`` is inferences a run."""

    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float
    batch: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSummary:
    """One target under one load, all rounds together.

    Attributes:
        point: Position of the load among the document's points.
        requests: How many were answered with 200; every latency is of these.
        errors: Sent and not answered with 200.
        offered_per_s: What the schedules asked for (open loop); None for a closed loop.
        rps: Requests answered with 200 per second.
        p50_s: Of the response time: from when a request was intended to be sent. So are all percentiles here.
        service_p50_s: From when a request was really sent, which hides what had to wait for its turn.
        kept_up: At most 1 % was lost; in an open loop, answers came no more than 5 % of a window behind its schedule.
        goodput_per_s: Requests per second answered within the SLO; None without one.
        within_slo: The share of what was offered.
        server: None where the server has no statistics.
        server_cpu_per_request_s: CPU seconds of the server's processes for one request, its lead-in with it.
        server_cores: How many cores the server kept busy; likewise of the client.
    """

    target: int
    point: int
    label: str
    mode: Mode
    arrivals: Arrivals | None
    rate: float | None
    users: int | None
    windows: int
    requests: int
    offered: int
    dropped: int
    errors: int
    statuses: Mapping[str, int]
    offered_per_s: float | None
    rps: float
    mean_s: float | None
    p50_s: float | None
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None
    p999_s: float | None
    max_s: float | None
    service_p50_s: float | None
    service_p99_s: float | None
    late_p99_s: float | None
    kept_up: bool
    goodput_per_s: float | None
    within_slo: float | None
    server: Split | None
    server_cpu_per_request_s: float | None
    server_cores: float | None
    server_rss_bytes: int | None
    client_cores: float
    client_rss_bytes: int

    @property
    def lost(self) -> float:
        """The share of what was offered that failed or was dropped."""
        return (self.errors + self.dropped) / self.offered if self.offered else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSummary:
    """One target under all its loads.

    Attributes:
        points: In the document's order; loads that this target was not given are missing.
        best: Where it answered most requests a second.
        knee: The highest rate of arrivals at which it kept up; without open loops, the fewest users with which it
            reached 95 % of its best. None where it never kept up.
        saturated: Whether a higher load than the knee was tried and was too much.
        slo_rate: The highest rate of arrivals of which 99 % were answered within the SLO.
        goodput_per_s: The most requests a second answered within the SLO.
        accuracy: On the labelled inputs; None without labels.
    """

    target: Target
    points: tuple[PointSummary, ...]
    best: PointSummary | None
    knee: PointSummary | None
    saturated: bool
    slo_rate: float | None
    goodput_per_s: float | None
    accuracy: float | None

    @property
    def knee_rps(self) -> float | None:
        """Requests a second at the knee: the rate of arrivals, or what so many users reached."""
        if self.knee is None:
            return None
        return self.knee.rps if self.knee.rate is None else self.knee.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRatio:
    """The candidate against the baseline under the same load; each ratio is candidate over baseline.

    Attributes:
        rps: Above 1 the candidate answers more. Means little in an open loop where both kept up: they were offered
            the same.
        p50: Below 1 the candidate is faster; None with fewer than three rounds.
        p99: The same for the 99th percentile.
    """

    point: int
    label: str
    rps: Ratio | None
    p50: Ratio | None
    p99: Ratio | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A target against the first one.

    Attributes:
        candidate: Its position among the targets.
        points: Every load that both were given.
        equal_load: Requests a second at the most users that both were given: the same load, each as fast as it can.
        best: Requests a second of each where it answered most, wherever that was.
        knee: The rate at the candidate's knee over that at the baseline's; has no interval. None without both.
        size: File size over the baseline's.
        cpu: CPU seconds a request over the baseline's, at :attr:`equal_load` or the highest common load.
        rps: The ratio that the verdict is about: at equal load, or of the best where no closed loop was run.
    """

    candidate: int
    points: tuple[PointRatio, ...]
    equal_load: PointRatio | None
    best: Ratio | None
    knee: float | None
    size: float | None
    cpu: float | None
    rps: Ratio | None
    verdict: Comparative | None


def bound_by_load(targets: Sequence[TargetSummary], comparison: Comparison) -> bool:
    """Whether both answered all that they were offered: then rates are those of the load and say nothing of them."""
    best = [targets[number].best for number in (0, comparison.candidate)]
    closed = comparison.equal_load is not None and comparison.equal_load.rps is not None
    return not closed and all(one is not None and one.mode == "open" and one.kept_up for one in best)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All that is derived from a load test.

    Attributes:
        comparisons: Of each further target with the first.
        conclusion: In sentences.
        warnings: What limits the reading of the numbers, the document's own notes first.
    """

    document: LoadTest
    targets: tuple[TargetSummary, ...]
    comparisons: tuple[Comparison, ...]
    conclusion: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """One JSON value without the raw times."""
        plain = {name: to_plain(getattr(self, name)) for name in ("targets", "comparisons", "conclusion", "warnings")}
        return {**plain, "agreement": to_plain(self.document.agreement)}
