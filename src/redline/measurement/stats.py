"""Statistics over raw samples: percentiles, and a ratio of two variants with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

Verdict = Literal["faster", "slower", "no difference"]

#: Two processes of the same file differ by their memory layout alone, and no number of rounds shows it
#: (Mytkowicz et al., "Producing Wrong Data Without Doing Anything Obviously Wrong!", ASPLOS 2009). The interval is
#: widened by this much on each side; benchmarks/honesty.py measures that it suffices.
LAYOUT_EFFECT = 0.01
CONFIDENCE = 0.99
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


def student_quantile(probability: float, degrees: int) -> float:
    """A quantile of Student's t, by the expansion of Fisher and Cornish (1960); to 3 % from 3 degrees on.

    >>> round(student_quantile(0.995, 11), 2)  # tables: 3.106
    3.11
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / degrees**power for power, term in enumerate(terms, start=1)))


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
