"""Two runs of the grid side by side: what differs in their conditions, and which cells became faster or slower."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from redline.core.errors import InputError
from redline.grid.conditions import Difference, conditions_of, differences_of, same_machine
from redline.grid.derive import GridRow, unique
from redline.grid.rows import GridStudy
from redline.grid.unpaired import LogRatio, process_spread, unpaired_ratio
from redline.grid.wording import cells, names
from redline.measurement.stats import LAYOUT_EFFECT

Verdict = Literal["faster", "slower", "no difference"]
#: Settings that decide what a time means; how many rounds and repeats there are only decides how well it is known.
_MEANING = ("threads", "window_s", "warmup_s")
#: Without a control nothing tells a slower program from a slower hour of the machine: this much is allowed for.
WITHOUT_CONTROL = 0.05
#: Of runs without repeats nobody knows how far two processes of one file lie apart: three times what is allowed for
#: where one run pairs them.
UNREPEATED = 3 * LAYOUT_EFFECT
#: From this half width on, an interval hides what most users look for.
_WIDE = 0.1
Key = tuple[str, str, str, str, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange:
    """One cell in both runs: its time afterwards over its time before, with a 99 % interval.

    Attributes:
        verdict: None where too few rounds were measured to say.
        controlled: Whether the interval holds what the control cells tell of the two runs.
        host_memory: Bytes afterwards over bytes before; None where either is unknown.
        device_memory: The same on the GPU.
        note: What else changed in that cell, such as its precision.
    """

    before: GridRow
    after: GridRow
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict | None
    controlled: bool
    host_memory: float | None
    device_memory: float | None
    note: str | None = None

    @property
    def cell(self) -> str:
        """Its name, the same in both runs."""
        return self.after.cell

    def to_json(self) -> dict[str, Any]:
        """A JSON value; the samples stay in the results files."""
        found = {name: getattr(self, name) for name in _CHANGE_FIELDS}
        return {**found, "before_s": self.before.time_s, "after_s": self.after.time_s}


_CHANGE_FIELDS = (
    "cell",
    "ratio",
    "low",
    "high",
    "verdict",
    "controlled",
    "host_memory",
    "device_memory",
    "note",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs, cell by cell.

    Attributes:
        differences: Conditions that differ: machine, versions, settings.
        cells: Those measured in both, in the order of the run afterwards.
        only_before: Cells that were measured in the first run alone.
        only_after: Cells that were measured in the second run alone.
        notes: How the intervals were made.
        warnings: What limits the reading of the ratios.
    """

    before: GridStudy
    after: GridStudy
    differences: tuple[Difference, ...]
    cells: tuple[CellChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        lists = {name: list(getattr(self, name)) for name in ("only_before", "only_after", "notes", "warnings")}
        return {
            "differences": [asdict(difference) for difference in self.differences],
            "cells": [change.to_json() for change in self.cells],
            **lists,
        }


def compare_grids(before: GridStudy, after: GridStudy) -> Comparison:
    """Set two runs side by side.

    The runs were not interleaved, so a ratio of times also holds the difference between two hours of a machine, or two
    boots of it. The baseline's cells are the control: a cell's interval spans both its plain ratio
    (:func:`redline.grid.unpaired.unpaired_ratio`) and the change of its speed-up, which was paired with the baseline
    within each run and in which whatever hit both alike cancels out. So a cell is called faster or slower only where
    both say so. The baseline's own cells have the other variants of their group as a control, by the median of
    their ratios. Where there is no control, or on another processor or GPU, where the baseline is expected to change,
    the plain ratio stands: without a control, on the same machine, widened by :data:`WITHOUT_CONTROL`. Where neither
    run has repeats, every interval is widened by :data:`UNREPEATED`.

    Raises:
        InputError: the runs cannot be compared; says why.
    """
    _refuse(before, after)
    was, now = _measured(before), _measured(after)
    common = [key for key in now if key in was]
    if not common:
        raise InputError(
            "the two runs have no cell in common: expected the same model, variant, device, loader, batch and size "
            f"measured in both; got {names(before.variants) or 'nothing'} and {names(after.variants) or 'nothing'}"
        )
    pairs = [(was[key], now[key]) for key in common]
    changes = _changes(pairs, _Grounds.of(before, after))
    return Comparison(
        before=before,
        after=after,
        differences=differences_of(before, after),
        cells=tuple(changes),
        only_before=tuple(row.cell for key, row in was.items() if key not in now),
        only_after=tuple(row.cell for key, row in now.items() if key not in was),
        notes=_notes(changes),
        warnings=_warnings(before, after, changes),
    )


def regressions(comparison: Comparison, threshold: float) -> tuple[CellChange, ...]:
    """The cells that became slower by more than ``threshold`` with their whole interval, the worst first.

    Args:
        comparison: From :func:`compare_grids`.
        threshold: 0.05 for 5 %.

    Raises:
        InputError: a threshold below 0.
    """
    if not 0 <= threshold < math.inf:
        raise InputError(f"got threshold {threshold}, expected a share such as 0.05, not below 0")
    slower = [change for change in comparison.cells if change.low is not None and change.low > 1 + threshold]
    return tuple(sorted(slower, key=lambda change: -(change.low or 0.0)))


def _key(row: GridRow) -> Key:
    return row.model, row.variant, row.device, row.loader, row.batch, row.size


def _measured(study: GridStudy) -> dict[Key, GridRow]:
    return {_key(row): row for row in study.rows if row.time_s is not None}


def _refuse(before: GridStudy, after: GridStudy) -> None:
    for which, study in (("first", before), ("second", after)):
        if study.run.get("purpose") != "bench":
            raise InputError(f"the {which} run is that of a tune; expected two runs of redline bench")
    digests = [
        {model["name"]: model.get("sha256") for model in study.run.get("models", ())} for study in (before, after)
    ]
    for name in digests[0].keys() & digests[1].keys():
        was, now = digests[0][name], digests[1][name]
        if was and now and was != now:
            raise InputError(
                f"model {name} has sha256 {was[:12]}… in the first run and {now[:12]}… in the second: its weights or "
                "graph are others, so a difference in time would say nothing about the software; bench the same model"
            )
    settings = [study.run.get("settings", {}) for study in (before, after)]
    cores = [conditions_of(study)["usable cores"] for study in (before, after)]
    for name in _MEANING:
        was, now = settings[0].get(name), settings[1].get(name)
        # A machine with other cores takes other threads: that is the comparison, not a mistake in it.
        if was != now and (name != "threads" or cores[0] == cores[1]):
            raise InputError(
                f"{name} was {was} in the first run and is {now} in the second: a time means something else there; "
                "run the second again with the first one's settings"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grounds:
    """On which devices the two runs had the same machine, and the same variant as their baseline."""

    same_machine: frozenset[str]
    same_baseline: frozenset[str]

    @classmethod
    def of(cls, before: GridStudy, after: GridStudy) -> _Grounds:
        devices = {*before.devices, *after.devices}
        named = [study.run.get("settings", {}).get("baseline") or {} for study in (before, after)]
        return cls(
            same_machine=frozenset(device for device in devices if same_machine(before, after, device)),
            same_baseline=frozenset(device for device in devices if named[0].get(device) == named[1].get(device)),
        )

    def control(self, device: str) -> bool:
        """Whether the baseline is expected to take the same time in both."""
        return device in self.same_machine & self.same_baseline


def _changes(pairs: Sequence[tuple[GridRow, GridRow]], grounds: _Grounds) -> list[CellChange]:
    spreads = {
        device: process_spread(row for pair in pairs for row in pair if row.device == device)
        for device in unique(before.device for before, _ in pairs)
    }
    plain = {
        before.cell: unpaired_ratio(before.windows_s, after.windows_s, spread=spreads[before.device])
        for before, after in pairs
        if before.clock == after.clock
    }
    changes = []
    for before, after in pairs:
        ratio = plain.get(before.cell)
        control = None
        if ratio is not None and grounds.control(before.device):
            control = _with_control(before, after, ratio, pairs, plain)
        if ratio is not None and control is None and before.device in grounds.same_machine:
            ratio = _wider(ratio, WITHOUT_CONTROL)
        if spreads[before.device] is None:
            ratio, control = _wider(ratio, UNREPEATED), _wider(control, UNREPEATED)
        changes.append(_change(before, after, ratio, control))
    return changes


def _wider(ratio: LogRatio | None, allowance: float) -> LogRatio | None:
    return LogRatio(ratio.centre, ratio.half_width + allowance) if ratio else None


def _change(before: GridRow, after: GridRow, ratio: LogRatio | None, control: LogRatio | None) -> CellChange:
    low = high = verdict = None
    if ratio is not None:
        both = [ratio, control] if control else [ratio]
        low, high = min(r.low for r in both), max(r.high for r in both)
        verdict = _verdict(low, high)
    return CellChange(
        before=before,
        after=after,
        ratio=ratio.value if ratio else None,
        low=low,
        high=high,
        verdict=verdict,
        controlled=control is not None,
        host_memory=_over(before.host_bytes, after.host_bytes),
        device_memory=_over(before.device_bytes, after.device_bytes),
        note=_note(before, after),
    )


def _verdict(low: float, high: float) -> Verdict:
    if low > 1:
        return "slower"
    return "faster" if high < 1 else "no difference"


def _over(before: int | None, after: int | None) -> float | None:
    return after / before if before and after else None


def _note(before: GridRow, after: GridRow) -> str | None:
    told = []
    if before.clock != after.clock:
        told.append(f"timed on the {before.clock} before and on the {after.clock} now: not compared")
    if before.layers_text != after.layers_text:
        told.append(f"ran {before.layers_text} before and {after.layers_text} now")
    if before.elsewhere != after.elsewhere:
        told.append(f"on other providers before: {before.elsewhere or 'none'}, now: {after.elsewhere or 'none'}")
    return "; ".join(told) or None


def _with_control(
    before: GridRow,
    after: GridRow,
    ratio: LogRatio,
    pairs: Iterable[tuple[GridRow, GridRow]],
    plain: Mapping[str, LogRatio | None],
) -> LogRatio | None:
    """The ratio with what the control cells changed by taken out; None without a control."""
    if before.verdict == "baseline" or after.verdict == "baseline":
        return _against_others(before, ratio, pairs, plain)
    widths = [_speedup_width(row) for row in (before, after)]
    if widths[0] is None or widths[1] is None or not before.speedup or not after.speedup:
        return None
    # Two independent intervals: their half widths add in quadrature.
    return LogRatio(math.log(before.speedup / after.speedup), math.hypot(widths[0], widths[1]))


def _speedup_width(row: GridRow) -> float | None:
    return math.log(row.speedup_high / row.speedup_low) / 2 if row.speedup_high and row.speedup_low else None


def _against_others(
    baseline: GridRow,
    ratio: LogRatio,
    pairs: Iterable[tuple[GridRow, GridRow]],
    plain: Mapping[str, LogRatio | None],
) -> LogRatio | None:
    others = [
        other.centre
        for row, _ in pairs
        if row.cell != baseline.cell and _point(row) == _point(baseline) and (other := plain.get(row.cell))
    ]
    return LogRatio(ratio.centre - median(others), ratio.half_width) if others else None


def _point(row: GridRow) -> tuple[str, str, str, int, str]:
    return row.model, row.device, row.loader, row.batch, row.size


def _notes(changes: Sequence[CellChange]) -> tuple[str, ...]:
    told = []
    for device, mine in _compared_by_device(changes):
        if any(change.controlled for change in mine):
            base = [c.ratio - 1 for c in mine if c.ratio and "baseline" in (c.before.verdict, c.after.verdict)]
            moved = f", which changed by {_percents(base)} itself," if base else ""
            told.append(
                f"on {device} the baseline{moved} is the control: intervals hold the ratio with and without that"
            )
    compared = sum(change.verdict is not None for change in changes)
    if compared:
        told.append(
            f"of {compared} cells with 99 % intervals, about {math.ceil(compared / 100)} may differ by accident"
        )
    return tuple(told)


def _warnings(before: GridStudy, after: GridStudy, changes: Sequence[CellChange]) -> tuple[str, ...]:
    told = []
    for device, mine in _compared_by_device(changes):
        lacking = [change for change in mine if not change.controlled]
        if not same_machine(before, after, device):
            part = "GPU" if device == "cuda" else "processor, or how much of it may be used,"
            told.append(f"on {device} the {part} is another: the ratios are those of machines and software together")
        elif lacking:
            wide = f"{100 * WITHOUT_CONTROL:.0f} %"
            told.append(
                f"on {device} {cells(len(lacking), len(mine))} have no control: intervals are {wide} wider there"
            )
        if process_spread(row for change in mine for row in (change.before, change.after)) is None:
            wide = f"{100 * UNREPEATED:.0f} %"
            told.append(f"on {device} neither run was repeated in new processes: intervals are {wide} wider")
        widths = [math.sqrt(change.high / change.low) - 1 for change in mine if change.high and change.low]
        if median(widths) > _WIDE:
            text = f"on {device} half of the intervals reach {100 * median(widths):.0f} % or more either way"
            told.append(f"{text}: smaller changes cannot be seen")
    lost = sum(change.verdict is None for change in changes)
    if lost:
        told.append(f"{cells(lost, len(changes))} could not be compared: too few rounds, or two clocks")
    for name in unique(model["name"] for study in (before, after) for model in study.run.get("models", ())):
        models = [m for study in (before, after) for m in study.run.get("models", ()) if m["name"] == name]
        if len(models) == 2 and not all(model.get("sha256") for model in models):
            told.append(f"{name} has no digest in both runs: that it is the same model is taken on trust")
    return tuple(told)


def _compared_by_device(changes: Sequence[CellChange]) -> list[tuple[str, list[CellChange]]]:
    devices = unique(change.after.device for change in changes if change.verdict is not None)
    return [(device, [c for c in changes if c.after.device == device and c.verdict is not None]) for device in devices]


def _percents(shares: Sequence[float]) -> str:
    """Changes as a range.

    >>> _percents([0.012]), _percents([-0.004, 0.03])
    ('+1.2 %', '-0.4 to +3.0 %')
    """
    low, high = (f"{100 * value:+.1f}" for value in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"
