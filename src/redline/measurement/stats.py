"""Statistics over raw samples: percentiles, intervals of shares, and ratios of times with what is known of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np

CONFIDENCE = 0.99
#: What processes of one file usually differ by (standard deviation of the logarithm of their mean time), and how many
#: degrees of freedom that counts. benchmarks/coverage.py measures what both do to the intervals.
PRIOR_EFFECT, PRIOR_DEGREES = 0.012, 2
LEAST_PAIRS = 3
#: No logarithm of a ratio is further from 0: that of two processes that differ a lot would overflow.
_FAR = 300.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster, with its interval; symmetric in logarithms.

    Attributes:
        processes: Units of evidence that it rests on: processes, or rounds where one process was measured.
        confidence: Of the interval, 0 to 1.
    """

    value: float
    low: float
    high: float
    processes: int = 0
    confidence: float = CONFIDENCE

    @classmethod
    def of_log(cls, centre: float, half_width: float, processes: int, confidence: float = CONFIDENCE) -> Self:
        """From the logarithm of the ratio and half the width of its interval."""
        low, value, high = (math.exp(max(-_FAR, min(centre + side * half_width, _FAR))) for side in (-1, 0, 1))
        return cls(value, low, high, processes, confidence)

    @property
    def half_width(self) -> float:
        """Of the interval, in logarithms: 0.1 is about 10 % to either side."""
        return math.log(self.high / self.low) / 2

    def over(self, other: Ratio) -> Ratio:
        """This ratio over another that is independent of it: half widths add in quadrature."""
        half_width = math.hypot(self.half_width, other.half_width)
        processes = min(self.processes, other.processes)
        return Ratio.of_log(math.log(self.value / other.value), half_width, processes, self.confidence)

    def wider(self, allowance: float) -> Ratio:
        """With so much more to either side, 0.05 for 5 %."""
        share = math.exp(allowance)
        return replace(self, low=self.low / share, high=self.high * share)

    def spanning(self, other: Ratio) -> Ratio:
        """With an interval that holds another's too."""
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))


def percentile(samples: Sequence[float], percent: float) -> float:
    """A percentile over raw samples, linear between neighbours.

    >>> percentile([1.0, 2.0, 3.0], 50)
    2.0
    """
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))


def ratio_of_processes(
    baseline: Sequence[Sequence[float | None]], candidate: Sequence[Sequence[float | None]], *, shrink: bool = False
) -> Ratio | None:
    """How many times faster ``candidate`` is, from processes that were alive together: its 99 % interval.

    A process is the unit of evidence: its layout in memory, its threads' places and its caches are drawn once when it
    starts, and no number of rounds within it shows how the next one would differ (Kalibera and Jones, "Rigorous
    benchmarking in reasonable time", ISMM 2013). Rounds of one process give one number, the mean over rounds of the
    logarithm of the ratio of mean call times; the interval is Student's t over processes.

    Args:
        baseline: Mean seconds a call, ``[process][round]``, None where a round is missing or was disturbed. Where the
            baseline was entered twice, the geometric mean of both.
        candidate: The same processes and rounds of the other variant.
        shrink: For a screen of few processes: the variance over processes is shrunk to what processes usually differ
            by (:data:`PRIOR_EFFECT`), as if that were known with :data:`PRIOR_DEGREES` degrees of freedom (Smyth 2004,
            the moderated t of limma), the sampling error within processes added to it.

    Returns:
        None where fewer than two processes have a round of both: with one, nothing tells how the next would differ.
    """
    logs = [
        [math.log(b / c) for b, c in zip(before, after, strict=False) if b and c]
        for before, after in zip(baseline, candidate, strict=False)
    ]
    logs = [rounds for rounds in logs if rounds]
    count = len(logs)
    if count < 2:
        return None
    values = [_mean(rounds) for rounds in logs]
    variance, degrees = _variance(values), count - 1
    if shrink:
        variance, degrees = _moderated(logs, values, 2 * PRIOR_EFFECT**2)
    half_width = student_quantile(0.5 + CONFIDENCE / 2, degrees) * math.sqrt(variance / count)
    return Ratio.of_log(_mean(values), half_width, count)


def ratio_unpaired(before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]]) -> Ratio | None:
    """How many times faster ``after`` is than ``before``, of processes that were not alive together: 99 % interval.

    Welch's interval over processes (Welch 1947), each side's variance shrunk as in :func:`ratio_of_processes`. What
    two runs differ by as a whole, such as the hour and the clock, no process shows: that is the caller's to allow for,
    by a control (:meth:`Ratio.over`, :meth:`Ratio.spanning`) or by :meth:`Ratio.wider`.

    Args:
        before: Mean seconds a call, ``[process][round]``.
        after: The same of the other: another run, or another batch.

    Returns:
        None where a side has no process. With one it rests on what processes usually differ by; ``processes`` says so.
    """
    sides = [
        [rounds for process in side if (rounds := [math.log(second) for second in process if second])]
        for side in (before, after)
    ]
    if not all(sides):
        return None
    means = [[_mean(rounds) for rounds in side] for side in sides]
    found = [_moderated(side, values, PRIOR_EFFECT**2) for side, values in zip(sides, means, strict=True)]
    squares = [(variance / len(side), degrees) for (variance, degrees), side in zip(found, sides, strict=True)]
    total = sum(square for square, _ in squares)
    freedom = int(total**2 / sum(square**2 / degrees for square, degrees in squares))
    half_width = student_quantile(0.5 + CONFIDENCE / 2, max(freedom, 1)) * math.sqrt(total)
    return Ratio.of_log(_mean(means[0]) - _mean(means[1]), half_width, min(map(len, sides)))


