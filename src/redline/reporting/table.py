"""The table of a grid: every cell as a line, with every number already in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redline.core.plain import Json, to_plain
from redline.findings.claims import SAME_BAND, Claim, claim_of, interval_text, ratio_text
from redline.findings.conclusions import Findings
from redline.reporting import formats
from redline.reporting.conditions import model_of
from redline.study.records import Model
from redline.study.rows import Row, Study

_STAGES = {
    "build": "while building",
    "open": "while opening",
    "warm up": "while warming up",
    "measure": "while measuring",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One line of the table as text; what was not measured is a dash.

    Attributes:
        begins: True for the first line of a batch, device and loader.
        share: How many layers ran in the precision found, where it is not all of them.
        memory_mb: The device's on ``cuda``, else the host's.
        memory_doubt: Where the baseline's own copy needs another amount; a warning says how much.
        flags: What a reader should know before using the numbers.
    """

    row: Row
    begins: bool
    asked: str
    found: str
    share: str
    shape: str
    median_ms: str
    p90_ms: str
    host_ms: str
    loader_ms: str
    throughput: str
    memory_mb: str
    memory_doubt: str
    speedup: str
    interval: str
    why_no_speed: str
    size_mb: str
    error: str
    agreement: str
    accuracy: str
    accuracy_change: str
    gate: str
    reason: str
    flags: tuple[str, ...]


def table_lines(study: Study, model: str, size: str) -> tuple[Cells, ...]:
    """The table of one model at one image size, in the order of the grid."""
    channels = _channels(study, model)
    lines: list[Cells] = []
    before: tuple[object, ...] | None = None
    for row in study.at(model=model, size=size):
        point = (row.batch, row.device, row.loader)
        lines.append(_line(row, channels, begins=point != before))
        before = point
    return tuple(lines)


def shape_of(study: Study, row: Row) -> str:
    """The shape of a call's input in words."""
    return _shape(row, _channels(study, row.model))


def titles(study: Study) -> Mapping[tuple[str, str], str]:
    """The title of each variant by its name and device."""
    return {(row.variant, row.device): row.title for row in study.rows}


def tally(rows: Iterable[Row]) -> str:
    """How many cells came out how.

    >>> tally([])
    'no cells'
    """
    outcomes = [row.outcome for row in rows]
    parts = [f"{formats.count(n)} {name}" for name in ("measured", "failed", "skipped") if (n := outcomes.count(name))]
    return ", ".join(parts) or "no cells"


def why_not(row: Row) -> str:
    """Why a cell has no numbers, in words; nothing for one that was measured."""
    if row.outcome == "measured":
        return ""
    stage = _STAGES.get(row.stage or "", f"at {row.stage}" if row.stage else "")
    return f"{row.outcome}{f' {stage}' if stage else ''}: {row.reason or 'no reason was recorded'}"


def speedup_text(claim: Claim | None) -> str:
    """The speed-up where it is a claim, in words where it is none.

    >>> speedup_text(Claim(verdict="faster", value=2.503, low=2.4, high=2.6)), speedup_text(Claim(verdict="disturbed"))
    ('2.50×', 'too disturbed to say')
    """
    if claim is None:
        return formats.DASH
    match claim.verdict:
        case "baseline":
            return "baseline"
        case "same":
            return f"same within {100 * SAME_BAND:.0f} %"
        case "undecided":
            return "not decided"
        case "disturbed":
            return "too disturbed to say"
    if claim.value is None or claim.low is None or claim.high is None:
        return formats.DASH
    return f"{ratio_text(claim.value, claim.low, claim.high)}×"


def interval_of(claim: Claim | None) -> str:
    """The interval of a ratio that may be quoted or is not decided; of a disturbed one none is told."""
    if claim is None or claim.low is None or claim.high is None or claim.verdict in ("baseline", "disturbed"):
        return ""
    return interval_text(claim.low, claim.high)


