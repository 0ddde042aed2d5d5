"""Limits that a load test must keep, as ``p99_ms > 50``: a name, an operator, a number and nothing else."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from redline.core.errors import InputError
from redline.loadtesting.figures import Comparison, PointSummary, Summary, TargetSummary

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_FORM = re.compile(r"\s*([a-z][a-z0-9_]*)\s*(>=|<=|==|!=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(%?)\s*")


@dataclass(frozen=True, slots=True)
class Gate:
    """A test fails if this holds."""

    text: str
    name: str
    operator: str
    number: float


@dataclass(frozen=True, slots=True)
class Subject:
    """What gates look at: the last target, under its judged load, and how it compares with the first."""

    summary: Summary
    target: TargetSummary
    point: PointSummary | None
    comparison: Comparison | None


def _of_point(name: str, scale: float = 1.0) -> Callable[[Subject], float | None]:
    def value(subject: Subject) -> float | None:
        found = getattr(subject.point, name) if subject.point else None
        return None if found is None else scale * float(found)

    return value


def _p99_ratio(subject: Subject) -> float | None:
    if subject.comparison is None or subject.point is None:
        return None
    found = next((one for one in subject.comparison.points if one.point == subject.point.point), None)
    return found.p99.value if found and found.p99 else None


def _accuracy_drop(subject: Subject) -> float | None:
    before, after = subject.summary.targets[0].accuracy, subject.target.accuracy
    return None if before is None or after is None else before - after


def _agreement(name: str) -> Callable[[Subject], float | None]:
    return lambda subject: getattr(subject.summary.document.agreement, name, None)


def _total(subject: Subject, name: str) -> float:
    return float(sum(getattr(point, name) for point in _sustained(subject)))


def _error_rate(subject: Subject) -> float | None:
    offered = _total(subject, "offered")
    return _total(subject, "errors") / offered if offered else None


def _sustained(subject: Subject) -> list[PointSummary]:
    """The loads up to the judged one: what is offered too much is expected to fail."""
    most = subject.point.rate if subject.point else None
    return [point for point in subject.target.points if most is None or point.rate is None or point.rate <= most]


NAMES: Mapping[str, Callable[[Subject], float | None]] = {
    **{f"{name}_ms": _of_point(f"{name}_s", 1000) for name in ("p50", "p90", "p95", "p99", "p999", "max", "mean")},
    "rps": lambda subject: subject.target.best.rps if subject.target.best else 0.0,
    "knee_rps": lambda subject: subject.target.knee_rps,
    "goodput": lambda subject: subject.target.goodput_per_s,
    "errors": lambda subject: _total(subject, "errors"),
    "error_rate": _error_rate,
    "dropped": lambda subject: _total(subject, "dropped"),
    "cpu_ms": _of_point("server_cpu_per_request_s", 1000),
    "rss_mb": _of_point("server_rss_bytes", 1e-6),
    "rps_ratio": lambda subject: (
        subject.comparison.rps.value if subject.comparison and subject.comparison.rps else None
    ),
    "p99_ratio": _p99_ratio,
    "knee_ratio": lambda subject: subject.comparison.knee if subject.comparison else None,
    "top1_agreement": _agreement("top1"),
    "relative_error": _agreement("relative_error"),
    "accuracy": lambda subject: subject.target.accuracy,
    "accuracy_drop": _accuracy_drop,
}


def parse_gate(text: str) -> Gate:
    """A gate from ``p99_ms > 50``.

    >>> parse_gate("top1_agreement < 99%").number
    0.99

    Raises:
        InputError: anything else; names what there is.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise InputError(f"got --fail-if {text!r}, expected NAME OP NUMBER such as 'p99_ms > 50'")
    name, sign, number, percent = found.groups()
    if name not in NAMES:
        raise InputError(f"got {name!r} in --fail-if, expected one of: {', '.join(NAMES)}")
    return Gate(" ".join(text.split()), name, sign, float(number) / (100 if percent else 1))


def failed_gates(summary: Summary, gates: Sequence[Gate]) -> list[str]:
    """Which gates fail, with the value of each, in words; a value that was not measured fails too.

    They look at the last target. Its latencies are those at its knee, or under the heaviest load where it has none.
    """
    target = summary.targets[-1]
    point = target.knee or (target.points[-1] if target.points else None)
    comparison = summary.comparisons[-1] if summary.comparisons else None
    subject = Subject(summary, target, point, comparison)
    told = []
    for gate in gates:
        value = NAMES[gate.name](subject)
        if value is None:
            told.append(f"{gate.text}: {gate.name} was not measured")
        elif _OPERATORS[gate.operator](value, gate.number):
            told.append(f"{gate.text}: {gate.name} is {value:.6g}")
    return told
