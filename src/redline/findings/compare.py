"""Two runs side by side: what differs in their conditions, and which cells became faster or slower."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from redline.core.errors import InputError
from redline.core.plain import Json, JsonObject, to_plain
from redline.findings.claims import Claim, judge
from redline.findings.conditions import Difference, conditions_of, differences_of, same_machine
from redline.findings.wording import cells, names, unique
from redline.measurement.stats import Ratio, ratio_unpaired
from redline.study.rows import Row, Study

#: Settings that decide what a time means; how many rounds and processes there are only decides how well it is known.
_MEANING = ("threads", "window_s", "warmup_s")
#: Without a control nothing tells a slower program from a slower hour of the machine: this much is allowed for.
WITHOUT_CONTROL = 0.05
#: Of runs of one process nobody knows how far two processes of one file lie apart: this much is allowed for.
UNREPEATED = 0.03
#: From this half width on, an interval hides what most users look for.
_WIDE = 0.1
Key = tuple[str, tuple[str, str, str, int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange:
    """One cell in both runs.

    Attributes:
        claim: What may be said of how many times faster it is afterwards.
        controlled: Whether the interval spans what the control cells tell of the two runs.
        host_memory: Bytes afterwards over bytes before; None where either is unknown.
        device_memory: The same on the GPU.
        note: What else changed in that cell, such as its precision or its runtime's version.
    """

    before: Row
    after: Row
    claim: Claim | None
    controlled: bool
    host_memory: float | None
    device_memory: float | None
    note: str | None = None

    @property
    def cell(self) -> str:
        """Its name, the same in both runs."""
        return self.after.cell

    @property
    def time_ratio(self) -> Ratio | None:
        """Its time afterwards over its time before."""
        claim = self.claim
        if claim is None or not claim.value or not claim.low or not claim.high:
            return None
        return Ratio(1 / claim.value, 1 / claim.high, 1 / claim.low, claim.processes)

    def to_json(self) -> Json:
        """A JSON value; the samples stay in the results files."""
        return to_plain(
            {
                "cell": self.cell,
                "time_ratio": self.time_ratio,
                "claim": self.claim,
                "controlled": self.controlled,
                "host_memory": self.host_memory,
                "device_memory": self.device_memory,
                "note": self.note,
                "before_s": self.before.time_s,
                "after_s": self.after.time_s,
            }
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

    before: Study
    after: Study
    differences: tuple[Difference, ...]
    cells: tuple[CellChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """A JSON value."""
        lists = {name: list(getattr(self, name)) for name in ("only_before", "only_after", "notes", "warnings")}
        cells = [change.to_json() for change in self.cells]
        return {"differences": to_plain(self.differences), "cells": cells, **lists}


def compare_studies(before: Study, after: Study) -> Comparison:
    """Set two runs side by side.

    The runs were not interleaved, so a ratio also contains the difference between two hours of a machine, or two boots
    of it. The baseline's cells are the control: a cell's interval spans both its plain ratio (processes of one run
    against processes of the other) and the change of its speed-up, which was paired with the baseline within each run
    and in which whatever hit both alike cancels out. So a cell is called faster or slower only where both say so. The
    baseline's own cells have the other variants of their point as a control, by the median of their ratios. Where there
    is no control, or on another processor or GPU, where the baseline is expected to change, the plain ratio stands:
    without a control, on the same machine, widened by :data:`WITHOUT_CONTROL`.

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
        comparison: From :func:`compare_studies`.
        threshold: 0.05 for 5 %.

    Raises:
        InputError: a threshold below 0.
    """
    if not 0 <= threshold < math.inf:
        raise InputError(f"got threshold {threshold}, expected a share such as 0.05, not below 0")
    found = [(ratio.low, change) for change in comparison.cells if (ratio := change.time_ratio)]
    slower = [(low, change) for low, change in found if low > 1 + threshold]
    return tuple(change for _, change in sorted(slower, key=lambda pair: -pair[0]))


def _key(row: Row) -> Key:
    return row.variant, row.point


def _measured(study: Study) -> dict[Key, Row]:
    return {_key(row): row for row in study.rows if row.time_s is not None and not row.control}


def _refuse(before: Study, after: Study) -> None:
    digests = [{model.name: model.sha256 for model in study.run.models} for study in (before, after)]
    for name in digests[0].keys() & digests[1].keys():
        was, now = digests[0][name], digests[1][name]
        if was and now and was != now:
            raise InputError(
                f"model {name} has sha256 {was[:12]}… in the first run and {now[:12]}… in the second: its weights or "
                "graph are others, so a difference in time would say nothing about the software; bench the same model"
            )
    cores = [conditions_of(study)["usable cores"] for study in (before, after)]
    for name in _MEANING:
        was, now = (getattr(study.run.settings, name) for study in (before, after))
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
    def of(cls, before: Study, after: Study) -> _Grounds:
        devices = {*before.devices, *after.devices}
        named = [study.run.baselines for study in (before, after)]
        return cls(
            same_machine=frozenset(device for device in devices if same_machine(before, after, device)),
            same_baseline=frozenset(device for device in devices if named[0].get(device) == named[1].get(device)),
        )

    def control(self, device: str) -> bool:
        """Whether the baseline is expected to take the same time in both."""
        return device in self.same_machine & self.same_baseline


def _plain(before: Row, after: Row) -> Ratio | None:
    """How many times faster it is afterwards, by the processes of both runs alone."""
    if before.clock != after.clock:
        return None
    sides = [[process.means_s for process in row.processes] for row in (before, after)]
    ratio = ratio_unpaired(sides[0], sides[1])
    few = ratio is not None and ratio.processes < 2
    return ratio.wider(UNREPEATED) if ratio is not None and few else ratio


def _changes(pairs: Sequence[tuple[Row, Row]], grounds: _Grounds) -> list[CellChange]:
    plain = {before.cell: _plain(before, after) for before, after in pairs}
    changes = []
    for before, after in pairs:
        ratio = plain[before.cell]
        control = None
        if ratio is not None and grounds.control(before.device):
            control = _with_control(before, after, ratio, pairs, plain)
        if ratio is not None and control is None and before.device in grounds.same_machine:
            ratio = ratio.wider(WITHOUT_CONTROL)
        changes.append(_change(before, after, ratio, control))
    return changes


def _change(before: Row, after: Row, ratio: Ratio | None, control: Ratio | None) -> CellChange:
    claim = None
    if ratio is not None:
        claim = judge(ratio.spanning(control) if control else ratio)
    return CellChange(
        before=before,
        after=after,
        claim=claim,
        controlled=control is not None,
        host_memory=_over(before.host_bytes, after.host_bytes),
        device_memory=_over(before.device_bytes, after.device_bytes),
        note=_note(before, after),
    )


def _over(before: int | None, after: int | None) -> float | None:
    return after / before if before and after else None


def _note(before: Row, after: Row) -> str | None:
    told = []
    if before.clock != after.clock:
        told.append(f"timed on the {before.clock} before and on the {after.clock} now: not compared")
    if before.layers_text != after.layers_text:
        told.append(f"ran {before.layers_text} before and {after.layers_text} now")
    if before.elsewhere != after.elsewhere:
        told.append(f"on other providers before: {before.elsewhere or 'none'}, now: {after.elsewhere or 'none'}")
    for name in unique([*before.versions, *after.versions]):
        was, now = before.versions.get(name), after.versions.get(name)
        if was and now and was != now:
            told.append(f"{name} {was} before and {now} now")
    return "; ".join(told) or None


def _with_control(
    before: Row,
    after: Row,
    ratio: Ratio,
    pairs: Iterable[tuple[Row, Row]],
    plain: Mapping[str, Ratio | None],
) -> Ratio | None:
    """The ratio with what the control cells changed by taken out; None without a control."""
    if before.is_baseline or after.is_baseline:
        return _against_others(before, ratio, pairs, plain)
    if before.ratio is None or after.ratio is None:
        return None
    return after.ratio.over(before.ratio)


def _against_others(
    baseline: Row, ratio: Ratio, pairs: Iterable[tuple[Row, Row]], plain: Mapping[str, Ratio | None]
) -> Ratio | None:
    others = [
        math.log(other.value)
        for row, _ in pairs
        if row.cell != baseline.cell and row.point == baseline.point and (other := plain.get(row.cell))
    ]
    if not others:
        return None
    return Ratio.of_log(math.log(ratio.value) - median(others), ratio.half_width, ratio.processes)


def _notes(changes: Sequence[CellChange]) -> tuple[str, ...]:
    told = []
    for device, mine in _compared_by_device(changes):
        if any(change.controlled for change in mine):
            base = [c.time_ratio.value - 1 for c in mine if c.time_ratio and c.after.is_baseline]
            moved = f", whose time changed by {_percents(base)} itself," if base else ""
            told.append(
                f"on {device} the baseline{moved} is the control: intervals contain the ratio with and without that"
            )
    compared = sum(change.claim is not None for change in changes)
    if compared:
        told.append(
            f"of {compared} cells with 99 % intervals, about {math.ceil(compared / 100)} may differ by accident"
        )
    return tuple(told)


def _warnings(before: Study, after: Study, changes: Sequence[CellChange]) -> tuple[str, ...]:
    told = [
        text for device, mine in _compared_by_device(changes) for text in _about_device(before, after, device, mine)
    ]
    lost = sum(change.claim is None for change in changes)
    if lost:
        told.append(f"{cells(lost, len(changes))} could not be compared: too few rounds, or two clocks")
    digests = [{model.name: model.sha256 for model in study.run.models} for study in (before, after)]
    told += [
        f"{name} has no digest in both runs: that it is the same model is taken on trust"
        for name in digests[0].keys() & digests[1].keys()
        if not (digests[0][name] and digests[1][name])
    ]
    return tuple(told)


def _about_device(before: Study, after: Study, device: str, mine: Sequence[CellChange]) -> list[str]:
    told = []
    lacking = [change for change in mine if not change.controlled]
    if not same_machine(before, after, device):
        part = "GPU" if device == "cuda" else "processor, or how much of it may be used,"
        told.append(f"on {device} the {part} is another: the ratios are those of machines and software together")
    elif lacking:
        wide = f"{100 * WITHOUT_CONTROL:.0f} %"
        told.append(f"on {device} {cells(len(lacking), len(mine))} have no control: intervals are {wide} wider there")
    widths = [math.exp(ratio.half_width) - 1 for change in mine if (ratio := change.time_ratio)]
    if widths and median(widths) > _WIDE:
        text = f"on {device} half of the intervals reach {100 * median(widths):.0f} % or more either way"
        told.append(f"{text}: smaller changes cannot be seen")
    return told


def _compared_by_device(changes: Sequence[CellChange]) -> list[tuple[str, list[CellChange]]]:
    devices = unique(change.after.device for change in changes if change.claim is not None)
    return [(device, [c for c in changes if c.after.device == device and c.claim is not None]) for device in devices]


def _percents(shares: Sequence[float]) -> str:
    """Changes as a range.

    >>> _percents([0.012]), _percents([-0.004, 0.03])
    ('+1.2 %', '-0.4 to +3.0 %')
    """
    low, high = (f"{100 * value:+.1f}" for value in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"