def compared_text(row: Row) -> str:
    """The speed-up with its interval, in a few words."""
    claim = claim_of(row)
    text, interval = speedup_text(claim), interval_of(claim)
    return f"{text} ({interval})" if interval else text if claim else "not compared"


def values_of(row: Row) -> dict[str, Json]:
    """A row's values by name, for machines; the raw samples stay in the results file."""
    plain = to_plain(row)
    found = dict(plain) if isinstance(plain, dict) else {}
    found.pop("processes", None)
    return {**found, "claim": to_plain(claim_of(row)), "size": row.size, "fell_back": row.fell_back}


def for_machines(study: Study, found: Findings) -> dict[str, Json]:
    """The whole study as one JSON value, without its raw samples."""
    return {
        "rows": [values_of(row) for row in study.rows],
        "conclusion": to_plain(study.conclusion),
        "anomalies": to_plain(found.anomalies),
        "conclusions": {
            "sentences": to_plain(found.sentences),
            "fits": to_plain(found.fits),
            "recommendations": to_plain(found.recommendations),
        },
        "warnings": list(found.warnings),
    }


def _line(row: Row, channels: _Channels, *, begins: bool) -> Cells:
    memory = row.device_bytes if row.device == "cuda" else row.host_bytes
    measured = row.outcome == "measured"
    claim = claim_of(row)
    return Cells(
        row=row,
        begins=begins,
        asked=row.requested or formats.DASH,
        found=row.precision if measured and row.precision != "none" else formats.DASH,
        share=row.layers_text.removeprefix(row.precision).strip(" ()") if measured else "",
        shape=_shape(row, channels),
        median_ms=formats.precise_ms(row, row.time_s),
        p90_ms=formats.precise_ms(row, row.p90_s),
        host_ms=formats.milliseconds(row.latency_s) if row.clock == "device" else "",
        loader_ms=formats.milliseconds(row.pipeline_s),
        throughput=formats.digits(row.throughput_per_s),
        memory_mb=formats.megabytes(memory),
        memory_doubt="not sound" if row.memory_sound is False and memory is not None else "",
        speedup=speedup_text(claim),
        interval=interval_of(claim),
        why_no_speed="; ".join(claim.reasons) if claim and not claim.says_speed else "",
        size_mb=formats.megabytes(row.size_bytes),
        error=formats.error(row.max_abs),
        agreement=formats.percent(row.top1_agreement),
        accuracy=formats.percent(row.accuracy),
        accuracy_change=formats.points(row.accuracy_drop),
        gate=formats.gate(row),
        reason=why_not(row),
        flags=_flags(row) if measured else (),
    )


def _flags(row: Row) -> tuple[str, ...]:
    told = [
        "not as asked" if row.fell_back else None,
        row.elsewhere,
        "never settled" if row.stable is False else None,
        f"throttled: {', '.join(row.throttled).replace('_', ' ')}" if row.throttled else None,
        "answers are not finite" if row.finite is False else None,
        "timed host to host" if row.device == "cuda" and row.time_s is not None and row.clock == "host" else None,
    ]
    return tuple(text for text in told if text)


_Channels = tuple[int, bool] | None
"""How many channels an input has, and whether they come last; None where that was not recorded."""


def _channels(study: Study, name: str) -> _Channels:
    model: Model | None = model_of(study, name)
    if model is None:
        return None
    if model.preprocess:
        return 1 if model.preprocess.color == "gray" else 3, model.preprocess.layout == "nhwc"
    shapes = [spec.shape for spec in model.signature.inputs if len(spec.shape) == 4]
    return (int(shapes[0][1]), False) if shapes and isinstance(shapes[0][1], int) else None


def _shape(row: Row, channels: _Channels) -> str:
    pixels = (str(row.height), str(row.width))
    if channels is None:
        return "×".join((str(row.batch), *pixels))
    count, last = channels
    return "×".join((str(row.batch), *pixels, str(count)) if last else (str(row.batch), str(count), *pixels))
