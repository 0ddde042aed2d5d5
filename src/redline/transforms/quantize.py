"""A float model in, an INT8 model out: static with Q/DQ nodes, or dynamic."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as ort_quantization
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

from redline.core.artifact import OnnxModel, Step
from redline.core.errors import QuantizeError
from redline.core.samples import Samples
from redline.formats.onnx_file import save_proto, versions
from redline.transforms.calibrate import Method, Progress, Ranges, calibrate
from redline.transforms.quantize_graph import COMPUTE_OPS, nodes_to_keep, prepare
from redline.transforms.quantize_presets import PRESETS, Preset, Target, preset_for

_logger = logging.getLogger(__name__)
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
# What has an INT8 kernel in ONNX Runtime, OpenVINO and TensorRT alike. Softmax and normalizations stay float: they
# cost little and lose much.
_STATIC_OPS = (
    *sorted(COMPUTE_OPS),
    *("Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Concat", "Split", "Pad", "Resize"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """How to quantize with calibration.

    Attributes:
        target: The runtime that the file is for.
        method: How ranges are chosen; see :func:`redline.transforms.calibrate.calibrate`.
        keep_float: Nodes to leave in floating point; a compute node takes the nodes behind it along.
        batch: Samples per calibration call where the model's batch is dynamic.
    """

    target: Target = "onnxruntime"
    method: Method = "minmax"
    keep_float: tuple[str, ...] = ()
    batch: int = 1

    def __post_init__(self) -> None:
        preset_for(self.target)


def quantize_static(
    model: OnnxModel,
    out: Path,
    samples: Samples,
    options: StaticOptions | None = None,
    *,
    progress: Progress | None = None,
) -> OnnxModel:
    """Quantize weights and activations to INT8; inputs and outputs keep their types.

    Args:
        model: A float32 model.
        out: Where to write.
        samples: What the ranges of activations are observed on.
        options: Target, calibration method, nodes to leave alone.
        progress: Called with (calibration batches done, batches in all).

    Raises:
        QuantizeError: the model cannot be quantized; says why and what to do.
        SignatureError: the samples do not fit the model.
    """
    options = options or StaticOptions()
    proto = prepare(model)
    keep = nodes_to_keep(proto, options.keep_float)
    ranges = calibrate(proto, model, samples, method=options.method, batch=options.batch, progress=progress)
    quantized = insert_qdq(proto, ranges, PRESETS[options.target], exclude=keep)
    return save_static(quantized, out, model, ranges, options)


def quantize_dynamic(model: OnnxModel, out: Path, *, target: Target = "onnxruntime") -> OnnxModel:
    """Quantize weights to INT8; the ranges of activations are found anew in every call, so no samples are needed.

    Weights are uint8: with the int8 ones that ONNX Runtime takes by default, ResNet-18 measured 0.26x the speed of
    FP32, with these 1.04x (results/cpu/int8_files.json: 224x224, batch 1, 1 thread, EPYC with VNNI).

    Raises:
        QuantizeError: the target's runtime refuses such files, or the model cannot be quantized.
    """
    preset = preset_for(target)
    if preset.dynamic_weights is None:
        raise QuantizeError(f"dynamic quantization for {target}: {preset.dynamic_refusal}")
    proto = prepare(model)
    _forget_weight_shapes(proto)
    with tempfile.TemporaryDirectory(prefix="redline-") as folder, _quiet_root_logger():
        scratch = Path(folder) / "dynamic.onnx"
        try:
            ort_quantization.quantize_dynamic(proto, scratch, weight_type=_TYPES[preset.dynamic_weights])
            quantized = onnx.load_model(str(scratch))
        except Exception as error:
            raise QuantizeError(f"{model.path.name}: ONNX Runtime's quantizer failed: {_reason(error)}") from error
    step = Step(
        step="quantize dynamic",
        arguments={"target": target, "weights": preset.dynamic_weights},
        parent_sha256=model.sha256,
        versions=versions("onnx", "onnxruntime"),
    )
    return _save_if_quantized(quantized, out, model, step)


def insert_qdq(
    proto: ModelProto,
    ranges: Ranges,
    preset: Preset,
    *,
    exclude: Collection[str] = (),
    only: Collection[str] = (),
) -> ModelProto:
    """A copy of a prepared model with Q/DQ nodes around all nodes but ``exclude``, or around ``only`` those given."""
    if exclude and {node.name for node in proto.graph.node if node.op_type in COMPUTE_OPS} <= set(exclude):
        raise QuantizeError("all layers are to stay in float, so there is nothing to quantize; keep fewer")
    copy = ModelProto()
    copy.CopyFrom(proto)
    observed = {
        tensor: (np.array(low, np.float32), np.array(high, np.float32))
        for tensor, (low, high) in ranges.by_tensor.items()
    }
    with _quiet_root_logger():
        try:
            quantizer = QDQQuantizer(
                copy,
                True,  # per_channel
                False,  # reduce_range: for processors without VNNI, whose kernels saturate
                _TYPES["int8"],
                _TYPES[preset.activations],
                TensorsData(CalibrationMethod.MinMax, observed),
                list(only),
                list(exclude),
                list(_STATIC_OPS),
                _extra_options(preset),
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        except Exception as error:
            raise QuantizeError(f"ONNX Runtime's quantizer failed: {_reason(error)}") from error
    result: ModelProto = quantizer.model.model
    _unround_outputs(result)
    return result


def save_static(
    quantized: ModelProto, out: Path, model: OnnxModel, ranges: Ranges, options: StaticOptions
) -> OnnxModel:
    """Write a statically quantized model with how it was made."""
    step = Step(
        step="quantize static",
        arguments={
            "target": options.target,
            "method": ranges.method,
            "samples": ranges.samples,
            "samples_sha256": ranges.fingerprint,
            "keep_float": ", ".join(options.keep_float) or None,
        },
        parent_sha256=model.sha256,
        versions=versions("onnx", "onnxruntime"),
    )
    return _save_if_quantized(quantized, out, model, step)


def _save_if_quantized(quantized: ModelProto, out: Path, model: OnnxModel, step: Step) -> OnnxModel:
    if not any(node.op_type in _INT8_MARKS for node in quantized.graph.node):
        raise QuantizeError(f"{model.path.name}: the quantizer found nothing that it could quantize")
    return save_proto(quantized, out, step=step, parent=model)


_INT8_MARKS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"})


def _unround_outputs(proto: ModelProto) -> None:
    """Let the last matrix product answer in float: 8 bits have 256 values, so that the best of 1000 classes would tie.

    ONNX Runtime has integer kernels with float answers for Gemm and MatMul, but none for convolutions, which would
    run in float without the Q/DQ pair behind them.
    """
    producer = {tensor: node for node in proto.graph.node for tensor in node.output}
    readers = Counter(tensor for node in proto.graph.node for tensor in node.input)
    for value in proto.graph.output:
        dequantize = producer.get(value.name)
        quantize = producer.get(dequantize.input[0]) if dequantize is not None else None
        if dequantize is None or quantize is None:
            continue
        if (dequantize.op_type, quantize.op_type) != ("DequantizeLinear", "QuantizeLinear"):
            continue
        layer = producer.get(quantize.input[0])
        lone = readers[quantize.input[0]] == readers[quantize.output[0]] == 1 and not readers[value.name]
        if layer is not None and layer.op_type in {"Gemm", "MatMul"} and lone:
            layer.output[0] = value.name
            proto.graph.node.remove(quantize)
            proto.graph.node.remove(dequantize)


def _extra_options(preset: Preset) -> dict[str, Any]:
    return {
        "ActivationSymmetric": preset.symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": preset.quantize_bias,
    }


def _forget_weight_shapes(proto: ModelProto) -> None:
    """ONNX Runtime's quantizer transposes the weights of Gemm and then trips over the shapes noted for them.

    PyTorch's dynamo exporter notes the shape of every weight beside those of activations.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.value_info if value.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Pass what ONNX Runtime's quantizer tells the root logger on to ours, as details.

    ``logging.warning`` would also install a handler on the root logger where there is none, and keep it there.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_to_own_logger)
    try:
        yield
    finally:
        root.removeFilter(_to_own_logger)
        root.removeHandler(handler)


def _to_own_logger(record: logging.LogRecord) -> bool:
    if "onnxruntime" not in record.pathname:
        return True
    _logger.debug("onnxruntime: %s", record.getMessage())
    return False


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
