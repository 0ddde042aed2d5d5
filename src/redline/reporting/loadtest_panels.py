"""What of a load test is drawn without a plotting library: where the server's time went, and what a request costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redline.loadtesting.summary import PointSummary, Split, Summary
from redline.reporting import formats
from redline.reporting.loadtest_answers import at_point, load_of, small_ms
from redline.reporting.loadtest_plots import colour_of

#: Part of the server's time: its name in the style sheet, in words, and its seconds.
_PHASES: tuple[tuple[str, str, Callable[[Split], float]], ...] = (
    ("queue", "queue", lambda split: split.queue_s),
    ("decode", "decode", lambda split: split.compute_input_s),
    ("infer", "infer", lambda split: split.compute_infer_s),
    ("encode", "encode", lambda split: split.compute_output_s),
)
_REST = "rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A bar in the colour that its target has in the plots, its length from 0 to 100."""

    title: str
    percent: float
    value: str
    aside: str
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a stacked bar; its length is from 0 to 100."""

    look: str
    name: str
    percent: float
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedBar:
    """The mean time of a request at one target, piece by piece."""

    title: str
    value: str
    parts: tuple[Part, ...]
    aside: str


def split_bars(summary: Summary, number: int) -> tuple[StackedBar, ...]:
    """The server's time at one load, all targets on one scale; the client's own rest of the time is a piece too."""
    found = [
        (target.target.name, point)
        for target in summary.targets
        if (point := at_point(target, number)) is not None and point.server is not None
    ]
    longest = max((sum(seconds for _, _, seconds in _phases(point)) for _, point in found), default=0.0)
    if not longest:
        return ()
    return tuple(
        StackedBar(
            title=name,
            value=f"{formats.milliseconds(sum(seconds for _, _, seconds in _phases(point)))} ms",
            parts=tuple(
                Part(
                    look=look,
                    name=word,
                    percent=100 * seconds / longest,
                    value=f"{small_ms(seconds)} ms",
                )
                for look, word, seconds in _phases(point)
            ),
            aside=_batches(point),
        )
        for name, point in found
    )


def rate_bars(summary: Summary, number: int | None) -> tuple[Lane, ...]:
    """Requests answered a second at one load, or where each target answered most."""
    found = [(target, target.best if number is None else at_point(target, number)) for target in summary.targets]
    most = max((point.rps for _, point in found if point is not None), default=0.0) or 1.0
    return tuple(
        Lane(
            title=target.target.name,
            percent=100 * point.rps / most,
            value=f"{formats.digits(point.rps)}/s",
            aside=f"{load_of(point)}" if number is None else "",
            colour=colour_of(point.target),
        )
        for target, point in found
        if point is not None
    )


def tail_bars(summary: Summary, number: int) -> tuple[Lane, ...]:
    """The p99 at one load."""
    return _bars(
        summary,
        number,
        lambda point: point.p99_s,
        lambda value: f"{formats.milliseconds(value)} ms",
        lambda point: f"p99 {load_of(point)}",
    )


def cpu_bars(summary: Summary, number: int) -> tuple[Lane, ...]:
    """CPU time of the server for a request."""
    return _bars(
        summary,
        number,
        lambda point: point.server_cpu_per_request_s,
        lambda value: f"{formats.milliseconds(value)} ms",
        lambda point: f"{_cores(point.server_cores)} busy" if point.server_cores is not None else "",
    )


def memory_bars(summary: Summary, number: int) -> tuple[Lane, ...]:
    """Resident memory of the server."""
    return _bars(
        summary,
        number,
        lambda point: point.server_rss_bytes,
        lambda value: f"{formats.megabytes(value)} MB",
        lambda _: "",
    )


def client_bars(summary: Summary, number: int) -> tuple[Lane, ...]:
    """How busy the load generator was, a full bar being one core, and its memory and lateness."""
    found = [(target.target.name, at_point(target, number)) for target in summary.targets]
    return tuple(
        Lane(
            title=f"under {name}",
            percent=100 * min(point.client_cores, 1.0),
            value=f"{formats.percent(point.client_cores, 0)} of a core",
            aside=_client(point),
            colour=colour_of(point.target),
        )
        for name, point in found
        if point is not None
    )


def _bars(
    summary: Summary,
    number: int,
    value: Callable[[PointSummary], float | None],
    text: Callable[[float], str],
    aside: Callable[[PointSummary], str],
) -> tuple[Lane, ...]:
    found = [
        (target.target.name, point, size)
        for target in summary.targets
        if (point := at_point(target, number)) is not None and (size := value(point)) is not None
    ]
    largest = max((size for _, _, size in found), default=0.0) or 1.0
    return tuple(
        Lane(
            title=name,
            percent=100 * size / largest,
            value=text(size),
            aside=aside(point),
            colour=colour_of(point.target),
        )
        for name, point, size in found
    )


def _phases(point: PointSummary) -> list[tuple[str, str, float]]:
    if point.server is None:
        return []
    parts = [(look, word, seconds(point.server)) for look, word, seconds in _PHASES]
    rest = (point.mean_s or 0.0) - sum(seconds for _, _, seconds in parts)
    return [*parts, (_REST, "outside", max(rest, 0.0))]


def _batches(point: PointSummary) -> str:
    batch = point.server.batch if point.server else None
    return f"{formats.digits(batch)} inferences a run" if batch is not None and batch > 1.05 else ""


def _client(point: PointSummary) -> str:
    told = [f"{formats.megabytes(point.client_rss_bytes)} MB"]
    if point.late_p99_s is not None:
        told.append(f"p99 of lateness {formats.milliseconds(point.late_p99_s)} ms")
    if point.dropped:
        told.append(f"{formats.count(point.dropped)} not sent")
    return ", ".join(told)


def _cores(cores: float) -> str:
    return f"{formats.digits(cores, 2)} core{'' if round(cores, 2) == 1 else 's'}"
