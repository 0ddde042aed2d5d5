"""What may be said of a ratio: the one place that decides, for tune, bench, compare, load tests and the README."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from redline.measurement.disturbance import MOST_DISTURBED, Evidence
from redline.measurement.stats import Ratio
from redline.study.rows import Row

Verdict = Literal["baseline", "faster", "slower", "same", "undecided", "disturbed"]
#: Two are "the same" where the whole interval of their ratio lies within this of 1; said wherever they are called so.
SAME_BAND = 0.05
#: An interval that is wider than this either way says too little for a number.
WIDEST = 0.15
LEAST_PROCESSES = 3
LEAST_CALLS = 4
#: One call of a second and more averages over what disturbs it as a window of many short ones does.
LONG_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What may be said of a ratio.

    Attributes:
        verdict: ``faster`` or ``slower`` where the interval excludes 1; ``same`` where it lies within
            :data:`SAME_BAND`; ``undecided`` where it does neither; ``disturbed`` where nothing may be said.
        value: How many times faster.
        reasons: Why nothing may be said, with the figures.
        advice: What to type or to do then.
        confirmed: Whether it rests on processes that nothing was chosen by.
        processes: How many they are.
    """

    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reasons: tuple[str, ...] = ()
    advice: str | None = None
    confirmed: bool = False
    processes: int = 0

    @property
    def says_speed(self) -> bool:
        """Whether its number may be quoted."""
        return self.verdict in ("faster", "slower", "same")


def claim_of(row: Row) -> Claim | None:
    """What may be said of a row against its baseline; None where it was not measured or not compared."""
    if row.is_baseline:
        return Claim(verdict="baseline", value=1.0)
    if row.time_s is None or row.evidence is None:
        return None
    return judge(row.ratio, row.evidence)


def judge(ratio: Ratio | None, evidence: Evidence | None = None) -> Claim:
    """What may be said of a ratio, given what it rests on.

    Args:
        ratio: How many times faster; None where too little was measured.
        evidence: None where nothing but the interval is known of how it was measured.
    """
    doubts = _doubts(ratio, evidence)
    processes = evidence.processes if evidence else ratio.processes if ratio else 0
    confirmed = evidence.confirmed if evidence else False
    if ratio is None:
        return Claim(verdict="disturbed", reasons=doubts.reasons, advice=doubts.advice, processes=processes)
    verdict: Verdict = "disturbed" if doubts.reasons else _verdict(ratio)
    return Claim(
        verdict=verdict,
        value=ratio.value,
        low=ratio.low,
        high=ratio.high,
        reasons=doubts.reasons,
        advice=doubts.advice,
        confirmed=confirmed,
        processes=processes,
    )


def _verdict(ratio: Ratio) -> Verdict:
    if ratio.low > 1:
        return "faster"
    if ratio.high < 1:
        return "slower"
    return "same" if within_band(ratio.low, ratio.high) else "undecided"


def within_band(low: float, high: float) -> bool:
    """Whether an interval lies within :data:`SAME_BAND` of 1."""
    return low >= 1 / (1 + SAME_BAND) and high <= 1 + SAME_BAND


@dataclass(frozen=True, slots=True)
class _Doubts:
    reasons: tuple[str, ...]
    advice: str | None


_QUIETER = "stop other work, or take fewer threads (--threads)"
_LONGER = "measure longer (--rounds, --repeats)"


def _doubts(ratio: Ratio | None, evidence: Evidence | None) -> _Doubts:
    found: list[tuple[str, str]] = []
    if evidence is not None:
        found += _about_evidence(evidence)
        if evidence.control is not None:
            found += _about_control(evidence.control)
    if ratio is None and not found:
        found.append(("too few processes or rounds were measured", _LONGER))
    if ratio is not None and _half_width(ratio) > math.log(1 + WIDEST):
        found.append((f"its interval is {interval_text(ratio.low, ratio.high)}", _LONGER))
    advice = "; ".join(dict.fromkeys(told for _, told in found)) or None
    return _Doubts(tuple(reason for reason, _ in found), advice)


