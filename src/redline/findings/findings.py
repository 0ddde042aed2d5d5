"""Who wins in a grid: one sentence a fact, none claiming more than its interval allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from redline.findings.claims import SAME_BAND, Claim, claim_of, interval_text, is_disturbed, ratio_text, speed_text
from redline.findings.contest import LEVEL, Contest, fastest, most_images, usable
from redline.findings.recommend import MEMORY_LEVEL, scarce_bytes
from redline.findings.wording import (
    Scope,
    digits,
    megabytes,
    milliseconds,
    model_only,
    names,
    sentence,
    split,
    unique,
)
from redline.study.rows import Row

Topic = Literal["fastest", "memory", "fp16", "int8", "scaling", "loader", "constraint", "baseline", "caution"]
Rows = Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence and the cells that it is about."""

    topic: Topic
    text: str
    cells: tuple[str, ...] = ()


def winners(rows: Rows, scope: Scope) -> Iterator[Finding]:
    """Who is fastest, makes the most images a second, is fastest in FP32, needs the least memory."""
    yield from _fastest(rows, scope)
    yield from _throughput(rows, scope)
    yield from _constraint(rows, scope)
    yield from _memory(rows, scope)


def finding(topic: Topic, text: str, rows: Rows) -> Finding:
    """A sentence about those rows."""
    return Finding(topic=topic, text=sentence(text), cells=tuple(unique(row.cell for row in rows)))


def _fastest(rows: Rows, scope: Scope) -> Iterator[Finding]:
    for series in split(model_only(rows), "model", "size", "device"):
        yield from _winners("fastest", [row for row in series if usable(row)], scope, "")


def _constraint(rows: Rows, scope: Scope) -> Iterator[Finding]:
    """The fastest that runs FP32, where something else is the fastest of all."""
    for series in split(model_only(rows), "model", "size", "device"):
        good = [row for row in series if usable(row)]
        contests = [fastest(group) for group in split(good, "batch")]
        lower = {c.best.batch for c in contests if c and c.best.precision != "fp32"}
        full = [row for row in good if row.precision == "fp32" and row.batch in lower]
        yield from _winners("constraint", full, scope, " where FP32 must run")


def _winners(topic: Topic, series: Rows, scope: Scope, condition: str) -> Iterator[Finding]:
    """One sentence for neighbouring batches that have the same winners."""
    contests = [contest for group in split(series, "batch") if (contest := fastest(group))]
    for _, same in groupby(contests, key=lambda c: {row.variant for row in c.front}):
        yield _about_winners(topic, list(same), scope, condition)


def _about_winners(topic: Topic, contests: Sequence[Contest], scope: Scope, condition: str) -> Finding:
    first = contests[0]
    batches = [contest.best.batch for contest in contests]
    place = scope.place(first.best, batches=batches) + condition
    times = " to ".join(unique(milliseconds(c.best.time_s or 0.0) for c in (first, contests[-1])))
    front = [row for contest in contests for row in contest.front]
    if not any(c.level or c.behind for c in contests):
        return finding(topic, f"{place}: {first.best.title} is the only one that counts, {times} a call", front)
    doubts = {contest.doubt for contest in contests}
    if first.level and doubts != {""}:
        why = "too disturbed" if "disturbed" in doubts else "measured too little"
        text = f"{place}: {names(row.title for row in first.front)} are {why} to be told apart, {times} a call"
    elif first.level:
        text = (
            f"{place}: {names(row.title for row in first.front)} are level, {times} a call: none is shown to be slower "
            f"than the fastest by more than {100 * SAME_BAND:.0f} %"
        )
    else:
        text = f"{place}: {first.best.title} is fastest, {times} a call{_against_baseline(contests)}"
    behind = [contest.behind[0] for contest in contests if contest.behind]
    if behind:
        titles = names(row.title for row, _ in behind)
        verb = "come" if " and " in titles else "comes"
        text += f"; next {verb} {titles}"
        claims = [claim for _, claim in behind]
        known = all(claim.says_speed for claim in claims)
        text += f" with {_times(claims, 'the time')}" if known else ", by how much is not known"
    return finding(topic, text, front)


def _against_baseline(contests: Sequence[Contest]) -> str:
    claims = [claim_of(contest.best) for contest in contests]
    if len(claims) == 1 or any(claim is None or claim.verdict != "faster" for claim in claims):
        return (
            f", {speed_text(claims[0])}" if len(claims) == 1 else ", but not at every batch known to beat the baseline"
        )
    return f", {_times([claim for claim in claims if claim], 'the speed of the baseline')}"


def _times(claims: Sequence[Claim], what: str) -> str:
    """One ratio or several, with all that their intervals hold."""
    low, high = min(claim.low or 0.0 for claim in claims), max(claim.high or 0.0 for claim in claims)
    held = f"99 % interval{'s' if len(claims) > 1 else ''} {interval_text(low, high)}"
    values = sorted({claim.value or 0.0 for claim in claims})
    told = " to ".join(unique(ratio_text(value, low, high) for value in (values[0], values[-1])))
    return f"{told} times {what} ({held})"


def _throughput(rows: Rows, scope: Scope) -> Iterator[Finding]:
    for series in split(model_only(rows), "model", "size", "device"):
        contest = most_images([row for row in series if usable(row)])
        if contest is None:
            continue
        rate = digits(contest.best.throughput_per_s or 0)
        text = f"{scope.place(contest.best)} {_at_batch(contest.best)} makes the most images a second, {rate}"
        if is_disturbed(claim_of(contest.best)):
            text += "; the times are too disturbed to say by how much"
        elif contest.level:
            text += f"; level with it ({LEVEL}): {names(_at_batch(row) for row in contest.level)}"
        yield finding("fastest", text, contest.front)


def _at_batch(row: Row) -> str:
    return f"{row.title} at batch {row.batch}"


def _memory(rows: Rows, scope: Scope) -> Iterator[Finding]:
    """At the least and at the most that the grid asks."""
    for series in split(model_only(rows), "model", "device"):
        known = [row for row in series if scarce_bytes(row) is not None and usable(row)]
        groups = sorted(split(known, "size", "batch"), key=lambda group: group[0].batch * group[0].pixels)
        for group in groups[:1] + groups[1:][-1:]:
            yield _about_memory(sorted(group, key=lambda row: scarce_bytes(row) or 0), scope)


def _about_memory(rows: Rows, scope: Scope) -> Finding:
    least, most = scarce_bytes(rows[0]) or 0, scarce_bytes(rows[-1]) or 0
    where = "of the GPU" if rows[0].device == "cuda" else "of its own"
    place = scope.place(rows[0], batches=[rows[0].batch])
    level = [row for row in rows if (scarce_bytes(row) or 0) <= (1 + MEMORY_LEVEL) * least]
    if len(rows) == 1:
        text = f"{place} {rows[0].title} needs {megabytes(least)} {where}"
    elif len(level) == len(rows):
        text = (
            f"{place} all {len(rows)} variants need the same memory within {100 * MEMORY_LEVEL:.0f} %, "
            f"{megabytes(least)} {where}"
        )
    else:
        verb = "need" if len(level) > 1 else "needs"
        text = f"{place} {names(row.title for row in level)} {verb} the least memory, {megabytes(least)} {where}"
        largest = [row for row in rows if (1 + MEMORY_LEVEL) * (scarce_bytes(row) or 0) >= most]
        verb = "need" if len(largest) > 1 else "needs"
        text += f"; {names(row.title for row in largest)} {verb} the most, {megabytes(most)}"
    return finding("memory", text, level)
