"""The ratio of two targets, from rounds in which each was measured once, with its confidence interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from redline.findings import claims
from redline.measurement import stats

CONFIDENCE = 0.95
#: What two processes of one file usually differ by, which no number of rounds shows: so much wider to either side.
_LAYOUT_EFFECT = 0.01
Comparative = Literal["more", "less", "the same", "undecided"]
_WORDS: Mapping[claims.Verdict, Comparative] = {"faster": "more", "slower": "less", "same": "the same"}


@dataclass(frozen=True, slots=True)
class Ratio:
    """Candidate over baseline with its 95 % interval, and from how many rounds.

    >>> Ratio(1.02, 0.98, 1.04, 5).verdict, Ratio(1.5, 1.4, 1.6, 5).verdict, Ratio(1.3, 0.4, 3.9, 3).verdict
    ('the same', 'more', 'undecided')
    """

    value: float
    low: float
    high: float
    rounds: int

    @property
    def interval(self) -> str:
        """The interval in words."""
        return f"95 % interval {self.low:.2f} to {self.high:.2f}, {self.rounds} rounds"

    @property
    def verdict(self) -> Comparative:
        """As :func:`redline.findings.claims.judge` decides it for everything that is compared."""
        found = stats.Ratio(self.value, self.low, self.high, self.rounds, CONFIDENCE)
        return _WORDS.get(claims.judge(found).verdict, "undecided")


def ratio_of_rounds(pairs: Sequence[tuple[float, float]]) -> Ratio | None:
    """The geometric mean of the rounds' ratios with Student's interval over rounds.

    Each round gives one ratio, so that a drift of the machine, which hits both alike, cancels out.

    Args:
        pairs: Baseline and candidate of each round.

    Returns:
        None with fewer than three rounds in which both are positive.

    >>> ratio_of_rounds([(10.0, 20.0), (11.0, 22.0), (9.0, 18.0)]).value
    2.0
    """
    found = stats.ratio_of_pairs(pairs, confidence=CONFIDENCE)
    if found is None:
        return None
    wider = found.wider(_LAYOUT_EFFECT)
    return Ratio(round(found.value, 9), wider.low, wider.high, found.processes)
