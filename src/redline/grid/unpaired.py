"""A ratio of two cells that were not measured in the same rounds: other batches, or other runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from redline.grid.derive import GridRow, Windows
from redline.measurement.stats import CONFIDENCE, LAYOUT_EFFECT, student_quantile

_RESAMPLES = 2000
_TRIM = 0.2
#: Half of the values of a normal distribution lie within this many standard deviations.
_MEDIAN_DEVIATION = 0.6745


@dataclass(frozen=True, slots=True)
class LogRatio:
    """The logarithm of a ratio of times and half the width of its 99 % interval.

    >>> ratio = LogRatio(0.0, math.log(1.25))
    >>> ratio.value, round(ratio.low, 3), round(ratio.high, 3)
    (1.0, 0.8, 1.25)
    """

    centre: float
    half_width: float

    @property
    def value(self) -> float:
        """The ratio."""
        return math.exp(self.centre)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return math.exp(self.centre - self.half_width)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return math.exp(self.centre + self.half_width)


def unpaired_ratio(before: Windows, after: Windows, *, spread: float | None, seed: int = 0) -> LogRatio | None:
    """The time of ``after`` over that of ``before``.

    As in :func:`redline.measurement.stats.speedup`, a round stands for its fastest call, among as many calls of the one
    as of the other (Chen and Revels 2016), and the estimate is the 20 % trimmed mean of the rounds' logarithms. Nothing
    pairs the rounds here, so each side's standard error is bootstrapped by itself, over rounds within repeats (the
    nested resampling of Davison and Hinkley 1997, section 3.8), and the two are added in quadrature. A repeat is a new
    process, and two or three of them say little about how far processes differ: ``spread`` is that deviation, estimated
    over all cells of a device. The interval is widened by the largest of it, half the range of the repeats at hand,
    and :data:`~redline.measurement.stats.LAYOUT_EFFECT`.

    Args:
        before: ``[repeat][round]`` seconds of the calls.
        after: The same of the other.
        spread: From :func:`process_spread`, None where it is unknown.
        seed: Of the bootstrap.

    Returns:
        None where either side has fewer than three rounds.
    """
    calls = min((len(window) for side in (before, after) for repeat in side for window in repeat if window), default=0)
    sides = [_logs(before, calls), _logs(after, calls)]
    if any(sum(map(len, side)) < 3 for side in sides):
        return None
    rng = np.random.default_rng(seed)
    error = math.hypot(*(_standard_error(side, rng) for side in sides))
    rounds = min(sum(map(len, side)) for side in sides)
    degrees = max(rounds - 2 * int(_TRIM * rounds) - 1, 2)
    half_width = student_quantile(0.5 + CONFIDENCE / 2, degrees) * error + _process_effect(sides, spread)
    return LogRatio(_centre(sides[1]) - _centre(sides[0]), half_width)


def process_spread(rows: Iterable[GridRow]) -> float | None:
    """The standard deviation of a cell's log time from one repeat to another, typical of all those rows.

    It is the middle cell's, so that a few disturbed cells do not widen every interval. None where no cell was repeated.
    """
    deviations = []
    for row in rows:
        logs = _logs(row.windows_s, min((len(w) for r in row.windows_s for w in r if w), default=0))
        if len(logs) > 1:
            deviations.append(float(np.std([_trimmed_mean(repeat) for repeat in logs], ddof=1)))
    return float(np.median(deviations)) / _MEDIAN_DEVIATION if deviations else None


def _logs(windows: Windows, calls: int) -> list[np.ndarray]:
    """Of each repeat, the logarithms of its rounds' fastest calls."""
    repeats = [np.log([min(window[:calls]) for window in repeat if window]) for repeat in windows if any(repeat)]
    return [repeat for repeat in repeats if len(repeat)]


def _centre(repeats: Sequence[np.ndarray]) -> float:
    return float(np.mean([_trimmed_mean(repeat) for repeat in repeats]))


def _standard_error(repeats: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    errors = []
    for repeat in repeats:
        count = len(repeat)
        draws = np.sort(repeat[rng.integers(0, count, size=(_RESAMPLES, count))], axis=1)
        cut = int(_TRIM * count)
        # n / (n - 1): a resample has too little spread by that factor, in variance.
        correction = math.sqrt(count / (count - 1)) if count > 1 else 1.0
        errors.append(float(draws[:, cut : count - cut].mean(axis=1).std()) * correction)
    return math.hypot(*errors) / len(errors)


def _trimmed_mean(values: np.ndarray) -> float:
    cut = int(_TRIM * len(values))
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _process_effect(sides: Sequence[Sequence[np.ndarray]], spread: float | None) -> float:
    centres = [[_trimmed_mean(repeat) for repeat in side] for side in sides]
    seen = sum(max(side) - min(side) for side in centres) / 2
    expected = (spread or 0.0) * math.sqrt(sum(1 / len(side) for side in sides))
    return max(LAYOUT_EFFECT, seen, student_quantile(0.5 + CONFIDENCE / 2, 30) * expected)
