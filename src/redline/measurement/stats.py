"""Statistics over raw samples: percentiles, and a ratio of two variants with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["faster", "slower", "no difference"]

#: Two processes of the same file differ by their memory layout alone, and no number of rounds shows it
#: (Mytkowicz et al., "Producing Wrong Data Without Doing Anything Obviously Wrong!", ASPLOS 2009). The interval is
#: widened by this much on each side; benchmarks/honesty.py measures that it suffices.
LAYOUT_EFFECT = 0.01
CONFIDENCE = 0.99
#: What processes of one file usually differ by (their standard deviation), and how many degrees of freedom that counts.
PRIOR_EFFECT, PRIOR_DEGREES = 0.012, 2
LEAST_PAIRS = 3
_RESAMPLES = 4000
_TRIM = 0.2


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster than the baseline, with a confidence interval.

    >>> Ratio(1.02, 0.99, 1.05).verdict
    'no difference'
    >>> Ratio(5.1, 4.9, 5.3).verdict
    'faster'
    """

    value: float
    low: float
    high: float
    processes: int = 0

    @property
    def verdict(self) -> Verdict:
        """``no difference`` where the interval holds 1."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no difference"


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
        baseline: Mean seconds a call, ``[process][round]``, None where a round is missing or was disturbed.
        candidate: The same processes and rounds of the other variant.
        shrink: For a screen of few processes: the variance over processes is shrunk to what processes usually differ
            by (:data:`PRIOR_EFFECT`), as if that were known with :data:`PRIOR_DEGREES` degrees of freedom (Smyth 2004,
            the moderated t of limma), the sampling error within processes added to it.

    Returns:
        None where fewer than two processes have a round of both; with one, nothing tells how the next would differ.
    """
    values, errors = [], []
    for before, after in zip(baseline, candidate, strict=False):
        logs = [math.log(b / c) for b, c in zip(before, after, strict=False) if b and c]
        if logs:
            values.append(sum(logs) / len(logs))
            errors.append(_variance(logs) / len(logs))
    count = len(values)
    if count < 2:
        return None
    variance, degrees = _variance(values), count - 1
    if shrink:
        prior = 2 * PRIOR_EFFECT**2 + sum(errors) / count
        variance = (PRIOR_DEGREES * prior + degrees * variance) / (PRIOR_DEGREES + degrees)
        degrees += PRIOR_DEGREES
    centre = sum(values) / count
    half_width = student_quantile(0.5 + CONFIDENCE / 2, degrees) * math.sqrt(variance / count)
    return Ratio(math.exp(centre), math.exp(centre - half_width), math.exp(centre + half_width), count)


def ratio_unpaired(before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]]) -> Ratio | None:
    """The time of ``after`` over that of ``before``, of processes that were not alive together: 99 % interval.

    Welch's interval over processes (Welch 1947), each side's variance no less than what processes usually differ by.

    Args:
        before: Mean seconds a call, ``[process][round]``.
        after: The same of the other; another run, or another batch.

    Returns:
        None where a side has fewer than two processes.
    """
    sides = [_process_logs(side) for side in (before, after)]
    if any(len(side) < 2 for side in sides):
        return None
    squares = [max(_variance(side), PRIOR_EFFECT**2) / len(side) for side in sides]
    total = sum(squares)
    degrees = total**2 / sum(square**2 / (len(side) - 1) for square, side in zip(squares, sides, strict=True))
    centre = sum(sides[1]) / len(sides[1]) - sum(sides[0]) / len(sides[0])
    half_width = student_quantile(0.5 + CONFIDENCE / 2, max(int(degrees), 1)) * math.sqrt(total)
    processes = min(map(len, sides))
    return Ratio(math.exp(centre), math.exp(centre - half_width), math.exp(centre + half_width), processes)


