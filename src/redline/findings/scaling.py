"""How time grows with the batch and with the pixels: an exponent with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from redline.measurement.stats import student_quantile
from redline.study.rows import Row

Over = Literal["batch", "pixels"]
_LEAST_POINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Time taken as ``constant * quantity ** exponent``; ``low`` and ``high`` are a 95 % interval.

    Attributes:
        over: The quantity that varies.
        fixed: What does not, in words: ``224x224`` or ``batch 8``.
        points: How many cells were fitted.
    """

    model: str
    variant: str
    device: str
    loader: str
    over: Over
    fixed: str
    exponent: float
    low: float
    high: float
    points: int

    @property
    def words(self) -> str:
        """What the exponent means."""
        if self.low <= 1 <= self.high:
            return "in proportion, as far as the interval tells"
        return "less than in proportion" if self.high < 1 else "more than in proportion"


def fit_rows(rows: Iterable[Row]) -> tuple[Fit, ...]:
    """Every fit that at least three cells allow, over the batch and over the pixels."""
    series: dict[tuple[str, str, str, str, Over, str], list[Row]] = {}
    for row in rows:
        if row.time_s is None:
            continue
        key = (row.model, row.variant, row.device, row.loader)
        series.setdefault((*key, "batch", row.size), []).append(row)
        series.setdefault((*key, "pixels", f"batch {row.batch}"), []).append(row)
    fits = []
    for (model, variant, device, loader, over, fixed), members in series.items():
        quantity = [row.batch if over == "batch" else row.pixels for row in members]
        found = power_law(quantity, [row.time_s or math.nan for row in members])
        if found is None or len({row.clock for row in members}) > 1:
            continue
        exponent, low, high = found
        fits.append(
            Fit(
                model=model,
                variant=variant,
                device=device,
                loader=loader,
                over=over,
                fixed=fixed,
                exponent=exponent,
                low=low,
                high=high,
                points=len(members),
            )
        )
    return tuple(fits)


def power_law(quantity: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float] | None:
    """The exponent of ``seconds = constant * quantity ** exponent`` with a 95 % interval; None under three points.

    Least squares of one logarithm on the other. The interval holds the scatter about the line, so it is also wide where
    the law itself does not fit: a fixed cost a call bends the line at small batches.

    >>> exponent, low, high = power_law([1, 2, 4, 8], [1.0, 2.0, 4.0, 8.0])
    >>> round(exponent, 6), round(low, 6), round(high, 6)
    (1.0, 1.0, 1.0)
    """
    if len(set(quantity)) < _LEAST_POINTS:
        return None
    x, y = np.log(quantity), np.log(seconds)
    deviations = x - x.mean()
    exponent = float(deviations @ y / (deviations @ deviations))
    residuals = y - y.mean() - exponent * deviations
    degrees = len(x) - 2
    error = math.sqrt(float(residuals @ residuals) / degrees / float(deviations @ deviations))
    half_width = student_quantile(0.975, degrees) * error
    return exponent, exponent - half_width, exponent + half_width
