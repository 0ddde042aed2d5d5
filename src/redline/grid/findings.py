"""Who wins in a grid: one sentence a fact, none claiming more than its interval allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from redline.grid.contest import Contest, fastest, most_images, usable
from redline.grid.derive import GridRow, unique
from redline.grid.wording import Scope, digits, interval, megabytes, milliseconds, names, sentence, span
from redline.measurement.stats import Ratio

Topic = Literal["fastest", "memory", "fp16", "int8", "scaling", "loader", "constraint", "baseline", "caution"]
Rows = Sequence[GridRow]
#: What a process has for itself differs by about this from run to run.
MEMORY_LEVEL = 0.02


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


def model_only(rows: Rows) -> list[GridRow]:
    """The rows of one loader, for a model's own time does not ask where its images came from: ``dummy`` if it ran."""
    loaders = unique(row.loader for row in rows)
    chosen = "dummy" if "dummy" in loaders else next(iter(loaders), None)
    return [row for row in rows if row.loader == chosen]


def split(rows: Rows, *fields: str) -> list[list[GridRow]]:
    """The rows by those fields, in their order."""
    found: dict[tuple[object, ...], list[GridRow]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, name) for name in fields), []).append(row)
    return list(found.values())


def device_memory(row: GridRow) -> int | None:
    """The bytes that are scarce where it ran: the GPU's on ``cuda``, else the host's."""
    return row.device_bytes if row.device == "cuda" else row.host_bytes


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
    for _, same in groupby(contests, key=lambda c: [{row.variant for row in rows} for rows in (c.front, c.unsure)]):
        yield _about_winners(topic, list(same), scope, condition)


def _about_winners(topic: Topic, contests: Sequence[Contest], scope: Scope, condition: str) -> Finding:
    first = contests[0]
    batches = [contest.best.batch for contest in contests]
    place = scope.place(first.best, batches=batches) + condition
    times = " to ".join(unique(milliseconds(c.best.time_s or 0.0) for c in (first, contests[-1])))
    front = [row for contest in contests for row in contest.front]
    if not any((c.level, c.behind, c.unsure) != ((), (), ()) for c in contests):
        return finding(topic, f"{place}: {first.best.title} is the only one that counts, {times} a call", front)
    if first.level:
        text = (
            f"{place}: {names(row.title for row in first.front)} are level, {times} a call: "
            "the 99 % intervals of their ratios hold 1"
        )
    elif any(contest.unsure for contest in contests):
        text = f"{place}: {first.best.title} has the least median, {times} a call"
    else:
        text = f"{place}: {first.best.title} is fastest, {times} a call{_against_baseline(contests)}"
    behind = [contest.behind[0] for contest in contests if contest.behind]
    if behind:
        titles = names(row.title for row, _ in behind)
        verb = "come" if " and " in titles else "comes"
        text += f"; next {verb} {titles} with {_times([ratio for _, ratio in behind], 'the time')}"
    return finding(topic, text + _unsure(contests), front)


def _unsure(contests: Sequence[Contest]) -> str:
    others = [row.title for contest in contests for row in contest.unsure]
    return f"; rounds too few or too disturbed to tell it from {names(others)}" if others else ""


def _against_baseline(contests: Sequence[Contest]) -> str:
    best = [contest.best for contest in contests]
    if any(row.verdict == "baseline" for row in best):
        return ", the baseline itself"
    known = [
        Ratio(row.speedup, row.speedup_low, row.speedup_high)
        for row in best
        if row.speedup is not None and row.speedup_low is not None and row.speedup_high is not None
    ]
    if not known:
        return ""
    if any(ratio.verdict != "faster" for ratio in known):
        return ", but not at every batch beyond the noise against the baseline"
    return f", {_times(known, 'the speed of the baseline')}"


def _times(ratios: Sequence[Ratio], what: str) -> str:
    """One ratio or several, with all that their intervals hold."""
    low, high = min(ratio.low for ratio in ratios), max(ratio.high for ratio in ratios)
    held = interval(low, high) if len(ratios) == 1 else f"99 % intervals {low:.2f} to {high:.2f}"
    return f"{span(ratio.value for ratio in ratios)} times {what} ({held})"


def _throughput(rows: Rows, scope: Scope) -> Iterator[Finding]:
    for series in split(model_only(rows), "model", "size", "device"):
        contest = most_images([row for row in series if usable(row)])
        if contest is None:
            continue
        rate = digits(contest.best.throughput_per_s or 0)
        text = f"{scope.place(contest.best)} {_at_batch(contest.best)} makes the most images a second, {rate}"
        if contest.level:
            text += f"; level with it, as the intervals hold 1: {names(_at_batch(row) for row in contest.level)}"
        yield finding("fastest", text + _unsure([contest]), contest.front)


def _at_batch(row: GridRow) -> str:
    return f"{row.title} at batch {row.batch}"


def _memory(rows: Rows, scope: Scope) -> Iterator[Finding]:
    """At the least and at the most that the grid asks."""
    for series in split(model_only(rows), "model", "device"):
        known = [row for row in series if device_memory(row) is not None and usable(row)]
        groups = sorted(split(known, "size", "batch"), key=lambda group: group[0].batch * group[0].pixels)
        for group in groups[:1] + groups[1:][-1:]:
            yield _about_memory(sorted(group, key=lambda row: device_memory(row) or 0), scope)


def _about_memory(rows: Rows, scope: Scope) -> Finding:
    least, most = device_memory(rows[0]) or 0, device_memory(rows[-1]) or 0
    where = "of the GPU" if rows[0].device == "cuda" else "of its own"
    place = scope.place(rows[0], batches=[rows[0].batch])
    level = [row for row in rows if (device_memory(row) or 0) <= (1 + MEMORY_LEVEL) * least]
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
        largest = [row for row in rows if (1 + MEMORY_LEVEL) * (device_memory(row) or 0) >= most]
        verb = "need" if len(largest) > 1 else "needs"
        text += f"; {names(row.title for row in largest)} {verb} the most, {megabytes(most)}"
    return finding("memory", text, level)
