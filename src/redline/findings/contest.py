"""Which rows may be set against each other, and which of them wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from redline.core.artifact import PRECISIONS
from redline.findings.claims import SAME_BAND, Claim, is_disturbed, judge
from redline.measurement.stats import Ratio, ratio_unpaired
from redline.study.derive import compare_rows
from redline.study.rows import Row

#: Errors beyond which an answer is another answer, by what ran; twenty times and more what the precision explains.
_GROSS_ERROR = {"fp32": 0.05, "tf32": 0.5, "fp16": 0.5, "bf16": 0.5}
_GROSS_AGREEMENT = 0.9
_FULL, _FIXED = "fp32", "-fixed"


def paired(slower: Row, faster: Row) -> Claim | None:
    """What may be said of how many times faster the second row is, from processes that were alive together.

    None where there are none, or their times are of two clocks.
    """
    points = [(row.model, row.device, row.batch, row.size, row.clock) for row in (slower, faster)]
    if points[0] != points[1]:
        return None
    return judge(*compare_rows(slower, faster))


def unpaired(before: Row, after: Row) -> Ratio | None:
    """How many times as many images a second the second row makes, whose processes ran at another time."""
    ratio = ratio_unpaired(
        [process.means_s for process in before.processes], [process.means_s for process in after.processes]
    )
    if ratio is None or before.clock != after.clock:
        return None
    gain = after.batch / before.batch
    return Ratio(ratio.value * gain, ratio.low * gain, ratio.high * gain, ratio.processes)


def answers_differ(row: Row) -> bool:
    """Whether its answers differ grossly from the baseline's, more than any precision explains."""
    if row.top1_agreement is not None and row.top1_agreement < _GROSS_AGREEMENT:
        return True
    # Quantized values are on a coarse grid: only agreement judges them.
    bound = _GROSS_ERROR.get(row.precision)
    return bound is not None and row.relative_error is not None and row.relative_error > bound


def usable(row: Row) -> bool:
    """Whether it was measured and answers as it should, as far as is known."""
    return row.time_s is not None and row.finite is not False and row.passed is not False and not answers_differ(row)


def stem(variant: str) -> str:
    """A variant's name up to its precision.

    >>> stem("torch-eager-fp16"), stem("onnxruntime-int8-static"), stem("openvino")
    ('torch-eager', 'onnxruntime', 'openvino')
    """
    words = variant.split("-")
    return "-".join(words[: next((i for i, word in enumerate(words) if word in PRECISIONS), len(words))])


def full_precision_peer(row: Row, rows: Iterable[Row]) -> Row | None:
    """The same way to run the model in FP32, at the same point.

    By the name up to the precision; failing that, the one FP32 variant of the same backend. None where there is no such
    row, or several.
    """
    peers = [
        other
        for other in rows
        if other.requested == _FULL and other.backend == row.backend
        if other.point == row.point and other.time_s is not None and other.variant != row.variant
        if not other.control and other.variant.endswith(_FIXED) == row.variant.endswith(_FIXED)
    ]
    same = [other for other in peers if stem(other.variant) == stem(row.variant)]
    chosen = same or peers
    return chosen[0] if len(chosen) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The best of some rows, and how the others stand to it.

    Attributes:
        best: The fastest.
        level: Those that are not shown to be slower by more than :data:`redline.findings.claims.SAME_BAND`.
        behind: All others, with how many times faster the best one is, the closest first.
        doubt: Why nothing may be said of the best one against some of those that are level.
    """

    best: Row
    level: tuple[Row, ...]
    behind: tuple[tuple[Row, Claim], ...]
    doubt: Literal["", "undecided", "disturbed"] = ""

    @property
    def front(self) -> tuple[Row, ...]:
        """The best and those that are level with it."""
        return (self.best, *self.level)


def fastest(rows: Sequence[Row]) -> Contest | None:
    """The least time a call among rows of one group; None without a time."""
    timed = [row for row in rows if row.time_s is not None]
    return _contest(timed, lambda row: row.mean_s or math.inf, paired)


def most_images(rows: Sequence[Row]) -> Contest | None:
    """The most images a second among rows of any batch; None without a time."""

    def compare(slower: Row, faster: Row) -> Claim | None:
        if slower.batch == faster.batch:
            return paired(slower, faster)
        return judge(unpaired(slower, faster))

    timed = [row for row in rows if row.throughput_per_s is not None]
    return _contest(timed, lambda row: -(row.throughput_per_s or 0.0), compare)


def _contest(
    rows: Sequence[Row], cost: Callable[[Row], float], compare: Callable[[Row, Row], Claim | None]
) -> Contest | None:
    if not rows:
        return None
    best = min(rows, key=cost)
    claims = [(row, compare(row, best)) for row in rows if row is not best]
    behind = [(row, claim) for row, claim in claims if claim is not None and shown_slower(claim)]
    beaten = [row for row, _ in behind]
    return Contest(
        best=best,
        level=tuple(row for row, _ in claims if row not in beaten),
        behind=tuple(sorted(behind, key=lambda pair: pair[1].value or 0.0)),
        doubt=_doubt([claim for row, claim in claims if row not in beaten]),
    )


def _doubt(claims: Sequence[Claim | None]) -> Literal["", "undecided", "disturbed"]:
    if any(map(is_disturbed, claims)):
        return "disturbed"
    return "" if all(claim is not None and claim.says_speed for claim in claims) else "undecided"


#: What "level" means, in words.
LEVEL = f"not shown to be more than {100 * SAME_BAND:.0f} % slower"


def shown_slower(claim: Claim) -> bool:
    """Whether a claim about how many times faster another is shows more than the band in which two are the same."""
    return claim.low is not None and claim.low > 1 + SAME_BAND
