"""A grid as Markdown, for a README or a pull request."""

from __future__ import annotations

from pathlib import Path

from redline.core.files import write_whole
from redline.grid.rows import Fit, GridStudy
from redline.reporting import formats
from redline.reporting.grid_answers import anomaly_text, answer, choices, crossed, label, sentence, topics
from redline.reporting.grid_conditions import device_names, grid_conditions, methods
from redline.reporting.grid_table import GridCells, grid_lines, tally, titles
from redline.reporting.markdown_text import escape, fenced, pairs, table

_HEADINGS = (
    "variant",
    "loader",
    "asked",
    "ran in",
    "device",
    "shape",
    "median ms",
    "p90 ms",
    "host to host ms",
    "images/s",
    "with loader ms",
    "memory MB",
    "speed-up",
    "same top-1",
)
_LEFT = (0, 1, 2, 3, 4, 5)


def write_grid_markdown(study: GridStudy, out: Path) -> None:
    """Write the answer, what was found, a table per model and image size, and the conditions."""
    write_whole(out, grid_markdown(study))


def grid_markdown(study: GridStudy) -> str:
    """The text that :func:`write_grid_markdown` writes."""
    name = study.run.get("name") or ", ".join(study.models) or "a grid"
    where = ", ".join(f"{title} ({device})" for device, title in device_names(study).items())
    counted = f"{tally(study.rows)}{f' on {where}' if where else ''}."
    blocks = [f"# {escape(str(name))}, benchmarked", escape(counted), _answer(study)]
    blocks += [f"> **Warning:** {escape(warning)}" for warning in study.warnings]
    blocks += [*_conclusions(study), *_anomalies(study), *_exponents(study.conclusions.fits, study), *_tables(study)]
    return "\n\n".join([*blocks, *_conditions(study)]) + "\n"


def _answer(study: GridStudy) -> str:
    text = answer(study)
    return f"**{escape(sentence(text))}**" if text else "**Nothing is recommended.** What was measured is below."


def _conclusions(study: GridStudy) -> list[str]:
    blocks: list[str] = []
    for found in choices(study):
        blocks.append(f"## For production: {escape(found.model)}")
        told = [(goal, pick) for goal, own in found.lines for pick in own if pick is not None]
        blocks.append(pairs((f"{goal}, {crossed(pick.size)}", pick.text) for goal, pick in told))
    every = topics(study)
    if every:
        blocks.append("## What was found")
    for topic in every:
        texts = [f"- {escape(crossed(finding.text))}" for finding in (*topic.first, *topic.rest)]
        blocks += [f"### {escape(topic.title)}", "\n".join(texts)]
    return blocks


def _anomalies(study: GridStudy) -> list[str]:
    items = [
        f"- **{escape(label(odd.kind))}**: {escape(anomaly_text(odd))} {escape(odd.cause)} ({_cells(odd.cells)})"
        for odd in study.anomalies
    ]
    return ["## Anomalies", "\n".join(items) if items else "None was found."]


def _cells(cells: tuple[str, ...]) -> str:
    few = ", ".join(escape(cell) for cell in cells[:3])
    return f"{few} and {len(cells) - 3} more" if len(cells) > 3 else few or "the whole run"


def _exponents(fits: tuple[Fit, ...], study: GridStudy) -> list[str]:
    if not fits:
        return []
    names = titles(study)
    headings = ("variant", "device", "loader", "time grows with", "at", "exponent", "95 % interval", "points")
    lines = [
        [
            escape(names.get((fit.variant, fit.device), fit.variant)),
            fit.device,
            escape(fit.loader),
            "the batch" if fit.over == "batch" else "the pixels",
            escape(f"{fit.model}, {crossed(fit.fixed)}" if len(study.models) > 1 else crossed(fit.fixed)),
            f"{fit.exponent:.2f}",
            f"{fit.low:.2f}–{fit.high:.2f}",
            str(fit.points),
        ]
        for fit in fits
    ]
    # A table of a thousand lines would hide what follows it; the CSV and the page have the times themselves.
    fold = ["<details><summary>Fitted exponents</summary>", table(headings, lines, left=range(5)), "</details>"]
    return ["## How time grows", *fold]


def _tables(study: GridStudy) -> list[str]:
    blocks = []
    for model in study.models:
        for size in dict.fromkeys(row.size for row in study.at(model=model)):
            name = f"{escape(model)}, {crossed(size)}" if len(study.models) > 1 else crossed(size)
            lines = [_line(line) for line in grid_lines(study, model, size)]
            blocks += [f"## {name}", table(_HEADINGS, lines, left=_LEFT)]
    note = (
        "Speed-up is with its 99 % confidence interval; “no difference” means that it holds 1. A dash was not measured."
    )
    return [*blocks, note] if blocks else []


def _line(line: GridCells) -> list[str]:
    row = line.row
    names = [escape(row.title), escape(row.loader), escape(line.asked)]
    place = [escape(row.device), line.shape]
    if line.reason:
        return [*names, escape(line.reason), *place, *[formats.DASH] * (len(_HEADINGS) - len(names) - len(place) - 1)]
    share = f" ({line.share})" if line.share else ""
    flags = f" ({'; '.join(line.flags)})" if line.flags else ""
    speedup = f"{line.speedup} ({line.interval})" if line.interval else line.speedup
    times = [line.median_ms, line.p90_ms, line.host_ms or formats.milliseconds(row.latency_s)]
    numbers = [line.throughput, line.loader_ms, line.memory_mb, speedup, line.agreement]
    return [*names, escape(f"{line.found}{share}{flags}"), *place, *times, *numbers]


def _conditions(study: GridStudy) -> list[str]:
    blocks = ["## Conditions", "### How it was measured", pairs(methods(study))]
    for group in grid_conditions(study):
        blocks += [f"### {escape(group.title)}", pairs(group.facts)]
    command = str(study.run.get("command") or "")
    return [*blocks, "## Do it again", fenced(command)] if command else blocks
