"""Observe the range of every activation on real samples.

ONNX Runtime's own entropy and percentile calibrators keep every activation of every sample in memory, and its entropy
default (128 bins for 128 levels) has a single candidate, so that it always answers as min-max does. This one keeps one
batch of activations and one histogram per tensor, whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnxruntime
from onnx import ModelProto

from redline.core.artifact import OnnxModel
from redline.core.errors import InputError, QuantizeError
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.transforms.quantize_graph import float_tensors, with_outputs

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[str, ...] = get_args(Method)
Progress = Callable[[int, int], None]

_BINS = 2048
_LEVELS = 128
_PERCENTILE = 99.999
_STRIDE = 8
_ERROR_ONLY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The range to represent of every activation, with what it was observed on."""

    method: Method
    samples: int
    fingerprint: str
    by_tensor: Mapping[str, tuple[float, float]]


def calibrate(
    proto: ModelProto,
    model: OnnxModel,
    samples: Samples,
    *,
    method: Method = "minmax",
    batch: int = 1,
    progress: Progress | None = None,
) -> Ranges:
    """Run a prepared model over ``samples`` and choose a range for each float activation.

    Args:
        proto: ``model`` as :func:`redline.transforms.quantize_graph.prepare` made it.
        model: Whose signature the samples are checked against.
        samples: Inputs that are like those of production; a few hundred at most are of use.
        method: ``minmax`` takes all that was seen. ``percentile`` clips at the 99.999th percentile of the absolute
            value. ``entropy`` clips where the histogram of the absolute value loses least information in 128 levels
            (Migacz, 8-bit inference with TensorRT, 2017). Both run the model over the samples twice.
        batch: Samples per call, where the model's batch is dynamic; memory grows with it.
        progress: Called with (batches done, batches in all).

    Raises:
        SignatureError: the samples do not fit the model.
        QuantizeError: an activation is not finite, or ONNX Runtime refused the model.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    tensors = tuple(float_tensors(proto))
    session = open_proto(with_outputs(proto, tensors), model.path.name)
    size = batch_size(model, batch)
    rounds = 1 if method == "minmax" else 2
    total = rounds * -(-len(samples) // size)
    done = 0
    extent = dict.fromkeys(tensors, (np.inf, -np.inf))
    for values in _activations(session, model, samples, size, tensors):
        for tensor, value in values.items():
            extent[tensor] = _widened(extent[tensor], value, tensor)
        done += 1
        if progress:
            progress(done, total)
    if method != "minmax":
        counts = {tensor: np.zeros(_BINS, np.int64) for tensor in tensors}
        for values in _activations(session, model, samples, size, tensors):
            for tensor, value in values.items():
                _count(counts[tensor], value, max(map(abs, extent[tensor])))
            done += 1
            if progress:
                progress(done, total)
        extent = {tensor: _clipped(extent[tensor], counts[tensor], method) for tensor in tensors}
    seen = {tensor: ends for tensor, ends in extent.items() if ends[0] <= ends[1]}
    return Ranges(method=method, samples=len(samples), fingerprint=samples.fingerprint(), by_tensor=seen)


def open_proto(proto: ModelProto, name: str, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Load a model that is in memory into ONNX Runtime on the CPU, without a word on stderr."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_ONLY
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise QuantizeError(f"{name}: ONNX Runtime cannot run it, so it cannot be calibrated: {reason}") from error


def batch_size(model: OnnxModel, wanted: int) -> int:
    """The batch to call ``model`` with: its own where that is fixed, else ``wanted``."""
    if wanted < 1:
        raise InputError(f"batch is {wanted}, expected at least 1")
    return model.signature.fixed_batch or wanted


def batches(model: OnnxModel, samples: Samples, size: int) -> Iterator[dict[str, Array]]:
    """All samples in batches; the last goes round to the first sample where the model's batch is fixed."""
    for start in range(0, len(samples), size):
        rest = len(samples) - start
        feed = samples.batch(start, size if model.signature.fixed_batch else min(size, rest))
        model.signature.check(feed)
        yield feed


def _activations(
    session: onnxruntime.InferenceSession, model: OnnxModel, samples: Samples, size: int, tensors: tuple[str, ...]
) -> Iterator[dict[str, Array]]:
    inside = [tensor for tensor in tensors if tensor not in {spec.name for spec in model.signature.inputs}]
    for feed in batches(model, samples, size):
        try:
            values = dict(zip(inside, session.run(inside, feed), strict=True))
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise QuantizeError(f"{model.path.name} fails on the calibration samples: {reason}") from error
        yield {tensor: values[tensor] if tensor in values else feed[tensor] for tensor in tensors}


def _widened(extent: tuple[float, float], value: Array, tensor: str) -> tuple[float, float]:
    if not value.size:
        return extent
    low, high = float(value.min()), float(value.max())
    if not np.isfinite([low, high]).all():
        raise QuantizeError(
            f"tensor {tensor!r} has NaN or infinite values on the calibration samples; look at the data"
        )
    return min(extent[0], low), max(extent[1], high)


def _count(counts: Array, value: Array, largest: float) -> None:
    if largest <= 0 or not value.size:
        return
    index = (np.abs(value).ravel() * np.float32(_BINS / largest)).astype(np.int32)
    np.minimum(index, _BINS - 1, out=index)
    counts += np.bincount(index, minlength=_BINS)


def _clipped(extent: tuple[float, float], counts: Array, method: Method) -> tuple[float, float]:
    largest = max(map(abs, extent))
    if not counts.any() or not np.isfinite(largest):
        return extent
    kept = _percentile_bins(counts) if method == "percentile" else _entropy_bins(counts)
    threshold = largest * kept / _BINS
    return max(extent[0], -threshold), min(extent[1], threshold)


def _percentile_bins(counts: Array) -> int:
    share = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(share, _PERCENTILE / 100)) + 1


def _entropy_bins(counts: Array) -> int:
    """How many bins to keep so that the divergence of the quantized histogram is least."""
    histogram = counts.astype(np.float64)
    # The zeros of a ReLU are represented exactly at any scale, so their count must not decide it.
    histogram[0] = histogram[1]
    candidates = range(_LEVELS, _BINS + 1, _STRIDE)
    divergences = [_divergence(histogram, kept) for kept in candidates]
    return candidates[int(np.argmin(divergences))]


def _divergence(histogram: Array, kept: int) -> float:
    """Kullback-Leibler divergence from the clipped histogram to its form in 128 levels."""
    inside = histogram[:kept]
    clipped = inside.copy()
    clipped[-1] += histogram[kept:].sum()
    level = np.arange(kept) * _LEVELS // kept
    filled = inside > 0
    members = np.bincount(level, weights=filled, minlength=_LEVELS)
    mean = np.bincount(level, weights=inside, minlength=_LEVELS) / np.maximum(members, 1)
    coarse = np.where(filled, mean[level], 0.0)
    if not clipped.sum() or not coarse.sum():
        return float("inf")
    p, q = clipped / clipped.sum(), coarse / coarse.sum()
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 1e-10))))
