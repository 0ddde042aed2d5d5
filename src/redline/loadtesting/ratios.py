"""The ratio of two targets, from rounds in which each was measured once, with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from redline.measurement.stats import LAYOUT_EFFECT

CONFIDENCE = 0.95
LEAST_ROUNDS = 3
_RESAMPLES = 4000
#: Student's t at 97.5 % for 1 to 10 degrees of freedom; beyond them an expansion is exact enough.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Candidate over baseline with its 95 % interval, and from how many rounds.

    >>> Ratio(1.02, 0.98, 1.06, 5).verdict, Ratio(1.5, 1.4, 1.6, 5).verdict
    ('no difference', 'more')
    """

    value: float
    low: float
    high: float
    rounds: int

    @property
    def verdict(self) -> Literal["more", "less", "no difference"]:
        """``no difference`` where the interval holds 1."""
        if self.low > 1:
            return "more"
        return "less" if self.high < 1 else "no difference"


def ratio_of_rounds(pairs: Sequence[tuple[float, float]], *, seed: int = 0) -> Ratio | None:
    """The geometric mean of the rounds' ratios with a bootstrap interval.

    Each round gives one ratio, so that a drift of the machine, which hits both alike, cancels out. The standard error
    is bootstrapped over rounds; few rounds make it uncertain itself, so the interval is that of Student's t and not
    the percentiles of the resamples (which of five rounds hold the truth far less often than they say). Two processes
    differ by their memory layout alone, which no number of rounds shows, so the interval is widened by
    :data:`redline.measurement.stats.LAYOUT_EFFECT`.

    Args:
        pairs: Baseline and candidate of each round.
        seed: Of the bootstrap.

    Returns:
        None with fewer than three rounds in which both are positive.

    >>> ratio_of_rounds([(10.0, 20.0), (11.0, 22.0), (9.0, 18.0)]).value
    2.0
    """
    logs = np.array([math.log(after / before) for before, after in pairs if before > 0 and after > 0])
    count = len(logs)
    if count < LEAST_ROUNDS:
        return None
    rng = np.random.default_rng(seed)
    means = logs[rng.integers(0, count, size=(_RESAMPLES, count))].mean(axis=1)
    # n / (n - 1): a resample has too little spread by that factor, in variance.
    error = float(means.std()) * math.sqrt(count / (count - 1))
    half = _student(count - 1) * error + LAYOUT_EFFECT
    centre = float(logs.mean())
    return Ratio(round(math.exp(centre), 9), math.exp(centre - half), math.exp(centre + half), count)


def _student(degrees: int) -> float:
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
