"""How far apart two correct answers may be, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redline.core.artifact import Layers, Precision
from redline.core.errors import InputError
from redline.core.tensor import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """An answer ``c`` is near enough to ``r`` where ``|c - r| <= absolute + relative * |r|``.

    ``absolute`` and ``relative`` are None where errors are reported and judged otherwise; ``why`` says how.
    """

    absolute: float | None
    relative: float | None
    why: str


@dataclass(frozen=True, slots=True)
class _Allowance:
    """Errors that a precision explains: a share of the output's spread over samples, and of its magnitude."""

    spread: float
    magnitude: float
    why: str


# Measured with PyTorch as the reference, ONNX Runtime and OpenVINO as candidates, largest error over all values:
# trained networks (digits, ResNet-18) 1.4e-6 to 2.8e-6 of the spread in FP32, 1.2e-3 in FP16, 0.014 to 0.04 in BF16;
# random ones, whose spread is next to nothing (ResNet-50: 1 % of its magnitude), up to 3.6e-6 of the magnitude in
# FP32 and 0.018 in BF16. A wrong graph shows about 1. So FP32 gets 30 times what it needs, and yet a runtime that
# computes in FP16, TF32 or BF16 cannot pass for FP32. Shares of the magnitude are otherwise 8 units of roundoff
# (2^-11, 2^-8).
_ALLOWED: dict[Precision, _Allowance] = {
    "fp32": _Allowance(1e-4, 1e-5, "sums are taken in another order and kernels are fused (24-bit significand)"),
    "tf32": _Allowance(0.03, 8 * 2.0**-11, "products are rounded to the 11-bit significand of TF32"),
    "fp16": _Allowance(0.03, 8 * 2.0**-11, "values are rounded to the 11-bit significand of FP16"),
    "bf16": _Allowance(0.25, 8 * 2.0**-8, "values are rounded to the 8-bit significand of BF16"),
}
_COARSEST_FIRST: tuple[Precision, ...] = ("int8", "fp8", "bf16", "fp16", "tf32")
_QUANTIZED_WHY = "{} steps are coarse: not judged value by value, but by {}"


def is_quantized(precision: Precision) -> bool:
    """Whether values are held on a grid so coarse that only agreement, accuracy or SNR can judge them."""
    return precision in ("int8", "fp8")


def coarsest(*layers: Layers) -> Precision:
    """The coarsest precision that any layer has: the one that explains the errors.

    A model file and the engine made of it may differ: FP16 weights that run as FP32 were rounded all the same; and a
    model of which most layers are FP32 answers with the errors of its INT8 ones.

    >>> coarsest(Layers.of({"fp32": 20, "int8": 1}))
    'int8'
    """
    found = {precision for one in layers for precision, _ in one.counts}
    return next((precision for precision in _COARSEST_FIRST if precision in found), "fp32")


def tolerance_for(
    reference: Array,
    precision: Precision,
    *,
    absolute: float | None = None,
    relative: float | None = None,
    judged_by: str = "SNR",
) -> Tolerance:
    """The tolerance for one float output, scaled by the reference's own values on the samples.

    Args:
        reference: The reference's answers, float64, first axis samples.
        precision: What the candidate computes in.
        absolute: The user's own bound, which replaces ours (alone: relative becomes 0).
        relative: The same, for the relative part.
        judged_by: What judges a quantized model instead, in words.

    Raises:
        InputError: a bound that is negative or not a number.
    """
    if absolute is not None or relative is not None:
        for name, bound in (("absolute", absolute), ("relative", relative)):
            if bound is not None and not (np.isfinite(bound) and bound >= 0):
                raise InputError(f"{name} tolerance is {bound}, expected a number of at least 0")
        return Tolerance(absolute=absolute or 0.0, relative=relative or 0.0, why="set by the user")
    if is_quantized(precision):
        return Tolerance(absolute=None, relative=None, why=_QUANTIZED_WHY.format(precision.upper(), judged_by))
    allowed = _ALLOWED["fp32" if precision == "none" else precision]
    return Tolerance(
        absolute=allowed.spread * spread_of(reference) + allowed.magnitude * rms(reference),
        relative=allowed.magnitude,
        why=f"{allowed.why}; scaled by the output's spread over the samples",
    )


def spread_of(values: Array) -> float:
    """How much the answers move from sample to sample: RMS over elements of the standard deviation over samples.

    With one sample, or answers that never move, it is 0.

    >>> spread_of(np.array([[1.0, 5.0], [3.0, 5.0]]))
    0.7071067811865476
    """
    return rms(values - values.mean(axis=0, keepdims=True)) if values.size else 0.0


def rms(values: Array) -> float:
    """Root mean square; 0 for nothing.

    >>> rms(np.array([3.0, -3.0]))
    3.0
    """
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
