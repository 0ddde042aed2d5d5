"""A grid as Markdown, for a README or a pull request."""

from __future__ import annotations

from pathlib import Path

from redline.core.files import write_whole
from redline.findings.claims import SAME_BAND
from redline.findings.conclusions import Findings, found_in
from redline.findings.scaling import Fit
from redline.reporting import formats
from redline.reporting.answers import anomaly_text, answer, choices, crossed, label, sentence, topics
from redline.reporting.conditions import device_names, methods, skipped_files, study_conditions
from redline.reporting.markdown_text import escape, fenced, pairs, table
from redline.reporting.table import Cells, table_lines, tally, titles
from redline.study.rows import Study

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
    "size MB",
    "largest error",
    "same top-1",
    "accuracy",
    "gate",
)
_LEFT = (0, 1, 2, 3, 4, 5)


def write_markdown(study: Study, out: Path) -> None:
    """Write the answer, what was found, a table per model and image size, and the conditions."""
    write_whole(out, markdown(study))


def markdown(study: Study) -> str:
    """The text that :func:`write_markdown` writes."""
    found = found_in(study)
    done = "tuned" if study.run.purpose == "tune" else "benchmarked"
    where = ", ".join(f"{title} ({device})" for device, title in device_names(study).items())
    counted = f"{tally(study.rows)}{f' on {where}' if where else ''}."
    blocks = [f"# {escape(study.run.name)}, {done}", escape(counted), *_answer(study, found)]
    blocks += [f"> **Warning:** {escape(warning)}" for warning in found.warnings]
    if study.run.purpose == "tune":
        blocks += [*_tables(study), *_losers(study), *_conclusions(study, found), *_anomalies(found)]
    else:
        blocks += [*_conclusions(study, found), *_anomalies(found), *_exponents(found.fits, study), *_tables(study)]
    return "\n\n".join([*blocks, *_conditions(study)]) + "\n"


def _answer(study: Study, found: Findings) -> list[str]:
    if study.conclusion is not None:
        sentences = " ".join(map(escape, study.conclusion.sentences))
        return [f"**{escape(study.conclusion.headline)}**", sentences]
    if study.run.purpose == "tune":
        return ["**This run was not finished: nothing is recommended.** What was measured is below."]
    text = answer(study, found)
    return [f"**{escape(sentence(text))}**" if text else "**Nothing is recommended.** What was measured is below."]


def _losers(study: Study) -> list[str]:
    losers = study.conclusion.losers if study.conclusion else ()
    return ["## Why not the others", pairs((loser.variant, loser.why) for loser in losers)] if losers else []


def _conclusions(study: Study, found_in_study: Findings) -> list[str]:
    blocks: list[str] = []
    for found in choices(study, found_in_study) if study.run.purpose != "tune" else ():
        blocks.append(f"## For production: {escape(found.model)}")
        told = [(goal, pick) for goal, own in found.lines for pick in own if pick is not None]
        blocks.append(pairs((f"{goal}, {crossed(pick.size)}", pick.text) for goal, pick in told))
    every = topics(study, found_in_study)
    if every:
        blocks.append("## What was found")
    for topic in every:
        texts = [f"- {escape(crossed(finding.text))}" for finding in (*topic.first, *topic.rest)]
        blocks += [f"### {escape(topic.title)}", "\n".join(texts)]
    return blocks


def _anomalies(found: Findings) -> list[str]:
    items = [
        f"- **{escape(label(odd.kind))}**: {escape(anomaly_text(odd))} {escape(odd.cause)} ({_cells(odd.cells)})"
        for odd in found.anomalies
    ]
    return ["## Anomalies", "\n".join(items) if items else "None was found."]


def _cells(cells: tuple[str, ...]) -> str:
    few = ", ".join(escape(cell) for cell in cells[:3])
    return f"{few} and {len(cells) - 3} more" if len(cells) > 3 else few or "the whole run"


def _exponents(fits: tuple[Fit, ...], study: Study) -> list[str]:
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


def _tables(study: Study) -> list[str]:
    blocks = []
    for model in study.models:
        for size in dict.fromkeys(row.size for row in study.at(model=model)):
            name = f"{escape(model)}, {crossed(size)}" if len(study.models) > 1 else crossed(size)
            lines = [_line(line) for line in table_lines(study, model, size)]
            blocks += [f"## {name}", table(_HEADINGS, lines, left=_LEFT)]
    note = (
        "Speed-up is with its 99 % confidence interval over processes; “same” means that the interval lies within "
        f"{100 * SAME_BAND:.0f} % of 1. A dash was not measured."
    )
    return [*blocks, note] if blocks else []


def _line(line: Cells) -> list[str]:
    row = line.row
    title = f"**{escape(row.title)}**" if row.recommended else escape(row.title)
    names = [title + (" (confirmed)" if row.confirmed else ""), escape(row.loader), escape(line.asked)]
    place = [escape(row.device), line.shape]
    if line.reason:
        return [*names, escape(line.reason), *place, *[formats.DASH] * (len(_HEADINGS) - len(names) - len(place) - 1)]
    share = f" ({line.share})" if line.share else ""
    flags = f" ({'; '.join(line.flags)})" if line.flags else ""
    speedup = f"{line.speedup} ({line.interval})" if line.interval else line.speedup
    times = [line.median_ms, line.p90_ms, line.host_ms or formats.milliseconds(row.latency_s)]
    doubt = f" ({line.memory_doubt})" if line.memory_doubt else ""
    memory = line.memory_mb + doubt
    numbers = [line.throughput, line.loader_ms, memory, speedup, line.size_mb, line.error, line.agreement]
    answers = [line.accuracy, escape(line.gate)]
    return [*names, escape(f"{line.found}{share}{flags}"), *place, *times, *numbers, *answers]


def _conditions(study: Study) -> list[str]:
    blocks = ["## Conditions", "### How it was measured", pairs(methods(study))]
    for group in study_conditions(study):
        blocks += [f"### {escape(group.title)}", pairs(group.facts)]
    skipped = skipped_files(study)
    if skipped:
        blocks += ["### Skipped files", pairs(skipped)]
    command = study.run.command
    return [*blocks, "## Do it again", fenced(command)] if command else blocks
