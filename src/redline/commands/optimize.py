"""Optimize an ONNX file by graph passes and prove that it still gives the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from redline.core.artifact import OnnxModel
from redline.core.errors import InputError, PassError, RedlineError
from redline.core.samples import Samples
from redline.core.tensor import Array, Signature
from redline.data.sources import load_samples
from redline.data.synthetic import synthetic_samples
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx
from redline.transforms.optimize import Check, Optimized
from redline.transforms.optimize import optimize as run_passes

__all__ = ["Optimized", "optimize", "same_answers"]

_BATCH_SIZES = (1, 3)
_SAMPLES = 4
_SEED = 0
# (absolute, as a share of the output's largest magnitude). Passes reorder sums and fold factors into weights, which
# moves a result by a few roundings of its largest terms: 3e-7 of the peak in FP32 for ResNet-18 with its batch norms
# fused. The bounds leave room for deeper networks and are far below what a wrong graph shows (about 1); a quantized
# model may round a value to the next of its 256 steps.
_TOLERANCES = {"fp32": (1e-6, 1e-4), "fp16": (1e-4, 1e-2), "bf16": (1e-3, 5e-2), "int8": (1e-4, 5e-2)}
_AS_IT_IS = {"graph_optimization": "disabled"}


def optimize(
    model: str | Path,
    out: str | Path,
    *,
    passes: Sequence[str] | None = None,
    data: str | Path | None = None,
    atol: float | None = None,
    rtol: float | None = None,
) -> Optimized:
    """Apply graph passes; each is run in a process of its own, checked, and dropped by name where it fails.

    The answers of the original and of what each pass made are compared in ONNX Runtime, with the runtime's own
    optimizations off, at batch sizes 1 and 3 (at the fixed size where the batch is fixed).

    Args:
        model: The ONNX file; it is left as it is.
        out: Where the optimized file goes.
        passes: Names in order (``redline optimize --list-passes``); None for the default ones.
        data: Real samples, an images folder or ``.npz``; without, random numbers from a fixed seed.
        atol: Absolute tolerance; None chooses by the model's precision.
        rtol: Tolerance as a share of the largest magnitude of an output; None chooses by the model's precision.

    Raises:
        InputError: an unknown pass, a file that is not usable, samples that do not fit.
        MissingDependencyError: a pass's package is not installed.
        PassError: every pass failed or was reverted; nothing was written.
    """
    source, target = Path(model), Path(out)
    if source.resolve() == target.resolve():
        raise InputError(f"got {target} as input and output, expected another output file; passes never work in place")
    read = read_onnx(source)
    samples = (
        synthetic_samples(read.signature, _SAMPLES, seed=_SEED)
        if data is None
        else load_samples(Path(data), read.signature, read.usage.preprocess, limit=_SAMPLES)
    )
    return run_passes(read, target, passes=passes, check=same_answers(read, samples, atol=atol, rtol=rtol))


def same_answers(model: OnnxModel, samples: Samples, *, atol: float | None = None, rtol: float | None = None) -> Check:
    """A check of passes on ``model``: raises PassError where a candidate's answers differ from its answers.

    Raises:
        InputError: the model itself does not run on the samples.
    """
    absolute, relative = _TOLERANCES.get(model.precision, _TOLERANCES["fp32"])
    absolute, relative = (absolute if atol is None else atol), (relative if rtol is None else rtol)
    feeds = [_feed(model.signature, samples, size) for size in _batch_sizes(model.signature)]
    try:
        expected = _answers(model, feeds)
    except RedlineError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        raise InputError(f"{model.path} does not run on {samples.source}: {told}") from error

    def check(_: OnnxModel, candidate: OnnxModel) -> None:
        for feed, right, given in zip(feeds, expected, _answers(candidate, feeds), strict=True):
            rows = next((len(array) for array in feed.values()), 0)
            for name, reference in right.items():
                complaint = difference(reference, given[name], absolute, relative)
                if complaint:
                    raise PassError(f"output {name!r} at batch {rows}: {complaint}")

    return check


def difference(reference: Array, candidate: Array, atol: float, rtol: float) -> str | None:
    """What is different, in words, or None; NaN equals NaN at the same place, and integers have to be equal.

    >>> difference(np.array([1.0, np.nan]), np.array([1.0, np.nan]), 0.0, 0.0)
    >>> difference(np.array([1.0, 4.0]), np.array([1.0, 4.5]), 0.0, 0.01)
    'largest difference 0.5, allowed 0.04'
    """
    if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
        return f"got {candidate.dtype} {candidate.shape}, expected {reference.dtype} {reference.shape}"
    if reference.dtype.kind not in "fV":
        count = int(np.count_nonzero(reference != candidate))
        return f"{count} of {reference.size} values differ" if count else None
    right, given = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(right) & np.isfinite(given)
    odd = ~finite & (right != given) & ~(np.isnan(right) & np.isnan(given))
    if odd.any():
        return f"{int(odd.sum())} of {right.size} values are NaN or infinite in one of the two only"
    peak = float(np.abs(right[finite]).max(initial=0.0))
    largest = float(np.abs(right[finite] - given[finite]).max(initial=0.0))
    allowed = atol + rtol * peak
    return f"largest difference {largest:.3g}, allowed {allowed:.3g}" if largest > allowed else None


def _batch_sizes(signature: Signature) -> tuple[int, ...]:
    dynamic = any(spec.shape and isinstance(spec.shape[0], str) for spec in signature.inputs)
    return _BATCH_SIZES if dynamic else (signature.fixed_batch or 1,)


def _feed(signature: Signature, samples: Samples, size: int) -> dict[str, Array]:
    """One batch; an input whose first size is fixed gets that many rows whatever the others get."""
    feed: dict[str, Array] = {}
    for spec in signature.inputs:
        rows = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else size
        feed[spec.name] = samples.batch(0, max(rows, 1))[spec.name][:rows]
    return feed


def _answers(model: OnnxModel, feeds: Sequence[dict[str, Array]]) -> list[dict[str, Array]]:
    session = open_onnx(model, options=_AS_IT_IS)
    try:
        return [session(feed) for feed in feeds]
    finally:
        session.close()
