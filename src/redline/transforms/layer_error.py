"""Which layers lose most by going to INT8: each is quantized alone and the model's answer compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto

from redline.core.artifact import OnnxModel
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.transforms.calibrate import Progress, Ranges, batch_size, batches, calibrate, open_proto
from redline.transforms.quantize import StaticOptions, insert_qdq
from redline.transforms.quantize_graph import Layer, layers_in, prepare, with_outputs
from redline.transforms.quantize_presets import PRESETS, Preset

_MOST_SAMPLES = 8
_NO_ERROR_DB = 150.0
# A layer whose noise is a thousandth of the answer's power cannot be what fails a gate.
_HARMLESS_DB = 30.0
_OUTLIER_DB = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """What quantizing one layer alone does, in dB of signal over noise: the lower, the worse.

    Noise of independent layers adds, so this is close to what leaving the layer in float would take away.

    Attributes:
        node: Name of the compute node.
        op: Its operator.
        output_snr_db: At the model's outputs (the worst of them), against the answer's variation over samples.
        local_snr_db: At the layer's own output; low here and high above is an error that later layers forgive.
    """

    node: str
    op: str
    output_snr_db: float
    local_snr_db: float


def layer_errors(
    model: OnnxModel,
    samples: Samples,
    options: StaticOptions | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[LayerError, ...]:
    """The error of every layer of a float model, worst first.

    Calibrates on all of ``samples`` and compares on up to 8 of them; one quantization and 8 calls a layer.

    Raises:
        QuantizeError: the model cannot be quantized.
        SignatureError: the samples do not fit the model.
    """
    options = options or StaticOptions()
    proto = prepare(model)
    ranges = calibrate(proto, model, samples, method=options.method, batch=options.batch)
    return errors_of(proto, model, samples, ranges, PRESETS[options.target], progress=progress)


def errors_of(
    proto: ModelProto,
    model: OnnxModel,
    samples: Samples,
    ranges: Ranges,
    preset: Preset,
    *,
    progress: Progress | None = None,
) -> tuple[LayerError, ...]:
    """Like :func:`layer_errors` for a model that is prepared and calibrated already."""
    few = samples.take(range(min(len(samples), _MOST_SAMPLES)))
    layers = layers_in(proto)
    tensors = tuple(layer.output for layer in layers)
    reference = _run(open_proto(with_outputs(proto, tensors), model.path.name), model, few)
    found: list[LayerError] = []
    for done, layer in enumerate(layers, start=1):
        found.append(_error_of(model, few, layer, insert_qdq(proto, ranges, preset, only=layer.members), reference))
        if progress:
            progress(done, len(layers))
    return tuple(sorted(found, key=lambda error: error.output_snr_db))


def suggest(errors: Iterable[LayerError]) -> tuple[str, ...]:
    """The layers to leave in float: those 10 dB noisier than the median layer, and noisy enough to matter (30 dB)."""
    known = tuple(errors)
    if not known:
        return ()
    median = float(np.median([error.output_snr_db for error in known]))
    limit = min(median - _OUTLIER_DB, _HARMLESS_DB)
    return tuple(error.node for error in known if error.output_snr_db < limit)


def _error_of(
    model: OnnxModel,
    samples: Samples,
    layer: Layer,
    quantized: ModelProto,
    reference: Mapping[str, Array],
) -> LayerError:
    present = {tensor for node in quantized.graph.node for tensor in node.output}
    rounded = f"{layer.output}_DequantizeLinear_Output"
    local = rounded if rounded in present else layer.output
    answers = _run(open_proto(with_outputs(quantized, (local,)), model.path.name), model, samples)
    outputs = [spec.name for spec in model.signature.outputs if spec.numpy_dtype.kind == "f"]
    return LayerError(
        node=layer.node,
        op=layer.op,
        output_snr_db=min((snr_db(reference[name], answers[name]) for name in outputs), default=_NO_ERROR_DB),
        local_snr_db=snr_db(reference[layer.output], answers[local]),
    )


def _run(session: onnxruntime.InferenceSession, model: OnnxModel, samples: Samples) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    rows = [session.run(names, feed) for feed in batches(model, samples, batch_size(model, 1))]
    return {name: np.concatenate([np.atleast_1d(row[i]) for row in rows]) for i, name in enumerate(names)}


def snr_db(reference: Array, answer: Array) -> float:
    """Power of the signal over that of the error, in dB, between -150 and 150.

    With two samples or more (first axis) the signal is the variation over samples: a large constant part, as
    untrained networks have, would hide any error.
    """
    exact = reference.astype(np.float64)
    signal = exact - exact.mean(axis=0) if len(exact) > 1 else exact
    power = float(np.sum(signal**2)), float(np.sum((answer - exact) ** 2))
    if power[1] == 0:
        return _NO_ERROR_DB
    if power[0] == 0:
        return -_NO_ERROR_DB
    return float(np.clip(10 * np.log10(power[0] / power[1]), -_NO_ERROR_DB, _NO_ERROR_DB))
