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

    Each round gives one ratio of medians, so that a drift of the machine, which hits both alike, cancels out. The
    estimate is the 20 % trimmed mean of the rounds' log ratios; its interval is a studentized bootstrap over rounds
    (Efron and Tibshirani 1993, chapter 12), 99 %, widened by :data:`LAYOUT_EFFECT`.

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
    logs = np.array([math.log(float(np.median(b)) / float(np.median(c))) for b, c in pairs])
    centre, low, high = _studentized_interval(logs, np.random.default_rng(seed))
    return Ratio(math.exp(centre), math.exp(low - LAYOUT_EFFECT), math.exp(high + LAYOUT_EFFECT))


def _studentized_interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    centre, error = _trimmed(values[None, :])
    if error[0] == 0:
        return float(centre[0]), float(centre[0]), float(centre[0])
    draws = values[rng.integers(0, len(values), size=(_RESAMPLES, len(values)))]
    means, errors = _trimmed(draws)
    floor = 0.1 * error[0]
    scores = (means - centre[0]) / np.maximum(errors, floor)
    tail = (1 - CONFIDENCE) / 2
    low_score, high_score = np.quantile(scores, [tail, 1 - tail])
    return float(centre[0]), float(centre[0] - high_score * error[0]), float(centre[0] - low_score * error[0])


def _trimmed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trimmed mean and its standard error (Yuen 1974, from winsorized variance) of each row."""
    ordered = np.sort(rows, axis=1)
    count = ordered.shape[1]
    cut = int(_TRIM * count)
    kept = ordered[:, cut : count - cut]
    winsorized = np.clip(ordered, ordered[:, cut : cut + 1], ordered[:, count - cut - 1 : count - cut])
    spread = winsorized.std(axis=1, ddof=1)
    return kept.mean(axis=1), spread / ((1 - 2 * _TRIM) * math.sqrt(count))
