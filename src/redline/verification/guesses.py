"""What a classifier's answers say: the most probable classes of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from redline.core.tensor import Array
from redline.verification.judge import is_float


@dataclass(frozen=True, slots=True)
class Guess:
    """One class that a sample may belong to; ``probability`` is the softmax of the scores."""

    index: int
    name: str | None
    probability: float


def guesses_of(
    outputs: Mapping[str, Array], names: Sequence[str] | None, *, top: int = 5
) -> tuple[tuple[Guess, ...], ...]:
    """The ``top`` most probable classes of each row, the best first.

    The first output that looks like class scores counts: floats, shape (rows, classes). Scores that are probabilities
    already stay as they are; names count where there is one for each class.

    Returns:
        Nothing where no output looks like class scores, or the scores are not all finite.

    >>> guesses_of({"y": np.array([[0.25, 0.75]])}, ["cat", "dog"], top=1)
    ((Guess(index=1, name='dog', probability=0.75),),)
    """
    scores = next((a for a in outputs.values() if is_float(a) and a.ndim == 2 and a.shape[1] >= 2), None)
    if scores is None or scores.dtype.kind == "c" or not len(scores):
        return ()
    scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        return ()
    shares = _probabilities(scores)
    named = names if names is not None and len(names) == shares.shape[1] else None
    best = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return tuple(
        tuple(Guess(int(i), named[i] if named else None, float(row[i])) for i in order)
        for row, order in zip(shares, best, strict=True)
    )


def _probabilities(scores: Array) -> Array:
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
