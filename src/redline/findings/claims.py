"""What may be said of a ratio of two times: the one place that decides it, for every command, report and benchmark.

A ratio is said where its interval is narrow enough, rests on processes enough, and neither the kernel nor the control
saw other work take the machine. Else it is told that nothing can be said, why, and what to type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from redline.measurement.disturbance import MOST_DISTURBED, Evidence
from redline.measurement.stats import CONFIDENCE, Ratio
from redline.study.rows import Row

Verdict = Literal["baseline", "faster", "slower", "same", "undecided", "disturbed"]
#: Where the whole interval lies within this much of 1, both are called the same; printed wherever that is said.
SAME_BAND = 0.05
#: An interval that reaches further to either side decides nothing.
WIDEST = 0.15
#: The same where nothing but the interval is known: of two runs, and of servers under load.
WIDEST_ALONE = 0.5
#: The baseline's second process may miss the first by this much with its whole interval.
CONTROL_BAND = 0.01
LEAST_CALLS = 4
#: Of calls that take so long, a window holds enough however few: what times them is nothing beside them.
LONG_WINDOW_S = 0.15
LEAST_PROCESSES = 3
_MOST_DIGITS = 3
_HUGE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What may be said of how many times faster than another something is.

    Attributes:
        verdict: ``same`` where the interval lies within :data:`SAME_BAND`; else ``faster`` or ``slower`` where it
            excludes 1; ``undecided`` where it does neither or is too wide; ``disturbed`` where the times are not to be
            trusted.
        value: The ratio, with the ends of its interval; None where none was measured.
        reasons: Why nothing, or only so much, may be said; each a clause with its figure.
        advice: What to do and to type instead.
        confirmed: Whether it rests on processes that nothing was chosen by.
        processes: How many they are.
        confidence: Of the interval, 0 to 1.
    """

    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reasons: tuple[str, ...] = ()
    advice: str | None = None
    confirmed: bool = False
    processes: int = 0
    confidence: float = CONFIDENCE

    @property
    def says_speed(self) -> bool:
        """Whether its number may be quoted: faster, slower or the same."""
        return self.verdict in ("faster", "slower", "same")


def claim_of(row: Row) -> Claim | None:
    """What may be said of a row against its baseline; None where it was not measured or not compared."""
    if row.is_baseline:
        return Claim(verdict="baseline", value=1.0)
    if row.time_s is None or (row.ratio is None and row.evidence is None):
        return None
    # A control has no other control than itself.
    evidence = replace(row.evidence, control=row.ratio) if row.evidence and row.control else row.evidence
    return judge(row.ratio, evidence)


def is_disturbed(claim: Claim | None) -> bool:
    """Whether the times that it is about are not to be trusted."""
    return claim is not None and claim.verdict == "disturbed"


def judge(ratio: Ratio | None, evidence: Evidence | None = None) -> Claim:
    """What may be said of a ratio; of one without evidence, what its interval alone bears.

    Args:
        ratio: How many times faster; None where too few processes or rounds had both.
        evidence: What it rests on.
    """
    found = list(_disturbances(evidence)) if evidence else []
    verdict: Verdict = "disturbed"
    if not found:
        found = list(_shortcomings(ratio, evidence))
        verdict = "undecided" if found or ratio is None else _verdict(ratio)
    advice = [told for _, told in found]
    if verdict == "undecided" and not found:
        advice = [_MORE_ROUNDS if evidence else _MORE]
    return Claim(
        verdict=verdict,
        value=ratio.value if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        reasons=tuple(reason for reason, _ in found),
        advice="; ".join(dict.fromkeys(advice)) or None,
        confirmed=evidence.confirmed if evidence else False,
        processes=evidence.processes if evidence else ratio.processes if ratio else 0,
        confidence=ratio.confidence if ratio else CONFIDENCE,
    )


def speed_text(claim: Claim | None, *, of: str = "the baseline") -> str:
    """A claim in words, without a full stop.

    >>> speed_text(Claim(verdict="faster", value=5.23, low=4.94, high=5.41))
    '5.2 times faster than the baseline (99 % interval 4.9 to 5.4)'
    >>> speed_text(Claim(verdict="slower", value=0.5, low=0.48, high=0.52))
    '2.00 times slower than the baseline (99 % interval 1.92 to 2.08)'
    >>> speed_text(Claim(verdict="same", value=1.01, low=0.98, high=1.04))
    'the same as the baseline within 5 % (99 % interval 0.98 to 1.04)'
    """
    if claim is None:
        return f"not compared with {of}"
    if claim.verdict == "baseline":
        return "the baseline"
    because = "; ".join([*claim.reasons, *([claim.advice] if claim.advice else [])])
    if claim.verdict == "disturbed":
        return f"too disturbed to say: {because}"
    if claim.value is None or claim.low is None or claim.high is None:
        return f"not decided against {of}: {because}"
    value, low, high = claim.value, claim.low, claim.high
    side = "slower" if claim.verdict == "slower" or (claim.verdict == "undecided" and high < 1) else "faster"
    if side == "slower":
        value, low, high = 1 / value, 1 / high, 1 / low
    interval = f"({100 * claim.confidence:.0f} % interval {interval_text(low, high)})"
    match claim.verdict:
        case "faster" | "slower":
            return f"{ratio_text(value, low, high)} times {claim.verdict} than {of} {interval}"
        case "same":
            return f"the same as {of} within {_percent(SAME_BAND)} {interval}"
        case _:
            known = claim.processes >= LEAST_PROCESSES and low > 1
            told = f"{side} than {of}, by how much is not decided" if known else f"not decided against {of}"
            return f"{told} {interval}" + (f": {because}" if because else "")


