"""Numbers for how far one array of answers is from another."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np

from redline.core.tensor import Array
from redline.verification.tolerance import rms

ERROR_NAMES = ("max_abs", "max_rel", "cosine", "snr_db", "centred_cosine", "centred_snr_db")
_REL_FLOOR = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Distances between two arrays of answers.

    The centred numbers subtract the reference's mean over samples first. A network with random weights gives
    every input nearly the same large answer, so that its plain SNR, cosine and top-1 look perfect whatever is
    done to it; only what varies with the input is signal.

    Attributes:
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to ``|reference|``, which counts as at least 1 % of the reference's
            RMS, so that answers near zero do not rule.
        cosine: Cosine of the angle between the two, all values as one vector; 1 where both are zero.
        snr_db: Energy of the reference over energy of the difference; infinite where they are equal.
        centred_cosine: The same for answers less the reference's mean; None where nothing varies.
        centred_snr_db: The same.
    """

    max_abs: float
    max_rel: float
    cosine: float
    snr_db: float
    centred_cosine: float | None
    centred_snr_db: float | None

    @property
    def signal_snr_db(self) -> float:
        """The centred SNR, or the plain one where the reference does not vary over the samples."""
        return self.snr_db if self.centred_snr_db is None else self.centred_snr_db

    @property
    def relative(self) -> float:
        """Norm of the difference over the norm of the reference: what :attr:`snr_db` says, not in decibels."""
        return float(10 ** (-self.snr_db / 20))

    def to_json(self) -> dict[str, float | None]:
        """As it stands in a result file; numbers that JSON does not have become null."""
        values: dict[str, float | None] = {name: getattr(self, name) for name in ERROR_NAMES}
        return {name: value if value is not None and isfinite(value) else None for name, value in values.items()}


def errors_between(reference: Array, candidate: Array, *, counted: Array | None = None) -> Errors:
    """Compare two float64 arrays of one shape, first axis samples.

    Args:
        reference: What is right.
        candidate: What is judged.
        counted: Where to look (booleans); both must be finite there. Everywhere when None.
    """
    if counted is not None and not counted.all():
        # The mean over samples is taken over the values that count; the others become equal and so do not matter.
        weight = np.maximum(counted.sum(axis=0, keepdims=True), 1)
        mean = np.where(counted, reference, 0.0).sum(axis=0, keepdims=True) / weight
        reference, candidate = reference[counted], candidate[counted]
        mean = np.broadcast_to(mean, counted.shape)[counted]
    else:
        mean = reference.mean(axis=0, keepdims=True) if reference.size else reference
    if not reference.size:
        nan = float("nan")
        return Errors(max_abs=nan, max_rel=nan, cosine=nan, snr_db=nan, centred_cosine=None, centred_snr_db=None)
    difference = np.abs(candidate - reference)
    floor = max(_REL_FLOOR * rms(reference), np.finfo(np.float64).tiny)
    signal = reference - mean
    varies = rms(signal) > 1e-12 * rms(reference)
    return Errors(
        max_abs=float(difference.max()),
        max_rel=float((difference / np.maximum(np.abs(reference), floor)).max()),
        cosine=_cosine(reference, candidate),
        snr_db=_snr_db(reference, difference),
        centred_cosine=_cosine(signal, candidate - mean) if varies else None,
        centred_snr_db=_snr_db(signal, difference) if varies else None,
    )


def _cosine(a: Array, b: Array) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norm == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(np.clip(np.vdot(a, b) / norm, -1.0, 1.0))


def _snr_db(signal: Array, noise: Array) -> float:
    signal_rms, noise_rms = rms(signal), rms(noise)
    if noise_rms == 0.0:
        return float("inf")
    return float(20 * np.log10(signal_rms / noise_rms)) if signal_rms else float("-inf")
