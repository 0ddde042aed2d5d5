"""Which variant to take: one rule, for a tune's recommendation, its finalists, and every goal of a bench.

Variants are level with the fastest unless they are shown to be slower by more than 5 %. Among level ones the gate's
margin decides, then the file's size, then memory, then the name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from redline.findings.claims import SAME_BAND, claim_of, speed_text
from redline.findings.contest import LEVEL, Contest, fastest, most_images, usable
from redline.findings.wording import Scope, digits, megabytes, milliseconds, model_only, names, share, split
from redline.study.rows import Row

#: What a process has for itself differs by about this from run to run.
MEMORY_LEVEL = 0.02
#: Harm that differs by less is the same.
_SAME_HARM = 1e-4
_WHY = (
    "it changes the fewest answers",
    "its file is the smallest",
    "it needs the least memory",
    "its name comes first, as nothing else tells them apart",
)
RULE = (
    f"variants that are not shown to be slower than the fastest by more than {100 * SAME_BAND:.0f} % are level; among "
    "them the gate's margin decides, then the file's size"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen, and by what.

    Attributes:
        row: What to take.
        against: What it was held against: the fastest if that is another, else the next; None where it is alone.
        level: All that are level with the fastest.
        why: What decided among level ones; None where nothing had to.
    """

    row: Row
    against: Row | None
    level: tuple[Row, ...]
    why: str | None


def finalists(rows: Sequence[Row], objective: str) -> tuple[Row, ...]:
    """Who of a group is measured again in fresh processes: the chosen one first, then what it is held against."""
    chosen = choose(rows, objective)
    if chosen is None:
        return ()
    return tuple(row for row in (chosen.row, chosen.against) if row is not None and not row.is_baseline)


def choose(rows: Sequence[Row], objective: str) -> Choice | None:
    """The best of one group's rows for an objective; None where none answers as it should.

    Where rows were confirmed, only those are chosen among: what was said of the others is what chose them.
    """
    good = [row for row in rows if usable(row) and not row.control]
    confirmed = [row for row in good if row.confirmed]
    contest = fastest(confirmed or good)
    if contest is None:
        return None
    if objective in ("memory", "size"):
        return _least(good, objective)
    row, why = _decide(contest.front)
    others = [other for other in sorted(confirmed or good, key=lambda r: r.mean_s or math.inf) if other is not row]
    against = contest.best if contest.best is not row else next((o for o in others if not o.is_baseline), None)
    return Choice(row=row, against=against, level=contest.front, why=why)


def harm(row: Row) -> float:
    """What the variant costs in answers: accuracy lost, else answers changed, else the centred error; 0 is none."""
    if row.accuracy_drop is not None:
        return max(row.accuracy_drop, 0.0)
    if row.top1_agreement is not None:
        return 1.0 - row.top1_agreement
    return 1.0 - row.cosine if row.cosine is not None else math.inf


def scarce_bytes(row: Row) -> int | None:
    """The bytes that are scarce where it ran: the GPU's on ``cuda``, else the host's."""
    return row.device_bytes if row.device == "cuda" else row.host_bytes


def _decide(level: Sequence[Row]) -> tuple[Row, str | None]:
    """The one to take of level rows, and the first criterion by which it is before the next; None where it is alone."""
    least = min(map(harm, level))

    def rank(row: Row) -> tuple[float, float, float, str]:
        lost = harm(row)
        return (
            0.0 if lost - least <= _SAME_HARM else lost,
            _known(row.size_bytes),
            _known(scarce_bytes(row)),
            row.variant,
        )

    order = sorted(level, key=rank)
    if len(order) == 1:
        return order[0], None
    told = zip(_WHY, rank(order[0]), rank(order[1]), strict=True)
    return order[0], next((why for why, mine, other in told if mine != other), _WHY[-1])


def _least(rows: Sequence[Row], objective: str) -> Choice:
    def cost(row: Row) -> float:
        return _known(scarce_bytes(row) if objective == "memory" else row.size_bytes)

    least = min(map(cost, rows))
    slack = MEMORY_LEVEL if objective == "memory" else 0.0
    level = [row for row in rows if cost(row) <= (1 + slack) * least]
    contest = fastest(level)
    row = _decide(contest.front)[0] if contest else level[0]
    speedy = fastest(rows)
    against = speedy.best if speedy and speedy.best is not row else None
    return Choice(row=row, against=against, level=tuple(level), why=None)


def _known(value: int | None) -> float:
    return math.inf if value is None else float(value)


