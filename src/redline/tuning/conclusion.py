"""The recommendation in words, made of the numbers of the table and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redline.measurement.summary import Row, Study
from redline.tuning.pareto import pareto_front, recommend
from redline.tuning.plan import Objective

_WIDEST = 50


def conclude(study: Study, *, batch: int, objective: Objective) -> dict[str, Any]:
    """The ``conclusion`` record: the recommended variant, why it, what it costs, why not the others.

    Args:
        study: A run whose measuring is done.
        batch: The batch size that the recommendation is for.
        objective: What was asked for.
    """
    rows = [row for row in study.rows if row.batch == batch and not row.control]
    best = recommend(rows, objective)
    proves = study.run["data"]["depends_on_input"] is not False
    sentences = _recommendation(best, rows, study, objective) if best else [_nothing(rows)]
    if not proves:
        sentences.append(
            "These answers hardly depend on the input, so agreement proves nothing here: tune the trained weights."
        )
    return {
        "kind": "conclusion",
        "recommended": best.variant if best else None,
        "batch": batch,
        "objective": objective,
        "headline": _headline(best, batch),
        "sentences": sentences,
        "losers": [{"variant": r.variant, "why": _why_not(r, best, objective)} for r in rows if r is not best],
        "pareto": list(pareto_front(rows)),
        "gate_passed": best is not None,
    }


def _headline(best: Row | None, batch: int) -> str:
    if best is None:
        return "Nothing can be recommended"
    if best.verdict == "baseline":
        return f"{best.title} stays: nothing beats it at batch {batch}"
    return f"{best.title}: {speed_text(best)} at batch {batch}"


def speed_text(row: Row) -> str:
    """The speed against the baseline in words; says "no difference" when noise covers it.

    >>> row = Row(variant="a", title="A", backend="b", requested="fp32", precision="fp32", layers_text="fp32", batch=1)
    >>> speed_text(row)
    'not compared with the baseline'
    """
    if row.verdict == "baseline":
        return "the baseline itself"
    if row.speedup is None or row.speedup_low is None or row.speedup_high is None:
        return "not compared with the baseline"
    if row.speedup_high > _WIDEST * row.speedup_low:
        return "too disturbed to compare with the baseline: measure again on a quieter machine, or with more rounds"
    interval = f"99 % interval {row.speedup_low:.2f} to {row.speedup_high:.2f}"
    if row.verdict == "no difference":
        return f"no difference from the baseline ({interval})"
    if row.verdict == "slower":
        return f"{1 / row.speedup:.2f} times slower than the baseline ({interval})"
    return f"{row.speedup:.2f} times faster than the baseline ({interval})"


def _recommendation(best: Row, rows: Sequence[Row], study: Study, objective: Objective) -> list[str]:
    baseline = next((row for row in rows if row.verdict == "baseline"), None)
    against = f" ({baseline.title}: {_ms(baseline.p50_s)})" if baseline and baseline is not best else ""
    first = (
        f"For {objective} take {best.title} ({best.layers_text}): {_ms(best.p50_s)} a call at batch {best.batch}, "
        f"{speed_text(best)}{against}."
    )
    return [first, _cost(best, baseline, study), _runner_up(best, rows, objective)]


def _cost(best: Row, baseline: Row | None, study: Study) -> str:
    samples = study.run["data"]["verification"]
    if best.accuracy is not None and best.accuracy_drop is not None:
        reference = best.accuracy + best.accuracy_drop
        answers = f"accuracy is {best.accuracy:.2%} against {reference:.2%}"
    elif best.top1_agreement is not None:
        answers = "there are no labels, so accuracy is unknown"
    else:
        answers = f"the largest error is {best.max_abs:.3g}"
    if best.top1_agreement is not None:
        answers += f" and {best.top1_agreement:.1%} of top-1 answers are the same"
    size = _change("file", best.size_bytes, baseline.size_bytes if baseline else None)
    memory = _change("memory", best.private_peak_bytes, baseline.private_peak_bytes if baseline else None)
    return f"On {samples} samples {answers}; {size}, {memory}."


def _change(what: str, value: int | None, reference: int | None) -> str:
    if value is None:
        return f"{what} was not measured"
    text = f"{what} {_bytes(value)}"
    return text if not reference or reference == value else f"{text} (from {_bytes(reference)})"


def _bytes(value: int) -> str:
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def _runner_up(best: Row, rows: Sequence[Row], objective: Objective) -> str:
    others = [r for r in rows if r is not best and r.p50_s is not None]
    refused = [row for row in others if not row.passed and (row.p50_s or 0) < (best.p50_s or 0)]
    if refused:
        names = ", ".join(f"{row.title} ({_ms(row.p50_s)})" for row in refused[:3])
        return f"Faster but refused, because it does not answer as the original does: {names}."
    passing = sorted((row for row in others if row.passed), key=lambda row: row.p50_s or 0.0)
    if not passing:
        return "No other variant passed."
    first = passing[0]
    if objective in ("memory", "size"):
        return f"The fastest that passes: {first.title} with {_ms(first.p50_s)}."
    if (first.p50_s or 0.0) <= (best.p50_s or 0.0):
        return f"{first.title} ({_ms(first.p50_s)}) is its equal within the noise, and changes more or needs more."
    return f"Next: {first.title} with {_ms(first.p50_s)}."


def _why_not(row: Row, best: Row | None, objective: Objective) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    if row.passed is False:
        return f"fails the gate: {row.gate_reason}"
    if best is None or best.p50_s is None or row.p50_s is None:
        return "was not measured"
    times = row.p50_s / best.p50_s
    if times >= 1.005:
        speed = f"{times:.2f} times the recommended variant's latency"
    elif objective in ("memory", "size"):
        more = "needs more memory" if objective == "memory" else "is a larger file"
        speed = f"{1 / times:.2f} times faster, but {more}"
    else:
        speed = "no faster beyond the noise"
    return f"{speed}{_precision_remark(row)}"


def _precision_remark(row: Row) -> str:
    return f"; asked for {row.requested}, this machine ran {row.layers_text}" if row.fell_back else ""


def _nothing(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row.passed is False]
    reasons = "; ".join(f"{row.title}: {row.gate_reason}" for row in failed[:3])
    return f"No variant passed the gate ({reasons})." if reasons else "No variant ran."


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.3g} ms"
