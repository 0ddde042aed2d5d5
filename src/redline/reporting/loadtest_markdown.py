"""A load test as Markdown, for a README or a pull request."""

from __future__ import annotations

from pathlib import Path

from redline.core.files import write_whole
from redline.loadtesting.summary import Summary
from redline.reporting import formats
from redline.reporting.answers import sentence
from redline.reporting.loadtest_answers import claim, facts, load_of, name_of, signed, usual_point
from redline.reporting.loadtest_conditions import loadtest_conditions, methods
from redline.reporting.loadtest_panels import split_bars
from redline.reporting.loadtest_table import MODES, Line, compared, lines, modes, outcomes
from redline.reporting.markdown_text import escape, fenced, pairs, table

_HEADINGS = ("load", "target", "answered/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "lost", "CPU ms", "p99, ratio")


def write_loadtest_markdown(summary: Summary, out: Path) -> None:
    """Write the conclusion, the main figures, a table per kind of load, and the conditions."""
    write_whole(out, loadtest_markdown(summary))


def loadtest_markdown(summary: Summary) -> str:
    """The text that :func:`write_loadtest_markdown` writes."""
    blocks = [f"# {escape(name_of(summary))}, load-tested", *_answer(summary)]
    blocks += [f"> **Warning:** {escape(sentence(warning))}" for warning in summary.warnings]
    blocks += [*_against(summary), *_split(summary), *_tables(summary), *_outcomes(summary)]
    return "\n\n".join([*blocks, *_conditions(summary)]) + "\n"


def _answer(summary: Summary) -> list[str]:
    told = claim(summary)
    head = []
    if told is not None:
        unit = f"{'' if told.unit.startswith('/') else ' '}{told.unit}" if told.unit else ""
        aside = f" ({told.aside})" if told.aside else ""
        head = [f"**{escape(told.figure + unit)}** {escape(told.text + aside)}."]
    figures = [
        (fact.label, f"{fact.value}{'' if fact.unit.startswith('/') else ' '}{fact.unit}".strip(), fact.aside)
        for fact in facts(summary)
    ]
    listed = pairs((label, f"{value} ({aside})" if aside else value) for label, value, aside in figures)
    return [*head, *(escape(signed(text)) for text in summary.conclusion), *([listed] if listed else [])]


def _against(summary: Summary) -> list[str]:
    point = usual_point(summary)
    found = compared(summary, point)
    if len(found) < 2:
        return []
    rows = [
        [
            escape(item.name),
            _with(item.rps, item.rps_interval),
            _with(item.p99, item.p99_interval),
            item.knee,
            item.cpu,
            item.size,
        ]
        for item in found
    ]
    headings = ("target", "answered", "p99", "keeps up with", "CPU a request", "size")
    return [f"## Against {escape(summary.targets[0].target.name)}", table(headings, rows, left=(0,))]


def _split(summary: Summary) -> list[str]:
    number = usual_point(summary)
    if number is None:
        return []
    bars = split_bars(summary, number)
    if not bars:
        return []
    load = next(point for target in summary.targets for point in target.points if point.point == number)
    rows = [[escape(bar.title), *(part.value.removesuffix(" ms") for part in bar.parts)] for bar in bars]
    headings = ("target", *(f"{part.name} ms" for part in bars[0].parts))
    return [f"## Where the time goes, {escape(load_of(load))}", table(headings, rows, left=(0,))]


def _tables(summary: Summary) -> list[str]:
    blocks = []
    for mode in modes(summary):
        rows = [_row(line) for line in lines(summary, mode)]
        blocks += [f"## {MODES[mode]}", table(_HEADINGS, rows, left=(0, 1))]
    note = (
        "Times are from the intended sending. “n” is too few requests for the percentile; “the same” means that the "
        "95 % interval of the ratio lies within 5 % of 1, “not decided” that it holds 1, or reaches further than 15 % "
        "to both sides. "
        "An asterisk: the target did not keep up."
    )
    return [*blocks, note] if blocks else []


def _row(line: Line) -> list[str]:
    point = line.point
    load = point.label if point.mode == "closed" or point.kept_up else f"{point.label} \\*"
    lost = f"{line.errors} ({line.statuses})" if line.statuses else line.errors
    times = [line.p50_ms, line.p90_ms, line.p99_ms, line.p999_ms]
    return [
        load,
        escape(line.target),
        line.rps,
        *times,
        escape(lost),
        line.cpu_ms,
        _with(line.p99_ratio, line.p99_interval),
    ]


def _with(ratio: str, interval: str) -> str:
    return f"{ratio} ({interval})" if interval else ratio


def _outcomes(summary: Summary) -> list[str]:
    found = outcomes(summary)
    if all(status == "200" for status, _ in found):
        return []
    rows = [[escape(status), *(formats.count(count) for count in counts)] for status, counts in found]
    headings = ("status", *(escape(target.target.name) for target in summary.targets))
    return ["## How requests ended", table(headings, rows, left=(0,))]


def _conditions(summary: Summary) -> list[str]:
    blocks = ["## Conditions", "### How it was measured", pairs(methods(summary))]
    for group in loadtest_conditions(summary):
        blocks += [f"### {escape(group.title)}", pairs(group.facts)]
    command = summary.document.command
    return [*blocks, "## Do it again", fenced(command)] if command else blocks