def ratio_of_pairs(pairs: Sequence[tuple[float, float]], *, confidence: float = CONFIDENCE) -> Ratio | None:
    """The geometric mean of the rounds' ratios, second over first, with Student's interval over rounds.

    It says how these two processes differ, and not what others of the same files would.

    Args:
        pairs: Of rounds in which both were measured one after the other; a pair with a zero does not count.
        confidence: Of the interval, 0 to 1.

    Returns:
        None with fewer than three rounds.

    >>> round(ratio_of_pairs([(10.0, 20.0), (11.0, 22.0), (9.0, 18.0)]).value, 6)
    2.0
    """
    logs = [math.log(after / before) for before, after in pairs if before > 0 and after > 0]
    if len(logs) < LEAST_PAIRS:
        return None
    half_width = student_quantile(0.5 + confidence / 2, len(logs) - 1) * math.sqrt(_variance(logs) / len(logs))
    return Ratio.of_log(_mean(logs), half_width, len(logs), confidence)


def clopper_pearson(successes: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934): it holds the truth at least as often as it says.

    >>> [round(end, 4) for end in clopper_pearson(299, 299, confidence=0.9)]  # tables: 0.05 ** (1 / 299)
    [0.99, 1.0]
    """
    if not 0 <= successes <= total or total < 1:
        raise ValueError(f"got {successes} of {total}, expected a share of at least one")
    tail = (1 - confidence) / 2

    def bound(hits: int) -> float:
        """The share at which so many hits or more have the probability of one tail."""
        return _bisect(lambda share: _binomial_tail(hits, total, share) - tail, 0.0, 1.0)

    low = bound(successes) if successes else 0.0
    # That so many or fewer hit is that so many or more miss.
    high = 1 - bound(total - successes) if successes < total else 1.0
    return low, high


@lru_cache(maxsize=256)
def student_quantile(probability: float, degrees: int) -> float:
    """A quantile of Student's t, by bisection of its distribution function.

    That is a finite sum of cosines (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    >>> [round(student_quantile(0.995, degrees), 3) for degrees in (1, 2, 5, 11)]  # tables: 63.657 9.925 4.032 3.106
    [63.657, 9.925, 4.032, 3.106]
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"got probability {probability} and {degrees} degrees, expected 0 to 1 and at least 1")
    if probability < 0.5:
        return -student_quantile(1 - probability, degrees)
    high = 1.0
    while _student_cdf(high, degrees) < probability:
        high *= 2
    return _bisect(lambda value: _student_cdf(value, degrees) - probability, 0.0, high)


def _student_cdf(value: float, degrees: int) -> float:
    angle = math.atan(value / math.sqrt(degrees))
    if degrees == 1:
        return 0.5 + angle / math.pi
    even = degrees % 2 == 0
    cosine = math.cos(angle)
    total = term = 1.0 if even else cosine
    for number in range(2 if even else 3, degrees - 1, 2):
        term *= (number - 1) / number * cosine**2
        total += term
    if even:
        return 0.5 + math.sin(angle) * total / 2
    return 0.5 + (angle + math.sin(angle) * total) / math.pi


def _binomial_tail(hits: int, total: int, share: float) -> float:
    """The probability of so many hits or more."""
    if share <= 0 or share >= 1:
        return float(share >= 1 or hits == 0)
    one, none = math.log(share), math.log1p(-share)
    whole = math.lgamma(total + 1)
    below = hits < share * total  # the shorter tail is summed
    counts = range(hits) if below else range(hits, total + 1)
    part = math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * one + (total - k) * none) for k in counts
    )
    return 1 - part if below else part


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _moderated(logs: Sequence[Sequence[float]], values: Sequence[float], prior: float) -> tuple[float, int]:
    """The variance over processes, shrunk to a prior one, and its degrees of freedom.

    Args:
        logs: Of each process, its rounds.
        values: Their means.
        prior: The variance that processes usually have.
    """
    degrees = len(values) - 1
    within = _mean([_variance(rounds) / len(rounds) for rounds in logs])
    total = PRIOR_DEGREES + degrees
    return (PRIOR_DEGREES * (prior + within) + degrees * _variance(values)) / total, total


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    """Of a sample; 0 of one value."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