def ratio_of_pairs(pairs: Sequence[tuple[float, float]], *, confidence: float = CONFIDENCE) -> Ratio | None:
    """The geometric mean of the rounds' ratios, second over first, with Student's interval over rounds.

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
    centre = sum(logs) / len(logs)
    half_width = student_quantile(0.5 + confidence / 2, len(logs) - 1) * math.sqrt(_variance(logs) / len(logs))
    return Ratio(math.exp(centre), math.exp(centre - half_width), math.exp(centre + half_width), len(logs))


def student_quantile(probability: float, degrees: int) -> float:
    """A quantile of Student's t, by bisection of its distribution function.

    That is a finite sum of cosines (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    >>> [round(student_quantile(0.995, degrees), 3) for degrees in (1, 2, 5, 11)]  # tables: 63.657 9.925 4.032 3.106
    [63.657, 9.925, 4.032, 3.106]
    """
    if probability < 0.5:
        return -student_quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while _student_cdf(high, degrees) < probability:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _student_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _student_cdf(value: float, degrees: int) -> float:
    angle = math.atan(value / math.sqrt(degrees))
    cosine = math.cos(angle)
    total = term = 1.0 if degrees % 2 == 0 else cosine
    start = 2 if degrees % 2 == 0 else 3
    if degrees == 1:
        return 0.5 + angle / math.pi
    for number in range(start, degrees - 1, 2):
        term *= (number - 1) / number * cosine**2
        total += term
    if degrees % 2 == 0:
        return 0.5 + math.sin(angle) * total / 2
    return 0.5 + (angle + math.sin(angle) * total) / math.pi


def _process_logs(side: Sequence[Sequence[float | None]]) -> list[float]:
    kept = [[math.log(second) for second in process if second] for process in side]
    return [sum(logs) / len(logs) for logs in kept if logs]


def _variance(values: Sequence[float]) -> float:
    """Of a sample; 0 of one value."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


# What the engines before the study engine take; goes with them.


def speedup(
    baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], *, seed: int = 0
) -> Ratio | None:
    """How many times faster ``candidate`` is, from windows of samples that were taken in the same rounds.

    Each round gives one ratio, so that a drift of the machine, which hits both alike, cancels out: the ratio of the
    fastest calls, among as many calls of the one as of the other. Whatever else runs on a machine only ever adds time,
    so the fastest call is what the program itself needs (Chen and Revels, "Robust benchmarking in noisy environments",
    2016); the percentiles of the table are over all calls.

    The estimate is the 20 % trimmed mean of the rounds' log ratios, which a few disturbed rounds do not move. Its
    standard error is bootstrapped over rounds (Efron and Tibshirani 1993, chapter 6); the interval is the 99 % one of
    Student's t with the degrees of freedom of a trimmed mean (Yuen 1974), widened by :data:`LAYOUT_EFFECT`.

    Args:
        baseline: Seconds per call, one sequence a round.
        candidate: The same rounds of the other variant.
        seed: Of the bootstrap.

    Returns:
        None where fewer than three rounds have both.
    """
    pairs = [(b, c) for b, c in zip(baseline, candidate, strict=False) if len(b) and len(c)]
    if len(pairs) < 3:
        return None
    logs = np.array([_log_ratio(b, c) for b, c in pairs])
    centre, half_width = _interval(logs, np.random.default_rng(seed))
    half_width += LAYOUT_EFFECT
    return Ratio(math.exp(centre), math.exp(centre - half_width), math.exp(centre + half_width))


def speedup_over_processes(
    baseline: Sequence[Sequence[Sequence[float]]], candidate: Sequence[Sequence[Sequence[float]]], *, seed: int = 0
) -> Ratio | None:
    """The same as :func:`speedup` where both were measured in several generations of worker processes.

    Rounds are paired within a repeat, and all rounds together give the estimate and its interval. What differs from
    process to process is seen here: where the repeats' own estimates lie further apart than :data:`LAYOUT_EFFECT`
    allows for, half their range widens the interval in its place.

    Args:
        baseline: Seconds per call, ``[repeat][round][call]``.
        candidate: The same repeats and rounds of the other variant.
        seed: Of the bootstrap.

    Returns:
        None where fewer than three rounds have both.
    """
    repeats = [
        np.array([_log_ratio(b, c) for b, c in zip(before, after, strict=False) if len(b) and len(c)])
        for before, after in zip(baseline, candidate, strict=False)
    ]
    logs = np.concatenate([repeat for repeat in repeats if len(repeat)] or [np.empty(0)])
    if len(logs) < 3:
        return None
    centre, half_width = _interval(logs, np.random.default_rng(seed))
    centres = [float(_trimmed_mean(repeat[None, :], int(_TRIM * len(repeat)))[0]) for repeat in repeats if len(repeat)]
    half_width += max(LAYOUT_EFFECT, (max(centres) - min(centres)) / 2)
    return Ratio(math.exp(centre), math.exp(centre - half_width), math.exp(centre + half_width))


def _log_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    calls = min(len(baseline), len(candidate))
    return math.log(min(baseline[:calls]) / min(candidate[:calls]))


def _interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Trimmed mean and the half width of its interval."""
    count = len(values)
    cut = int(_TRIM * count)
    draws = values[rng.integers(0, count, size=(_RESAMPLES, count))]
    # n / (n - 1): a resample has too little spread by that factor, in variance.
    error = float(_trimmed_mean(draws, cut).std()) * math.sqrt(count / (count - 1))
    degrees = max(count - 2 * cut - 1, 2)
    return float(_trimmed_mean(values[None, :], cut)[0]), student_quantile(0.5 + CONFIDENCE / 2, degrees) * error


def _trimmed_mean(rows: np.ndarray, cut: int) -> np.ndarray:
    ordered = np.sort(rows, axis=1)
    kept: np.ndarray = ordered[:, cut : ordered.shape[1] - cut].mean(axis=1)
    return kept
