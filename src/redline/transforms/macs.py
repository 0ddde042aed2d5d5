"""Count multiply-accumulates and weight bytes of a model from its graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, shape_inference

from redline.core.artifact import OnnxModel
from redline.core.errors import InputError
from redline.formats.onnx_file import load_proto

_Shapes = dict[str, tuple[int | None, ...]]
_CONV = frozenset({"Conv", "FusedConv", "ConvInteger", "QLinearConv"})
_CONV_TRANSPOSE = frozenset({"ConvTranspose", "QLinearConvTranspose"})
_GEMM = frozenset({"Gemm", "FusedGemm", "QGemm"})
_MATMUL = frozenset(
    {"MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
)
# Where the second operand stands: x, x_scale, x_zero_point, w, ... in the QLinear forms.
_SECOND_OPERAND = {"QLinearConv": 3, "QLinearConvTranspose": 3, "QGemm": 3, "QLinearMatMul": 3}
# ONNX infers no shapes for ONNX Runtime's operators: what each is in the standard, and which operands it shares.
_STANDARD: dict[str, tuple[str, tuple[int, ...]]] = {
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "QGemm": ("Gemm", (0, 3)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "QLinearConvTranspose": ("ConvTranspose", (0, 3)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Identity", (0,)),
    "QLinearLeakyRelu": ("Identity", (0,)),
    "QLinearSoftmax": ("Identity", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
}
_MICROSOFT = "com.microsoft"
_PACKED_BITS: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class MacCount:
    """Multiply-accumulates of one call.

    Attributes:
        total: Over all layers; twice as many floating-point operations.
        by_layer: (node, count) in the order of the graph.
        weight_bytes: What the initializers take.
        unknown: Layers whose shapes could not be inferred; they count as 0.
    """

    total: int
    by_layer: tuple[tuple[str, int], ...]
    weight_bytes: int
    unknown: tuple[str, ...]


def count_macs(model: OnnxModel, *, batch_size: int = 1, sizes: Mapping[str, int] | None = None) -> MacCount:
    """Count the multiply-accumulates of convolutions and matrix products.

    Args:
        model: Any model; the quantized forms of these operators count as the operators do.
        batch_size: What a dynamic first size of every input becomes.
        sizes: Values of other dynamic sizes, by name.

    Raises:
        InputError: a size below 1.
    """
    known = dict(sizes or {})
    for name, size in (("batch_size", batch_size), *known.items()):
        if size < 1:
            raise InputError(f"{name} is {size}, expected at least 1")
    proto = load_proto(model.path)
    weight_bytes = sum(_bytes_of(tensor) for tensor in proto.graph.initializer)
    shapes = _shapes(_fixed(proto, batch_size, known))
    by_layer: list[tuple[str, int]] = []
    unknown: list[str] = []
    for node in proto.graph.node:
        if node.op_type not in _CONV | _CONV_TRANSPOSE | _GEMM | _MATMUL:
            continue
        name = node.name or node.output[0]
        count = _macs(node, shapes)
        by_layer.append((name, count or 0))
        if count is None:
            unknown.append(name)
    return MacCount(
        total=sum(count for _, count in by_layer),
        by_layer=tuple(by_layer),
        weight_bytes=weight_bytes,
        unknown=tuple(unknown),
    )


def _macs(node: NodeProto, shapes: _Shapes) -> int | None:
    """The node's count, or None where a shape it needs is not known."""
    second = node.input[_SECOND_OPERAND.get(node.op_type, 1)]
    taken, weight, given = (shapes.get(name) for name in (node.input[0], second, node.output[0]))
    if node.op_type in _CONV:
        # Every output value takes one product per element of a filter: (out, in / groups, *kernel).
        return _product(given, weight and weight[1:])
    if node.op_type in _CONV_TRANSPOSE:
        # Every input value is spread by one filter: (in, out / groups, *kernel).
        return _product(taken, weight and weight[1:])
    if node.op_type in _GEMM:
        transposed = bool(_attribute(node, "transA", 0))
        return _product(given, taken and taken[:1] if transposed else taken and taken[1:2])
    transposed = bool(_attribute(node, "transA", 0)) and len(taken or ()) > 1
    return _product(given, taken and (taken[-2:-1] if transposed else taken[-1:]))


def _product(*shapes: tuple[int | None, ...] | None) -> int | None:
    total = 1
    for shape in shapes:
        if shape is None or None in shape:
            return None
        total *= math.prod(size for size in shape if size is not None)
    return total


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _fixed(proto: ModelProto, batch_size: int, sizes: Mapping[str, int]) -> ModelProto:
    """The model without dynamic sizes, as far as they are known, and without stale inferred shapes."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    batches: set[str] = set()
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and dims and not dims[0].HasField("dim_value"):
            batches.add(dims[0].dim_param)
            dims[0].dim_value = sizes.get(dims[0].dim_param, batch_size)
    known = {name: batch_size for name in batches if name} | dict(sizes)
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and dim.dim_param in known:
                dim.dim_value = known[dim.dim_param]
    del proto.graph.value_info[:]
    return proto


def _shapes(proto: ModelProto) -> _Shapes:
    graph = proto.graph
    inferred = _infer(proto)
    shapes: _Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
            )
    return shapes


def _infer(proto: ModelProto) -> GraphProto:
    standard = ModelProto()
    standard.CopyFrom(proto)
    for node in standard.graph.node:
        if node.domain != _MICROSOFT or node.op_type not in _STANDARD or _attribute(node, "channels_last", 0):
            continue
        node.op_type, positions = _STANDARD[node.op_type]
        node.domain = ""
        operands = [node.input[index] for index in positions]
        del node.input[:]
        node.input.extend(operands)
    try:
        return shape_inference.infer_shapes(standard, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError):
        return proto.graph


def _bytes_of(tensor: TensorProto) -> int:
    count: int = math.prod(int(size) for size in tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    if tensor.data_type in _PACKED_BITS:
        return (count * _PACKED_BITS[tensor.data_type] + 7) // 8
    itemsize: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return count * itemsize
