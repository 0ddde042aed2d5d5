"""Judge one output of a candidate against the reference's."""

from __future__ import annotations

import numpy as np

from redline.core.artifact import Precision
from redline.core.tensor import Array
from redline.verification.accuracy import percent
from redline.verification.agreement import Gate, OutputAgreement
from redline.verification.measures import Errors, errors_between
from redline.verification.tolerance import Tolerance, is_quantized, tolerance_for

_EXACT = Tolerance(absolute=0.0, relative=0.0, why="integers, booleans and text are compared exactly")
_NONE = Tolerance(absolute=None, relative=None, why="there is nothing to subtract")
_FULL_PRECISION: tuple[Precision, ...] = ("fp32", "none")


def is_float(array: Array) -> bool:
    """Whether it holds real or complex floats, bfloat16 (a NumPy extension type, kind V) among them."""
    return array.dtype.kind in "fc" or array.dtype.name.startswith(("bfloat16", "float8"))


def judge_output(
    name: str,
    reference: Array,
    candidate: Array | None,
    *,
    precision: Precision,
    gate: Gate,
    judged_by_top1: bool,
) -> OutputAgreement:
    """Compare two arrays of answers, first axis samples; whatever is wrong becomes a problem in words.

    Args:
        name: The reference's name for this output.
        reference: What is right.
        candidate: What is judged; None where the candidate has no such output.
        precision: What the candidate computes in.
        gate: What it has to reach.
        judged_by_top1: These are class scores, so that top-1 agreement judges a quantized model.
    """
    if candidate is None:
        return _failed(name, "the candidate has no such output")
    if reference.shape[:1] != candidate.shape[:1]:
        return _failed(name, f"got {candidate.shape[:1]} rows of answers, expected {reference.shape[:1]}")
    if reference.shape != candidate.shape:
        return _failed(name, f"got shape {candidate.shape[1:]}, expected {reference.shape[1:]}")
    if is_float(reference) != is_float(candidate):
        return _failed(name, f"got dtype {candidate.dtype}, expected {reference.dtype}")
    if not is_float(reference):
        return _judge_exact(name, reference, candidate, precision=precision, gate=gate)
    return _judge_floats(name, reference, candidate, precision=precision, gate=gate, judged_by_top1=judged_by_top1)


def _failed(name: str, problem: str) -> OutputAgreement:
    return OutputAgreement(name=name, errors=None, tolerance=_NONE, within=False, problem=f"output {name!r}: {problem}")


def _judge_exact(name: str, reference: Array, candidate: Array, *, precision: Precision, gate: Gate) -> OutputAgreement:
    same = reference == candidate
    share = float(np.mean(same)) if same.size else 1.0
    numeric = reference.dtype.kind in "iub" and candidate.dtype.kind in "iub"
    errors = errors_between(reference.astype(np.float64), candidate.astype(np.float64)) if numeric else None
    # An integer that a reduced precision computed (a class, a count) may flip as rarely as a top-1 class may.
    needed = 1.0 if precision in _FULL_PRECISION else gate.min_agreement
    tolerance = (
        _EXACT
        if needed == 1.0
        else Tolerance(
            absolute=None,
            relative=None,
            why=f"integers from {precision.upper()} arithmetic: {percent(needed)} of them have to be equal",
        )
    )
    problem = None
    if share < needed:
        different = int(np.count_nonzero(~same))
        problem = (
            f"output {name!r}: {different} of {same.size} values differ, expected at least {percent(needed)} equal"
        )
    return OutputAgreement(name=name, errors=errors, tolerance=tolerance, within=problem is None, problem=problem)


def _judge_floats(
    name: str, reference: Array, candidate: Array, *, precision: Precision, gate: Gate, judged_by_top1: bool
) -> OutputAgreement:
    notes: tuple[str, ...] = ()
    if reference.dtype != candidate.dtype:
        notes = (f"output {name!r}: the candidate answers in {candidate.dtype}, the reference in {reference.dtype}",)
    right, given = _as_float64(reference), _as_float64(candidate)
    counted = np.isfinite(right) & np.isfinite(given)
    errors = errors_between(right, given, counted=counted)
    tolerance = tolerance_for(
        np.where(np.isfinite(right), right, 0.0),
        precision,
        absolute=gate.absolute,
        relative=gate.relative,
        judged_by="top-1 agreement and accuracy" if judged_by_top1 else f"SNR of at least {gate.min_snr_db:g} dB",
    )
    problem = _not_finite(right, given)
    if problem is None and tolerance.absolute is not None:
        problem = _outside(right[counted], given[counted], tolerance, precision)
    elif problem is None and is_quantized(precision) and not judged_by_top1:
        problem = _noisy(errors, gate)
    return OutputAgreement(
        name=name,
        errors=errors,
        tolerance=tolerance,
        within=problem is None,
        problem=problem and f"output {name!r}: {problem}",
        notes=notes,
    )


def _as_float64(array: Array) -> Array:
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag], axis=-1).astype(np.float64)
    return array.astype(np.float64)


def _not_finite(right: Array, given: Array) -> str | None:
    """Say so where one has NaN or an infinity that the other has not."""
    if right.size and np.isnan(right).all():
        return "the reference answers only NaN, so nothing can be compared"
    nan = int(np.count_nonzero(np.isnan(given) & ~np.isnan(right)))
    if nan:
        return f"NaN in {nan} of {given.size} values where the reference has none"
    infinite = int(np.count_nonzero(np.isinf(given) & (given != right)))
    if infinite:
        return f"{infinite} of {given.size} values are infinite where the reference's are not (overflow)"
    lost = int(np.count_nonzero(~np.isfinite(right) & np.isfinite(given)))
    return f"{lost} of {given.size} values are finite where the reference has NaN or infinity" if lost else None


def _outside(right: Array, given: Array, tolerance: Tolerance, precision: Precision) -> str | None:
    if not right.size:
        return None
    allowed = (tolerance.absolute or 0.0) + (tolerance.relative or 0.0) * np.abs(right)
    error = np.abs(given - right)
    worst = int(np.argmax(error - allowed))
    if error[worst] <= allowed[worst]:
        return None
    source = "as set" if tolerance.why == "set by the user" else f"by {precision.upper()} rounding"
    return (
        f"{given[worst]:.6g} where the reference has {right[worst]:.6g}, "
        f"expected within {allowed[worst]:.2g} ({source})"
    )


def _noisy(errors: Errors, gate: Gate) -> str | None:
    if errors.signal_snr_db >= gate.min_snr_db:
        return None
    return f"SNR of what varies with the input is {errors.signal_snr_db:.1f} dB, expected at least {gate.min_snr_db:g}"
