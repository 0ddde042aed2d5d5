"""Scores against labels, and how the candidate's score differs from the reference's, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from redline.core.errors import DataError
from redline.core.tensor import Array

_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of the labelled samples got their label."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The share that is correct, 0 to 1."""
        return self.correct / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyChange:
    """The same samples scored twice; pairing shows what two percentages hide.

    Attributes:
        broken: Right in the reference, wrong in the candidate.
        repaired: Wrong in the reference, right in the candidate.
    """

    reference: Accuracy
    candidate: Accuracy
    broken: int
    repaired: int

    @property
    def drop(self) -> float:
        """By how much the candidate is worse, 0 to 1; negative where it is better."""
        return (self.broken - self.repaired) / self.reference.total

    def describe(self) -> str:
        """In words, with the counts."""
        return (
            f"accuracy {percent(self.candidate.value)}, reference {percent(self.reference.value)}: "
            f"{self.broken} of {self.reference.total} answers became wrong, {self.repaired} became right"
        )


def top1_of(scores: Array) -> Array:
    """The class with the highest score; a row that holds NaN has no answer: -1.

    Args:
        scores: Floats, shape (samples, classes).
    """
    return np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))


def score(scores: Array, labels: Array) -> Accuracy:
    """Top-1 accuracy.

    Args:
        scores: Floats, shape (samples, classes).
        labels: Class indices, shape (samples,).

    Raises:
        DataError: a label that is no class of this model.
    """
    _check_labels(scores, labels)
    return Accuracy(int(np.count_nonzero(top1_of(scores) == labels)), len(labels))


def change(reference: Array, candidate: Array, labels: Array) -> AccuracyChange:
    """Score both on the same samples and count the answers that flipped.

    Raises:
        DataError: a label that is no class of this model.
    """
    _check_labels(reference, labels)
    was, now = top1_of(reference) == labels, top1_of(candidate) == labels
    return AccuracyChange(
        reference=score(reference, labels),
        candidate=score(candidate, labels),
        broken=int(np.count_nonzero(was & ~now)),
        repaired=int(np.count_nonzero(~was & now)),
    )


def wilson(successes: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927): honest near 1, where the normal one is not.

    >>> low, high = wilson(48, 48)
    >>> f"{low:.3f} {high:.3f}"
    '0.926 1.000'
    """
    if total < 1:
        return 0.0, 1.0
    share, z2 = successes / total, _Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z_95 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def percent(share: float) -> str:
    """A share in percent, with as many digits as keep it from being rounded up to a lie.

    >>> percent(0.9792), percent(0.99), percent(0.99996), percent(1.0)
    ('97.9 %', '99 %', '99.996 %', '100 %')
    """
    digits = 1
    while digits < 6 and share < 1 and round(share * 100, digits) >= 100:
        digits += 1
    text = f"{share * 100:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.')} %"


def _check_labels(scores: Array, labels: Array) -> None:
    if len(labels) != len(scores):
        raise DataError(f"got {len(labels)} labels for {len(scores)} answers, expected one each")
    if len(labels) == 0:
        raise DataError("got no labels, expected at least one")
    classes = scores.shape[1]
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise DataError(f"got label {int(outside[0])}, expected 0 to {classes - 1} (the model has {classes} classes)")
