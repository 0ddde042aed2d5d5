"""What a grid recommends and found, put so that the most wanted comes first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from redline.findings.anomalies import Anomaly
from redline.findings.claims import Claim, claim_of, is_disturbed
from redline.findings.conclusions import Findings
from redline.findings.findings import Finding
from redline.findings.recommend import Recommendation
from redline.reporting import formats
from redline.reporting.page import Fact
from redline.reporting.table import speedup_text
from redline.study.rows import Row, Study

_USUAL_PIXELS = 224 * 224
#: What the words of a recommendation with equals mean for a reader of its first line.
_TIES = {"level with": "level with others"}
_AT_ONCE = 2
"""Findings of a topic that are said before the rest is folded away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A recommendation with its number; ``goal`` leaves out the image size, which ``size`` says."""

    goal: str
    size: str
    model: str
    title: str
    fact: Fact
    speedup: str
    disturbed: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The recommendations of one model: goals downwards, image sizes to the right."""

    model: str
    sizes: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Pick | None, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicOfFindings:
    """What was found about one topic: first what is about the usual image size, then the rest."""

    title: str
    first: tuple[Finding, ...]
    rest: tuple[Finding, ...]


def picks(study: Study, found_in: Findings) -> tuple[Pick, ...]:
    """Every recommendation whose cell is known."""
    rows = {row.cell: row for row in study.rows}
    found = [(item, rows[item.cell]) for item in found_in.recommendations if item.cell in rows]
    return tuple(_pick(item, row) for item, row in found)


def usual_size(rows: Sequence[Row]) -> str:
    """The image size nearest to 224×224, which most models are trained at."""
    return min(rows, key=lambda row: abs(row.height * row.width - _USUAL_PIXELS)).size


def usual_picks(study: Study, found_in: Findings) -> tuple[Pick, ...]:
    """The recommendations at each model's usual size."""
    usual = {model: usual_size(study.at(model=model)) for model in study.models}
    return tuple(pick for pick in picks(study, found_in) if usual[pick.model] == pick.size)


def answer(study: Study, found_in: Findings) -> str:
    """The recommendations at the usual size as one paragraph; nothing where there are none."""
    found = usual_picks(study, found_in)
    if not found:
        return ""
    where = f"At {crossed(found[0].size)} pixels: " if len(study.sizes) > 1 and len(study.models) == 1 else ""
    told = [_sentence(pick) for pick in found if pick.fact.unit != "MB"] or [_sentence(pick) for pick in found]
    return where + "; ".join(told) + "."


def choices(study: Study, found_in: Findings) -> tuple[Choices, ...]:
    """Every recommendation as a small table a model."""
    found = picks(study, found_in)
    tables = []
    for model in dict.fromkeys(pick.model for pick in found):
        own = {(pick.goal, pick.size): pick for pick in found if pick.model == model}
        sizes = tuple(dict.fromkeys(size for _, size in own))
        goals = dict.fromkeys(goal for goal, _ in own)
        lines = tuple((sentence(goal), tuple(own.get((goal, size)) for size in sizes)) for goal in goals)
        tables.append(Choices(model=model, sizes=sizes, lines=lines))
    return tuple(tables)


def topics(study: Study, found_in: Findings) -> tuple[TopicOfFindings, ...]:
    """The findings by topic, in the order in which the topics first come up."""
    usual = {f"x{usual_size(study.at(model=model))}" for model in study.models}
    found = []
    for topic in dict.fromkeys(finding.topic for finding in found_in.sentences):
        own = [finding for finding in found_in.sentences if finding.topic == topic]
        wanted = [finding for finding in own if _about(finding, usual)] or own
        first = wanted[:_AT_ONCE] if len(own) > _AT_ONCE + 1 else own
        rest = [finding for finding in own if finding not in first]
        found.append(TopicOfFindings(title=label(topic), first=tuple(first), rest=tuple(rest)))
    return tuple(found)


def anomaly_text(anomaly: Anomaly) -> str:
    """What was seen, as a sentence."""
    return sentence(crossed(anomaly.text))


def label(kind: str) -> str:
    """A topic or a kind of anomaly as a heading.

    >>> label("fp16 in fp32"), label("fell back")
    ('FP16 in FP32', 'Fell back')
    """
    return sentence(re.sub(r"\b(fp\d+|tf32|bf16|int8)\b", lambda found: found[0].upper(), kind))


def sentence(text: str) -> str:
    """With a capital at its beginning.

    >>> sentence("the GPU waits.")
    'The GPU waits.'
    """
    return text[:1].upper() + text[1:]


def crossed(text: str) -> str:
    """Sizes with the sign for "times" in them.

    >>> crossed("batch 8 at 224x224")
    'batch 8 at 224×224'
    """
    return re.sub(r"(?<=\d)x(?=\d)", "×", text)


def _about(finding: Finding, sizes: set[str]) -> bool:
    """Whether all its cells are of such a size; a finding without cells is about everything."""
    return all(any(cell.endswith(size) for size in sizes) for cell in finding.cells)


def _pick(item: Recommendation, row: Row) -> Pick:
    goal = re.sub(rf",? (at )?{row.size}", "", item.goal)
    figure, unit = _figure(item.goal, row)
    claim = claim_of(row)
    return Pick(
        goal=goal,
        size=row.size,
        model=row.model,
        title=row.title,
        fact=Fact(label=sentence(goal), value=figure, unit=unit, aside=_aside(row, unit)),
        speedup=_claimed(claim),
        disturbed=is_disturbed(claim),
        text=crossed(item.text),
    )


def _claimed(claim: Claim | None) -> str:
    """The speed-up as a headline may say it; nothing where it is no claim."""
    return speedup_text(claim) if claim is not None and claim.verdict in ("faster", "slower") else ""


def _figure(goal: str, row: Row) -> tuple[str, str]:
    """The number that a goal is about, and its unit: memory, images a second, or else the time."""
    if "memory" in goal:
        return formats.megabytes(row.device_bytes if row.device == "cuda" else row.host_bytes), "MB"
    if "images" in goal or "throughput" in goal:
        return formats.digits(row.throughput_per_s), "images/s"
    return formats.milliseconds(row.time_s), "ms"


def _aside(row: Row, unit: str) -> str:
    return f"{row.title}, batch {row.batch}" if unit == "images/s" else row.title


def _sentence(pick: Pick) -> str:
    faster = f", {pick.speedup} the baseline's speed" if pick.speedup and pick.fact.unit == "ms" else ""
    if pick.disturbed and pick.fact.unit != "MB":
        faster = ", too disturbed to say how much faster"
    # One that is merely as good as others must not read as the only choice.
    tied = "".join(f", {told}" for words, told in _TIES.items() if words in pick.text)
    return f"for the {pick.goal} take {pick.fact.aside} ({pick.fact.value} {pick.fact.unit}{faster}{tied})"
