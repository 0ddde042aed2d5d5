"""A load test as one HTML page that needs nothing but a browser: no network, no other file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from redline.core.files import write_whole
from redline.loadtesting.figures import bound_by_load
from redline.loadtesting.summary import PointSummary, Summary
from redline.reporting.answers import sentence
from redline.reporting.loadtest_answers import (
    claim,
    facts,
    leading,
    load_of,
    name_of,
    signed,
    usual_point,
)
from redline.reporting.loadtest_conditions import loadtest_conditions, methods, run_of
from redline.reporting.loadtest_panels import (
    Lane,
    StackedBar,
    client_bars,
    cpu_bars,
    memory_bars,
    rate_bars,
    split_bars,
    tail_bars,
)
from redline.reporting.loadtest_plots import (
    curve_in_words,
    curve_spec,
    distribution_in_words,
    distribution_spec,
    knee_of,
    looks,
    objective_shown,
    offered_spec,
    service_shown,
)
from redline.reporting.loadtest_table import MODES, Line, compared, lines, loads, modes, outcomes
from redline.reporting.page import Drawn, Specs, draw, render


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLoad:
    """What is shown of one load."""

    point: int
    label: str
    told: str
    distribution: Drawn | None
    objective: float | None
    service: bool
    split: tuple[StackedBar, ...]
    cpu: tuple[Lane, ...]
    memory: tuple[Lane, ...]
    client: tuple[Lane, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfMode:
    """What is shown of one curve: its plots, its loads, its table."""

    mode: str
    title: str
    curve: Drawn | None
    offered: Drawn | None
    rings: bool
    rates: tuple[Lane, ...]
    loads: tuple[AtLoad, ...]
    chosen: int
    table: tuple[Line, ...]


def write_loadtest_html(summary: Summary, out: Path) -> None:
    """Write the page.

    Raises:
        MissingDependencyError: ``vl-convert`` is not installed.
    """
    write_whole(out, loadtest_page(summary))


def loadtest_page(summary: Summary) -> str:
    """The text that :func:`write_loadtest_html` writes."""
    specs: Specs = {}
    usual = usual_point(summary)
    found = tuple(_of_mode(summary, mode, usual, specs) for mode in modes(summary))
    document = summary.document
    points = [point for target in summary.targets for point in target.points]
    context = {
        "summary": summary,
        "document": document,
        "run": run_of(document),
        "name": name_of(summary),
        "claim": claim(summary),
        "facts": facts(summary),
        "versus": _versus(summary, usual),
        "versus_all": compared(summary, usual),
        "told": next((load_of(point) for point in points if point.point == usual), ""),
        "conclusion": tuple(signed(text) for text in summary.conclusion),
        "warnings": tuple(sentence(warning) for warning in summary.warnings),
        "looks": looks(summary),
        "modes": found,
        "chosen": next((one.mode for one in found if any(at.point == usual for at in one.loads)), ""),
        "outcomes": outcomes(summary),
        "failed": any(point.errors or point.dropped for point in points),
        "requests": sum(point.requests for point in points),
        "columns": _columns(points),
        "conditions": loadtest_conditions(summary),
        "methods": methods(summary),
        "specs": specs,
    }
    styles = ["report.css", "study.css", "loadtest.css"]
    return render("loadtest.html.j2", context, styles=styles, scripts=["report.js"])


def _of_mode(summary: Summary, mode: str, usual: int | None, specs: Specs) -> OfMode:
    there = loads(summary, mode)
    words = curve_in_words(summary, mode)
    table = lines(summary, mode)
    numbers = [point.point for point in there]
    kept = [number for number in numbers if all(line.point.kept_up for line in table if line.point.point == number)]
    return OfMode(
        mode=mode,
        title=MODES[mode],
        curve=draw(specs, f"curve-{mode}", curve_spec(summary, mode), f"latency against rate: {words}"),
        offered=draw(specs, f"offered-{mode}", offered_spec(summary, mode), f"answered against offered rate: {words}"),
        rings=any(knee_of(summary, target.points, mode) is not None for target in summary.targets),
        rates=rate_bars(summary, numbers[0]) if len(numbers) == 1 else (),
        loads=tuple(_at_load(summary, point, specs) for point in there),
        chosen=usual if usual in numbers else (kept or numbers)[-1],
        table=table,
    )


def _at_load(summary: Summary, point: PointSummary, specs: Specs) -> AtLoad:
    number = point.point
    words = distribution_in_words(summary, number)
    return AtLoad(
        point=number,
        label=point.label,
        told=load_of(point),
        distribution=draw(specs, f"times-{number}", distribution_spec(summary, number), f"response times: {words}"),
        objective=objective_shown(summary, number),
        service=service_shown(summary, number),
        split=split_bars(summary, number),
        cpu=cpu_bars(summary, number),
        memory=memory_bars(summary, number),
        client=client_bars(summary, number),
    )


def _versus(summary: Summary, usual: int | None) -> tuple[Lane, ...]:
    """What the claim is about, of every target on one scale: the most requests a second, or the p99."""
    if sum(target.best is not None for target in summary.targets) < 2:
        return ()
    comparison = leading(summary)
    if comparison is not None and usual is not None and bound_by_load(summary.targets, comparison):
        return tail_bars(summary, usual)
    return rate_bars(summary, None)


def _columns(points: list[PointSummary]) -> dict[str, bool]:
    """Which columns have anything to show."""
    return {
        "goodput": any(point.goodput_per_s is not None for point in points),
        "server": any(point.server is not None for point in points),
        "cpu": any(point.server_cpu_per_request_s is not None for point in points),
    }
