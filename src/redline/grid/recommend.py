"""What to put into production, for each goal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from redline.grid.contest import Contest, fastest, most_images, undecided, usable
from redline.grid.derive import GridRow
from redline.grid.findings import MEMORY_LEVEL, Rows, device_memory, model_only, split
from redline.grid.wording import Scope, digits, interval, megabytes, milliseconds, names, share


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to put into production for one goal, such as ``lowest latency at batch 1 on cpu``."""

    goal: str
    variant: str
    device: str
    cell: str
    text: str


def recommend(rows: Rows) -> tuple[Recommendation, ...]:
    """One recommendation for each goal, device, model and size; only of variants that answer as they should."""
    timed = [row for row in rows if row.time_s is not None]
    scope = Scope.of(timed)
    return tuple(
        found for series in split(model_only(timed), "model", "size", "device") for found in _for_series(series, scope)
    )


def _for_series(series: Rows, scope: Scope) -> Iterator[Recommendation]:
    good = [row for row in series if usable(row)]
    if not good:
        return
    smallest = min(row.batch for row in good)
    least = [row for row in good if row.batch == smallest]
    contest = fastest(least)
    if contest is not None:
        row = _choose(contest.front)
        refused = [other for other in series if other.batch == smallest and not usable(other)]
        goal = f"lowest latency at batch {smallest} {_where(row, scope)}"
        yield _recommendation(goal, row, _about_latency(row, contest, refused))
    contest = most_images(good)
    if contest is not None:
        row = _choose(contest.front)
        yield _recommendation(f"most images a second {_where(row, scope)}", row, _about_throughput(row, contest))
    known = [row for row in least if device_memory(row) is not None]
    if known:
        row, text = _least_memory(known)
        yield _recommendation(f"least memory at batch {smallest} {_where(row, scope)}", row, text)


def _where(row: GridRow, scope: Scope) -> str:
    text = f"on {row.device}"
    if scope.models:
        text += f" for {row.model}"
    return f"{text} at {row.size}" if scope.sizes else text


def _recommendation(goal: str, row: GridRow, text: str) -> Recommendation:
    price = [] if row.top1_agreement in (None, 1.0) else [f"{share(row.top1_agreement or 0)} of top-1 answers stay"]
    if row.fell_back:
        price.append(f"it was asked for {row.requested} and ran {row.layers_text}")
    end = f" ({'; '.join(price)})." if price else "."
    return Recommendation(goal=goal, variant=row.variant, device=row.device, cell=row.cell, text=f"{text}{end}")


def _choose(level: Sequence[GridRow]) -> GridRow:
    """Among equals: the smaller batch, then FP32, then the baseline, then the least memory."""
    return min(
        level,
        key=lambda row: (
            row.batch,
            row.precision != "fp32",
            row.verdict != "baseline",
            device_memory(row) is None,
            device_memory(row) or 0,
        ),
    )


def _about_latency(row: GridRow, contest: Contest, refused: Rows) -> str:
    text = f"{row.title}: {milliseconds(row.time_s or 0)} a call"
    if row.clock == "device" and row.latency_s is not None:
        text += f" on the device, {milliseconds(row.latency_s)} from host to host"
    text += _speed(row)
    text += _ties(row, contest, lambda other: other.title)
    wrong = [other.title for other in refused if (other.time_s or 0) < (row.time_s or 0)]
    return f"{text}; faster, but not answering as the baseline does: {names(wrong)}" if wrong else text


def _speed(row: GridRow) -> str:
    if row.speedup is None or row.speedup_low is None or row.speedup_high is None:
        return ", the baseline itself" if row.verdict == "baseline" else ""
    held = interval(row.speedup_low, row.speedup_high)
    if undecided(row.speedup_low, row.speedup_high):
        return f", too disturbed to compare with the baseline ({held} times its speed)"
    if row.verdict == "no difference":
        return f", no different from the baseline ({held} times its speed)"
    return f", {row.speedup:.2f} times the baseline's speed ({held})"


def _about_throughput(row: GridRow, contest: Contest) -> str:
    text = f"{row.title} at batch {row.batch}: {digits(row.throughput_per_s or 0)} images a second"
    return text + _ties(row, contest, lambda other: f"{other.title} at batch {other.batch}")


def _ties(row: GridRow, contest: Contest, name: Callable[[GridRow], str]) -> str:
    text = ""
    if contest.unsure:
        text = f"; rounds too few or too disturbed to tell it from {names(map(name, contest.unsure))}"
    others = [name(other) for other in contest.front if other is not row]
    if not others:
        return text
    why = _reason(row, contest.front)
    return f"{text}; level with {names(others)}: the intervals of their ratios hold 1, so it is taken for {why}"


def _reason(row: GridRow, front: Sequence[GridRow]) -> str:
    """Why it, among equals; the first criterion of :func:`_choose` that tells it from any other."""
    others = [other for other in front if other is not row]
    if any(other.batch > row.batch for other in others):
        return "its smaller batch"
    if row.precision == "fp32" and any(other.precision != "fp32" for other in others):
        return "its precision"
    if row.verdict == "baseline":
        return "being the baseline"
    memory = [device_memory(other) for other in others]
    mine = device_memory(row)
    if mine is not None and all(value is not None and value > mine for value in memory):
        return "needing the least memory"
    return "its place in the table alone"


def _least_memory(rows: Rows) -> tuple[GridRow, str]:
    """The fastest of those whose memory is level with the least."""
    least = min(device_memory(row) or 0 for row in rows)
    level = [row for row in rows if (device_memory(row) or 0) <= (1 + MEMORY_LEVEL) * least]
    contest = fastest(level)
    row = _choose(contest.front) if contest else level[0]
    text = f"{row.title}: {megabytes(device_memory(row) or 0)}"
    others = [other.title for other in level if other is not row]
    if others:
        text += f"; within {100 * MEMORY_LEVEL:.0f} % of it: {names(others)}"
        if contest and not contest.unsure:
            text += ", none of them faster"
    return row, text
