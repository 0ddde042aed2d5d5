"""Which variants nothing beats, and which one of them to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redline.measurement.stats import speedup
from redline.measurement.summary import Row
from redline.tuning.plan import Objective


def pareto_front(rows: Sequence[Row]) -> tuple[str, ...]:
    """Variants that no other beats in latency, memory, size and accuracy at once, fastest first.

    Only variants that ran and passed the gate take part. Accuracy is the drop against the reference where labels are
    known, else the share of answers that changed, else the error.
    """
    candidates = [
        row for row in rows if row.status == "ok" and row.passed and row.p50_s is not None and not row.control
    ]
    front = [row for row in candidates if not any(_dominates(other, row) for other in candidates)]
    return tuple(row.variant for row in sorted(front, key=lambda row: row.p50_s or 0.0))


def recommend(rows: Sequence[Row], objective: Objective) -> Row | None:
    """The best variant for the objective among those on the front, or None where none passed the gate.

    For latency and throughput, variants within 5 % of the fastest whose confidence interval against it holds 1 are
    equals; of those the one that changes fewest answers is taken, then the one that needs the least memory.
    """
    front = set(pareto_front(rows))
    candidates = [row for row in rows if row.variant in front]
    if not candidates:
        return None
    if objective == "memory":
        return min(candidates, key=lambda row: (_known(row.private_peak_bytes), row.p50_s or 0.0))
    if objective == "size":
        return min(candidates, key=lambda row: (_known(row.size_bytes), row.p50_s or 0.0))
    fastest = min(candidates, key=lambda row: row.p50_s or 0.0)
    equals = [row for row in candidates if row is fastest or _no_difference(fastest, row)]
    return min(equals, key=lambda row: (harm(row), _known(row.private_peak_bytes)))


def harm(row: Row) -> float:
    """What the variant costs in answers: accuracy lost, else answers changed, else the centred error; 0 is none."""
    if row.accuracy_drop is not None:
        return max(row.accuracy_drop, 0.0)
    if row.top1_agreement is not None:
        return 1.0 - row.top1_agreement
    return 1.0 - row.cosine if row.cosine is not None else float("inf")


_AXES: tuple[Callable[[Row], float], ...] = (
    lambda row: row.p50_s or float("inf"),
    lambda row: _known(row.private_peak_bytes),
    lambda row: _known(row.size_bytes),
    harm,
)


def _dominates(a: Row, b: Row) -> bool:
    pairs = [(axis(a), axis(b)) for axis in _AXES]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def _no_difference(fastest: Row, other: Row) -> bool:
    if (other.p50_s or 0.0) > 1.05 * (fastest.p50_s or 0.0):
        return False
    ratio = speedup(fastest.windows_s, other.windows_s)
    return ratio is not None and ratio.verdict == "no difference"


def _known(value: int | None) -> float:
    return float("inf") if value is None else float(value)
