"""What a tune recommends, in words made of the numbers of the table and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from redline.findings.claims import claim_of, is_disturbed, speed_text
from redline.findings.contest import paired
from redline.findings.recommend import RULE, Choice, choose, pareto_front, scarce_bytes
from redline.findings.wording import megabytes, milliseconds, names
from redline.study.records import Conclusion, Loser
from redline.study.rows import Row, Study


def conclude(study: Study, *, batch: int, objective: str) -> Conclusion:
    """The recommended variant, why it, what it costs, why not the others.

    Args:
        study: A tune whose measuring is done.
        batch: The batch size that the recommendation is for.
        objective: What was asked for.
    """
    rows = [row for row in study.rows if row.batch == batch and not row.control]
    chosen = choose([row for row in rows if row.passed], objective)
    best = chosen.row if chosen else None
    sentences = _sentences(chosen, rows, objective) if chosen else [_nothing(rows)]
    if any(found.depends_on_input is False for found in study.dependence.values()):
        sentences.append(
            "These answers hardly depend on the input, so agreement proves nothing here: tune the trained weights."
        )
    return Conclusion(
        recommended=best.variant if best else None,
        batch=batch,
        objective=objective,
        headline=_headline(best, batch),
        sentences=tuple(sentences),
        losers=tuple(Loser(row.variant, _why_not(row, best, objective)) for row in rows if row is not best),
        pareto=pareto_front(rows),
        gate_passed=best is not None,
    )


def _headline(best: Row | None, batch: int) -> str:
    if best is None:
        return "Nothing can be recommended"
    if best.is_baseline:
        return f"{best.title} stays: nothing is shown to beat it at batch {batch}"
    claim = claim_of(best)
    if claim is None or not claim.says_speed:
        return f"{best.title} at batch {batch}: {speed_text(claim)}"
    return f"{best.title}: {speed_text(claim)} at batch {batch}"


def _sentences(chosen: Choice, rows: Sequence[Row], objective: str) -> list[str]:
    best = chosen.row
    baseline = next((row for row in rows if row.is_baseline), None)
    against = f" ({baseline.title}: {_ms(baseline)})" if baseline and baseline is not best else ""
    claim = claim_of(best)
    fresh = f", in {claim.processes} fresh processes" if claim and claim.confirmed and claim.says_speed else ""
    first = (
        f"For {objective} take {best.title} ({best.layers_text}): {_ms(best)} a call at batch {best.batch}, "
        f"{speed_text(claim)}{fresh}{against}."
    )
    return [first, _cost(best, baseline), *_level(chosen), _next(chosen, rows, objective)]


def _level(chosen: Choice) -> list[str]:
    others = [row.title for row in chosen.level if row is not chosen.row]
    if not others or chosen.why is None:
        return []
    return [f"It is level with {names(others)} and taken because {chosen.why} ({RULE})."]


def _cost(best: Row, baseline: Row | None) -> str:
    if best.accuracy is not None and best.accuracy_drop is not None:
        answers = f"accuracy is {best.accuracy:.2%} against {best.accuracy + best.accuracy_drop:.2%}"
    elif best.top1_agreement is not None:
        answers = "there are no labels, so accuracy is unknown"
    else:
        answers = f"the largest error is {best.max_abs or 0.0:.3g}"
    if best.top1_agreement is not None:
        answers += f" and {best.top1_agreement:.1%} of top-1 answers are the same"
    size = _change("file", best.size_bytes, baseline.size_bytes if baseline else None)
    memory = _change("memory", scarce_bytes(best), scarce_bytes(baseline) if baseline else None)
    unsound = " (not sound: the baseline's copy needs another amount)" if best.memory_sound is False else ""
    return f"On {best.samples} samples {answers}; {size}, {memory}{unsound}."


def _change(what: str, value: int | None, reference: int | None) -> str:
    if value is None:
        return f"{what} was not measured"
    text = f"{what} {_bytes(value)}"
    return text if not reference or reference == value else f"{text} (from {_bytes(reference)})"


def _bytes(value: int) -> str:
    return megabytes(value) if value >= 1e6 else f"{value / 1e3:.1f} kB"


def _next(chosen: Choice, rows: Sequence[Row], objective: str) -> str:
    best = chosen.row
    timed = [row for row in rows if row.mean_s is not None]
    refused = [row for row in timed if row.passed is False and (row.mean_s or 0.0) < (best.mean_s or 0.0)]
    if refused:
        told = names(f"{row.title} ({_ms(row)})" for row in refused[:3])
        return f"Faster but refused, because it does not answer as the original does: {told}."
    other = chosen.against
    if other is None:
        return "No other variant passed."
    if objective in ("memory", "size"):
        return f"The fastest that passes: {other.title} with {_ms(other)}."
    claim = paired(other, best)
    return f"Held against {other.title} ({_ms(other)}): {speed_text(claim, of='it')}."


def _why_not(row: Row, best: Row | None, objective: str) -> str:
    if row.outcome != "measured":
        return f"{row.outcome}: {row.reason}"
    if row.passed is False:
        return f"fails the gate: {row.gate_reason}"
    if best is None or best.mean_s is None or row.mean_s is None:
        return "was not measured"
    claim = paired(row, best)
    remark = f"; asked for {row.requested}, this machine ran {row.layers_text}" if row.fell_back else ""
    if claim is not None and claim.verdict == "faster":
        return f"the recommended variant is {speed_text(claim, of='it')}{remark}"
    if objective in ("memory", "size"):
        return f"{'needs more memory' if objective == 'memory' else 'is a larger file'}{remark}"
    if is_disturbed(claim):  # the first sentence says by what
        return f"not shown to be faster: the times are too disturbed to say{remark}"
    return f"not shown to be faster: the recommended variant is {speed_text(claim, of='it')}{remark}"


def _nothing(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row.passed is False]
    reasons = "; ".join(f"{row.title}: {row.gate_reason}" for row in failed[:3])
    return f"No variant passed the gate ({reasons})." if reasons else "No variant ran."


def _ms(row: Row) -> str:
    return "–" if row.time_s is None else milliseconds(row.time_s)
