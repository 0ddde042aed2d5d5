"""Which rows may be set against each other, and which of them wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from redline.core.artifact import PRECISIONS
from redline.grid.derive import GridRow
from redline.grid.unpaired import process_spread, unpaired_ratio
from redline.measurement.stats import Ratio, speedup_over_processes

#: Errors beyond which an answer is another answer, by what ran; twenty times and more what the precision explains.
_GROSS_ERROR = {"fp32": 0.05, "tf32": 0.5, "fp16": 0.5, "bf16": 0.5}
_GROSS_AGREEMENT = 0.9
_FULL = "fp32"
#: An interval that holds 1 and is wider than this, on each side, says that nothing is known, not that two are level.
_UNDECIDED = math.log(1.25)


def paired(slower: GridRow, faster: GridRow) -> Ratio | None:
    """How many times faster the second row is, from the windows of the same repeats and rounds.

    None where they were not measured in the same rounds, or by other clocks, or in fewer than three rounds.
    """
    points = [(row.model, row.device, row.batch, row.size, row.clock) for row in (slower, faster)]
    if points[0] != points[1]:
        return None
    return speedup_over_processes(slower.windows_s, faster.windows_s)


def undecided(low: float, high: float) -> bool:
    """Whether an interval is so wide that it says neither "different" nor "level".

    >>> undecided(0.97, 1.04), undecided(0.5, 3.0), undecided(2.0, 9.0)
    (False, True, False)
    """
    return low <= 1 <= high and math.log(high / low) / 2 > _UNDECIDED


def answers_differ(row: GridRow) -> bool:
    """Whether its answers differ grossly from the baseline's, more than any precision explains."""
    if row.top1_agreement is not None and row.top1_agreement < _GROSS_AGREEMENT:
        return True
    # Quantized values are on a coarse grid: only agreement judges them.
    bound = _GROSS_ERROR.get(row.precision)
    return bound is not None and row.relative_error is not None and row.relative_error > bound


def usable(row: GridRow) -> bool:
    """Whether it was measured and answers as it should, as far as is known."""
    return row.time_s is not None and row.finite is not False and not answers_differ(row)


def stem(variant: str) -> str:
    """A variant's name up to its precision.

    >>> stem("torch-eager-fp16"), stem("onnxruntime-int8-static"), stem("openvino")
    ('torch-eager', 'onnxruntime', 'openvino')
    """
    words = variant.split("-")
    return "-".join(words[: next((i for i, word in enumerate(words) if word in PRECISIONS), len(words))])


def full_precision_peer(row: GridRow, rows: Iterable[GridRow]) -> GridRow | None:
    """The same way to run the model in FP32, at the same point.

    By the name up to the precision; failing that, the one FP32 variant of the same backend. None where there is no such
    row, or several.
    """
    peers = [
        other
        for other in rows
        if other.requested == _FULL and other.backend == row.backend and other.loader == row.loader
        if _point(other) == _point(row) and other.time_s is not None and other.variant != row.variant
    ]
    same = [other for other in peers if stem(other.variant) == stem(row.variant)]
    chosen = same or peers
    return chosen[0] if len(chosen) == 1 else None


def _point(row: GridRow) -> tuple[str, str, int, str]:
    return row.model, row.device, row.batch, row.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The best of some rows, and how the others stand to it.

    Attributes:
        best: The fastest.
        level: Those that cannot be told from it: the interval of their ratio holds 1.
        unsure: Those with rounds too few, or too disturbed, to say.
        behind: All others, with how many times faster the best one is, the closest first.
    """

    best: GridRow
    level: tuple[GridRow, ...]
    unsure: tuple[GridRow, ...]
    behind: tuple[tuple[GridRow, Ratio], ...]

    @property
    def front(self) -> tuple[GridRow, ...]:
        """The best and those that are level with it."""
        return (self.best, *self.level)


def fastest(rows: Sequence[GridRow]) -> Contest | None:
    """The least time a call among rows of one group, by the ratio of their own windows; None without a time."""
    return _contest([row for row in rows if row.time_s is not None], lambda row: row.time_s or math.inf, paired)


def most_images(rows: Sequence[GridRow]) -> Contest | None:
    """The most images a second among rows of any batch; None without a time."""
    timed = [row for row in rows if row.throughput_per_s is not None]
    spread = process_spread(timed)

    def compare(slower: GridRow, faster: GridRow) -> Ratio | None:
        if slower.batch == faster.batch:
            return paired(slower, faster)
        ratio = unpaired_ratio(slower.windows_s, faster.windows_s, spread=spread)
        if ratio is None or slower.clock != faster.clock:
            return None
        gain = faster.batch / slower.batch
        return Ratio(gain / ratio.value, gain / ratio.high, gain / ratio.low)

    return _contest(timed, lambda row: -(row.throughput_per_s or 0.0), compare)


def _contest(
    rows: Sequence[GridRow],
    cost: Callable[[GridRow], float],
    compare: Callable[[GridRow, GridRow], Ratio | None],
) -> Contest | None:
    if not rows:
        return None
    best = min(rows, key=cost)
    for _ in rows:
        # A median can be disturbed where the fastest calls are not: whoever beats the best one takes its place.
        better = [(ratio.low, row) for row in rows if row is not best and (ratio := compare(best, row))]
        better = [(low, row) for low, row in better if low > 1]
        if not better:
            break
        best = max(better, key=lambda pair: pair[0])[1]
    ratios = [(row, compare(row, best)) for row in rows if row is not best]
    behind = [(row, ratio) for row, ratio in ratios if ratio is not None and ratio.verdict == "faster"]
    unsure = [row for row, ratio in ratios if ratio is None or undecided(ratio.low, ratio.high)]
    beaten = [row for row, _ in behind]
    return Contest(
        best=best,
        level=tuple(row for row, _ in ratios if row not in unsure and row not in beaten),
        unsure=tuple(unsure),
        behind=tuple(sorted(behind, key=lambda pair: pair[1].value)),
    )