def ratio_text(value: float, low: float, high: float) -> str:
    """A value with no more digits than its interval bears; of milliseconds as well as of ratios.

    >>> ratio_text(5.2345, 4.9, 5.4), ratio_text(1.0234, 1.019, 1.028), ratio_text(63.65, 24.0, 166.0)
    ('5.2', '1.023', '60')
    """
    return _rounded(value, digits_for(value, low, high))


def interval_text(low: float, high: float) -> str:
    """Both ends with the same digits as the value between them.

    >>> interval_text(4.9312, 5.4411), interval_text(24.3, 166.2), interval_text(0.26, 5.5)
    ('4.9 to 5.4', '20 to 170', '0.3 to 5.5')
    """
    digits = digits_for((low + high) / 2, low, high)
    if low > 0:  # of a wide one, the lower end keeps a digit too
        digits = max(digits, min(-_exponent(low), _MOST_DIGITS))
    return f"{_rounded(low, digits)} to {_rounded(high, digits)}"


def digits_for(value: float, low: float, high: float) -> int:
    """Places after the point, less than 0 for whole tens, that the interval of a value bears.

    Half the interval is 2 to 20 of the last digit; no more than :data:`_MOST_DIGITS` follow the first.

    >>> digits_for(5.23, 4.9, 5.4), digits_for(0.00172, 0.0017, 0.00174), digits_for(95.0, 24.0, 166.0)
    (1, 5, -1)
    """
    half = abs(high - low) / 2
    most = _MOST_DIGITS - _exponent(value) if value else _MOST_DIGITS
    return min(-_exponent(half / 2), most) if half > 0 and math.isfinite(half) else most


def _exponent(value: float) -> int:
    """Of the first digit; a hair of tolerance, as 0.1 is a little less than itself."""
    return math.floor(math.log10(abs(value)) + 1e-9)


def _rounded(value: float, digits: int) -> str:
    if abs(value) >= _HUGE:
        return f"{value:.0e}"
    return f"{round(value, digits):.{max(digits, 0)}f}"


_MORE_PROCESSES = "measure in more processes (--repeats 3)"
_MORE_ROUNDS = "measure more (--rounds 20 --repeats 6)"
_MORE = "measure more rounds"
_LESS_LOAD = "wait until less else runs"
_FEWER_THREADS = f"{_LESS_LOAD}, or use fewer threads (--threads 1)"
_AGAIN = "measure again"
_LONGER = "take longer turns (--window 1)"
Told = tuple[str, str]


def _disturbances(evidence: Evidence) -> Iterator[Told]:
    """What makes the times themselves untrustworthy, and what to do."""
    less_load = _LESS_LOAD if evidence.threads == 1 else _FEWER_THREADS
    if evidence.run_delay is not None and evidence.run_delay > MOST_DISTURBED:
        yield f"its threads waited for a core {_percent(evidence.run_delay)} of the time", less_load
    if evidence.steal is not None and evidence.steal > MOST_DISTURBED:
        yield f"other virtual machines took {_percent(evidence.steal)} of the processor (steal time)", less_load
    control = evidence.control
    if control is None and evidence.processes > 1:
        yield "the baseline's own copy was not measured beside it", _AGAIN
    if control is not None:
        said = f"the baseline against its own copy came out at {interval_text(control.low, control.high)}"
        if control.low > 1 + CONTROL_BAND or control.high < 1 / (1 + CONTROL_BAND):
            yield f"{said}, which is not 1", less_load
        elif _wide(control):
            yield f"{said}, more than ±{_percent(WIDEST)}", less_load
    if evidence.calls_per_window < LEAST_CALLS and evidence.window_s < LONG_WINDOW_S:
        calls = f"{evidence.calls_per_window:.0f}"
        yield f"a turn held {calls} calls of the slower one, at least {LEAST_CALLS} are needed", _LONGER
    if not evidence.stable:
        yield "most warm-ups did not settle", less_load


def _shortcomings(ratio: Ratio | None, evidence: Evidence | None) -> Iterator[Told]:
    """What leaves sound times undecided."""
    processes = evidence.processes if evidence else ratio.processes if ratio else 0
    if processes < LEAST_PROCESSES and (evidence or processes):
        word = "process" if processes == 1 else "processes"
        yield f"measured in {processes} {word}, at least {LEAST_PROCESSES} are needed", _MORE_PROCESSES
    elif ratio is None:
        yield "too few rounds had both", _MORE_ROUNDS if evidence else _MORE
    most = WIDEST if evidence else WIDEST_ALONE
    if ratio is not None and _wide(ratio, most):
        yield f"the interval is wider than ±{_percent(most)}", _MORE_ROUNDS if evidence else _MORE


def _wide(ratio: Ratio, most: float = WIDEST) -> bool:
    return ratio.half_width > math.log1p(most)


def _verdict(ratio: Ratio) -> Verdict:
    if ratio.high <= 1 + SAME_BAND and ratio.low >= 1 / (1 + SAME_BAND):
        return "same"
    if ratio.low > 1:
        return "faster"
    return "slower" if ratio.high < 1 else "undecided"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