def _about_evidence(evidence: Evidence) -> list[tuple[str, str]]:
    found = []
    if evidence.processes < LEAST_PROCESSES:
        number = f"{evidence.processes} process{'' if evidence.processes == 1 else 'es'}"
        found.append((f"it was measured in {number}, and one process says little about the next", "--repeats 3"))
    for share, what in ((evidence.run_delay, "waited for a core"), (evidence.steal, "was taken by other machines")):
        if share is not None and share > MOST_DISTURBED:
            found.append((f"{100 * share:.0f} % of the time {what}", _QUIETER))
    if evidence.calls_per_window < LEAST_CALLS and evidence.window_s < LONG_WINDOW_S:
        found.append((f"a turn had {evidence.calls_per_window:.0f} calls", "longer turns (--window)"))
    return found


def _about_control(control: Ratio) -> list[tuple[str, str]]:
    text = f"the baseline against itself came out {interval_text(control.low, control.high)}"
    sound = control.low <= 1 <= control.high or within_band(control.low, control.high)
    if sound and _half_width(control) <= math.log(1 + WIDEST):
        return []
    return [(text, f"{_QUIETER}, {_LONGER}")]


def _half_width(ratio: Ratio) -> float:
    return math.log(ratio.high / ratio.low) / 2 if ratio.low > 0 and math.isfinite(ratio.high) else math.inf


def speed_text(claim: Claim | None, *, of: str = "the baseline") -> str:
    """A claim in words.

    >>> speed_text(Claim(verdict="faster", value=5.183, low=4.92, high=5.41))
    '5.2 times faster than the baseline (99 % interval 4.9 to 5.4)'
    >>> speed_text(Claim(verdict="same", value=1.01, low=0.98, high=1.03))
    'the same as the baseline within 5 % (99 % interval 0.98 to 1.03)'
    """
    if claim is None:
        return f"not compared with {of}"
    if claim.verdict == "baseline":
        return "the baseline itself"
    if claim.verdict == "disturbed" or claim.value is None or claim.low is None or claim.high is None:
        why = "; ".join(claim.reasons) or "too little was measured"
        return f"too disturbed to compare with {of}: {why}" + (f"; {claim.advice}" if claim.advice else "")
    held = f"99 % interval {interval_text(claim.low, claim.high)}"
    match claim.verdict:
        case "same":
            return f"the same as {of} within {100 * SAME_BAND:.0f} % ({held})"
        case "undecided":
            return f"not decided against {of} ({held} times its speed)"
        case "slower":
            low, high = 1 / claim.high, 1 / claim.low
            text = ratio_text(1 / claim.value, low, high)
            return f"{text} times slower than {of} (99 % interval {interval_text(low, high)})"
        case _:
            return f"{ratio_text(claim.value, claim.low, claim.high)} times faster than {of} ({held})"


def decimals_for(low: float, high: float) -> int:
    """How many decimals a number bears whose interval this is: its last digit is no finer than a fifth of the width.

    >>> decimals_for(4.92, 5.41), decimals_for(0.98, 1.03), decimals_for(24, 166), decimals_for(1.001, 1.002)
    (1, 2, 0, 4)
    """
    width = high - low
    if not math.isfinite(width) or width <= 0:
        return 2
    return min(max(0, math.ceil(-math.log10(width / 0.99) + 0.15)), 4)


def ratio_text(value: float, low: float, high: float) -> str:
    """A ratio with no more digits than its interval bears.

    >>> ratio_text(5.183, 4.92, 5.41), ratio_text(1.0123, 0.98, 1.03)
    ('5.2', '1.01')
    """
    return f"{value:.{decimals_for(low, high)}f}"


def interval_text(low: float, high: float) -> str:
    """An interval in its own digits.

    >>> interval_text(4.92, 5.41), interval_text(0.26, 5.5)
    ('4.9 to 5.4', '0.3 to 5.5')
    """
    if not math.isfinite(high) or low <= 0:
        return "not known"
    decimals = max(decimals_for(low, high), 1 if low < 1 else 0)
    return f"{low:.{decimals}f} to {high:.{decimals}f}"
