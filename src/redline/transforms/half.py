"""Convert a model to FP16, with inputs and outputs as they were."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, checker, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as MissingKernelError
from onnxruntime.transformers.float16 import convert_float_to_float16

from redline.core.artifact import OnnxModel, Step
from redline.core.errors import ArtifactError, InputError, QuantizeError
from redline.core.tensor import Array
from redline.formats.onnx_file import all_nodes, load_proto, save_proto, versions
from redline.transforms.fold import fold_constants

#: Operators that add up many values, or whose results leave the range of FP16 soon: in FP32 they cost little.
SENSITIVE_OPS = frozenset(
    {"Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization"}
    | {"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
    | {"GlobalAveragePool", "CumSum", "Exp", "Log", "Pow", "RMSNormalization"}
)
FP16_MAX = 65504.0
FP16_SMALLEST = 2.0**-24
_LOADED_WHOLE_BYTES = (1 << 31) - (1 << 20)
_NAMED = 5
_IO_CASTS = ("graph_input_cast", "graph_output_cast")


@dataclass(frozen=True, slots=True)
class _Kept:
    """Nodes that stay in FP32 (asked for, or with a constant that FP16 cannot hold); constants too large or small."""

    asked: tuple[str, ...]
    out_of_range: tuple[str, ...]
    large: tuple[str, ...]
    tiny: tuple[str, ...]


def to_half(model: OnnxModel, out: Path, *, keep_io: bool = True, keep_nodes: Sequence[str] = ()) -> OnnxModel:
    """Convert weights and activations to FP16.

    Nodes with a constant beyond the range of FP16 (65504) stay in FP32 and are named in the provenance; magnitudes
    below its smallest number (6e-8) are raised to it. Activations beyond the range cannot be seen in a file: verify
    the result.

    Args:
        model: A floating-point model; it is left as it is.
        out: Where the FP16 model goes.
        keep_io: Keep FP32 inputs and outputs, with casts behind and before them.
        keep_nodes: Names of nodes that stay in FP32.

    Raises:
        ArtifactError: the model is FP16 already, or quantized, or has no FP32 tensors.
        InputError: there is no node of a name in ``keep_nodes``.
        QuantizeError: the converter could not convert it, or what it made is not valid.
    """
    # The converter treats initializers with care and Constant nodes without.
    proto = fold_constants(load_proto(model.path))
    _refuse_others(model, proto)
    _name_nodes(proto)
    kept = _kept(proto, keep_nodes)
    try:
        half = _convert(proto, keep_io=keep_io, blocked=[*kept.asked, *kept.out_of_range])
        _join_casts(half)
        _sort(half)
        checker.check_model(half)
        _check_types(half)
    except Exception as error:
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise QuantizeError(f"{model.path} cannot be converted to FP16: {told}") from error
    noted = {
        "kept_fp32": _list(kept.asked),
        "kept_fp32_out_of_range": _list(kept.out_of_range),
        "out_of_range_constants": _list(kept.large),
        "raised_to_smallest": _list(kept.tiny),
    }
    step = Step(
        step="half",
        arguments={"keep_io": keep_io, **{name: text for name, text in noted.items() if text}},
        parent_sha256=model.sha256,
        versions=versions("onnx", "onnxruntime"),
    )
    return save_proto(half, out, step=step, parent=model)


def sensitive_nodes(model: OnnxModel) -> tuple[str, ...]:
    """Nodes to keep in FP32 where the runtime follows the graph's types: long sums, exponentials, normalizations.

    A weakly typed builder, and the kernels of most runtimes, add up in FP32 by themselves; a strongly typed one does
    what the graph says.
    """
    proto = fold_constants(load_proto(model.path))
    _name_nodes(proto)
    return tuple(node.name for node in all_nodes(proto.graph.node) if node.op_type in SENSITIVE_OPS)


def _refuse_others(model: OnnxModel, proto: ModelProto) -> None:
    if model.precision in ("fp16", "bf16"):
        raise ArtifactError(f"{model.path} is {model.precision} already, expected an fp32 model; nothing to do")
    if model.precision in ("int8", "fp8"):
        raise ArtifactError(f"{model.path} is {model.layers.describe()}, expected fp32; convert the original instead")
    if not any(spec.dtype == "float32" for spec in (*model.signature.inputs, *model.signature.outputs)) and not any(
        tensor.data_type == TensorProto.FLOAT for tensor in proto.graph.initializer
    ):
        raise ArtifactError(f"{model.path} has no fp32 tensors; nothing to do")


def _name_nodes(proto: ModelProto) -> None:
    """Give every node a name of its own: the converter knows the nodes to keep by name."""
    taken: set[str] = set()
    for number, node in enumerate(all_nodes(proto.graph.node)):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{number}"
        taken.add(node.name)


def _kept(proto: ModelProto, keep_nodes: Sequence[str]) -> _Kept:
    nodes = list(all_nodes(proto.graph.node))
    unknown = sorted(set(keep_nodes) - {node.name for node in nodes})
    if unknown:
        raise InputError(f"got keep_nodes {', '.join(unknown)}, expected names of the model's {len(nodes)} nodes")
    constants = {tensor.name: tensor for tensor in proto.graph.initializer} | {
        node.output[0]: attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")
    }
    magnitudes = {
        name: _magnitudes(tensor) for name, tensor in constants.items() if tensor.data_type == TensorProto.FLOAT
    }
    large = {name for name, values in magnitudes.items() if np.any(values > FP16_MAX)}
    tiny = {name for name, values in magnitudes.items() if np.any((values > 0) & (values < FP16_SMALLEST))}
    # A Constant node is made of its own value, so it is kept with the nodes that use it.
    blocked = [node.name for node in nodes if large & {*node.input, *node.output}]
    return _Kept(tuple(keep_nodes), tuple(blocked), tuple(sorted(large)), tuple(sorted(tiny - large)))


def _magnitudes(tensor: TensorProto) -> Array:
    """Absolute values without NaN and infinity, which FP16 has too."""
    values = np.abs(numpy_helper.to_array(tensor))
    finite: Array = values[np.isfinite(values)]
    return finite


def _check_types(proto: ModelProto) -> None:
    """Load it: ONNX Runtime checks every node's types, which the format's checker does not.

    A missing FP16 kernel is this processor's lack and not the file's.
    """
    if proto.ByteSize() > _LOADED_WHOLE_BYTES:  # pragma: no cover
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with contextlib.suppress(MissingKernelError):
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _convert(proto: ModelProto, *, keep_io: bool, blocked: list[str]) -> ModelProto:
    level = logging.getLogger("onnxruntime.transformers.float16").level
    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cast("ModelProto", convert_float_to_float16(proto, keep_io_types=keep_io, node_block_list=blocked))
    finally:
        logging.getLogger("onnxruntime.transformers.float16").setLevel(level)


def _join_casts(proto: ModelProto) -> None:
    """Let FP32 flow from one kept node to the next, or to an output, without a round trip through FP16.

    The converter casts around each kept node by itself, so that a large value between two of them became infinite;
    it also writes one cast twice where two kept nodes use one tensor.
    """
    graph = proto.graph
    outputs = {value.name for value in graph.output}
    narrowed = {node.output[0]: node.input[0] for node in graph.node if _is_cast(node, TensorProto.FLOAT16)}
    renamed: dict[str, str] = {}
    kept: dict[str, NodeProto] = {}
    for node in graph.node:
        if _is_cast(node, TensorProto.FLOAT) and node.input[0] in narrowed:
            node.input[0] = narrowed[node.input[0]]
            if node.output[0] not in outputs:
                renamed[node.output[0]] = node.input[0]
                continue
        kept.setdefault("\0".join(node.output), node)
    for node in all_nodes(kept.values()):
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    used = outputs | {name for node in all_nodes(kept.values()) for name in node.input}
    survivors = [
        NodeProto.FromString(node.SerializeToString())
        for node in kept.values()
        if not _is_cast(node, TensorProto.FLOAT16) or node.output[0] in used
    ]
    del graph.node[:]
    graph.node.extend(survivors)


def _is_cast(node: NodeProto, to: int) -> bool:
    """Whether the converter put this cast there."""
    ours = node.name.endswith(("_cast_to_fp32_node", "_cast_to_fp16_node")) or node.name.startswith(_IO_CASTS)
    return ours and node.op_type == "Cast" and node.attribute[0].i == to


def _sort(proto: ModelProto) -> None:
    """Order the nodes as the format demands; the converter appends its casts at the end."""
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in proto.graph.node]
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting = [{maker[name] for name in _needs(node) if name in maker} for node in nodes]
    users: dict[int, list[int]] = {}
    for index, needed in enumerate(waiting):
        for other in needed:
            users.setdefault(other, []).append(index)
    ready = deque(index for index, needed in enumerate(waiting) if not needed)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for user in users.get(index, ()):
            waiting[user].discard(index)
            if not waiting[user]:
                ready.append(user)
    if len(order) != len(nodes):
        raise ValueError("the graph has a cycle")
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[index] for index in order)


def _needs(node: NodeProto) -> Iterable[str]:
    """What a node and the graphs within it take."""
    return (name for inner in all_nodes([node]) for name in inner.input)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