def pareto_front(rows: Sequence[Row]) -> tuple[str, ...]:
    """Variants that no other beats in latency, memory, size and answers at once, fastest first.

    Only variants that ran and passed the gate take part.
    """
    candidates = [row for row in rows if usable(row) and row.passed and not row.control]
    front = [row for row in candidates if not any(_dominates(other, row) for other in candidates)]
    return tuple(row.variant for row in sorted(front, key=lambda row: row.mean_s or 0.0))


_AXES: tuple[Callable[[Row], float], ...] = (
    lambda row: row.mean_s or math.inf,
    lambda row: _known(scarce_bytes(row)),
    lambda row: _known(row.size_bytes),
    harm,
)


def _dominates(a: Row, b: Row) -> bool:
    pairs = [(axis(a), axis(b)) for axis in _AXES]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to put into production for one goal, such as ``lowest latency at batch 1 on cpu``."""

    goal: str
    variant: str
    device: str
    cell: str
    text: str


def recommend(rows: Sequence[Row]) -> tuple[Recommendation, ...]:
    """One recommendation for each goal, device, model and size; only of variants that answer as they should."""
    timed = [row for row in rows if row.time_s is not None and not row.control]
    scope = Scope.of(timed)
    return tuple(
        found for series in split(model_only(timed), "model", "size", "device") for found in _for_series(series, scope)
    )


def _for_series(series: Sequence[Row], scope: Scope) -> Iterator[Recommendation]:
    good = [row for row in series if usable(row)]
    if not good:
        return
    smallest = min(row.batch for row in good)
    least = [row for row in good if row.batch == smallest]
    chosen = choose(least, "latency")
    if chosen is not None:
        refused = [row for row in series if row.batch == smallest and not usable(row)]
        goal = f"lowest latency at batch {smallest} {_where(chosen.row, scope)}"
        yield _recommendation(goal, chosen.row, _about_latency(chosen, refused))
    contest = most_images(good)
    if contest is not None:
        smaller = min(row.batch for row in contest.front)
        row, _ = _decide([row for row in contest.front if row.batch == smaller])
        yield _recommendation(f"most images a second {_where(row, scope)}", row, _about_throughput(row, contest))
    known = [row for row in least if scarce_bytes(row) is not None]
    if known:
        found = _least(known, "memory")
        goal = f"least memory at batch {smallest} {_where(found.row, scope)}"
        yield _recommendation(goal, found.row, _about_memory(found))


def _where(row: Row, scope: Scope) -> str:
    text = f"on {row.device}"
    if scope.models:
        text += f" for {row.model}"
    return f"{text} at {row.size}" if scope.sizes else text


def _recommendation(goal: str, row: Row, text: str) -> Recommendation:
    price = [] if row.top1_agreement in (None, 1.0) else [f"{share(row.top1_agreement or 0)} of top-1 answers stay"]
    if row.fell_back:
        price.append(f"it was asked for {row.requested} and ran {row.layers_text}")
    end = f" ({'; '.join(price)})." if price else "."
    return Recommendation(goal=goal, variant=row.variant, device=row.device, cell=row.cell, text=f"{text}{end}")


def _about_latency(chosen: Choice, refused: Sequence[Row]) -> str:
    row = chosen.row
    text = f"{row.title}: {milliseconds(row.time_s or 0)} a call"
    if row.clock == "device" and row.latency_s is not None:
        text += f" on the device, {milliseconds(row.latency_s)} from host to host"
    text += f", {speed_text(claim_of(row))}"
    text += _ties(chosen, lambda other: other.title)
    wrong = [other.title for other in refused if (other.time_s or 0) < (row.time_s or 0)]
    return f"{text}; faster, but not answering as the baseline does: {names(wrong)}" if wrong else text


def _ties(chosen: Choice, name: Callable[[Row], str]) -> str:
    others = [name(other) for other in chosen.level if other is not chosen.row]
    if not others:
        return ""
    return f"; level with {names(others)} ({LEVEL}), and taken as {chosen.why}"


def _about_throughput(row: Row, contest: Contest) -> str:
    def name(other: Row) -> str:
        return f"{other.title} at batch {other.batch}"

    text = f"{name(row)}: {digits(row.throughput_per_s or 0)} images a second"
    others = [name(other) for other in contest.front if other is not row]
    return f"{text}; level with {names(others)} ({LEVEL}), and taken for its smaller batch" if others else text


def _about_memory(found: Choice) -> str:
    text = f"{found.row.title}: {megabytes(scarce_bytes(found.row) or 0)}"
    others = [other.title for other in found.level if other is not found.row]
    return f"{text}; within {100 * MEMORY_LEVEL:.0f} % of it: {names(others)}" if others else text
