"""A float model made ready for quantization, and which of its nodes belong together."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import cast

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference, version_converter

from redline.core.artifact import OnnxModel
from redline.core.errors import QuantizeError
from redline.formats.onnx_file import load_proto, opset_of

COMPUTE_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_INT8_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}) | frozenset(
    {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul"}
)
# Per-channel scales need the axis attribute that DequantizeLinear has from opset 13 on.
_OLDEST_OPSET = 13
_LARGEST_BYTES = (1 << 31) - (1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A compute node with the nodes that follow it up to the next one: they go to INT8, or stay float, together.

    An activation or an addition that stayed quantized behind a float convolution would round its answer again, and
    nothing would be gained.

    Attributes:
        node: Name of the compute node.
        op: Its operator.
        members: Names of all nodes of the layer, the compute node included.
        output: The tensor that carries the layer's answer, behind its activation function if it has one.
    """

    node: str
    op: str
    members: tuple[str, ...]
    output: str


def prepare(model: OnnxModel) -> ModelProto:
    """Load a float model as a quantizer needs it: typed tensors, named nodes, weights as initializers, opset 13+.

    Raises:
        QuantizeError: it is quantized or half precision already, its weights are computed at run time, a
            normalization was not folded into its convolution, or there is nothing to quantize.
    """
    proto = load_proto(model.path)
    name = model.path.name
    if proto.ByteSize() > _LARGEST_BYTES:  # pragma: no cover
        raise QuantizeError(f"{name} has 2 GiB or more; the quantizer takes less")
    _refuse_quantized(name, proto)
    _inline_constants(proto)
    proto = _at_least_opset_13(name, proto)
    _name_nodes(proto)
    _refuse_unfolded(name, proto)
    if not any(node.op_type in COMPUTE_OPS for node in proto.graph.node):
        raise QuantizeError(f"{name} has nothing to quantize: no {', '.join(sorted(COMPUTE_OPS))} node")
    try:
        return shape_inference.infer_shapes(proto, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError) as error:
        raise QuantizeError(f"{name}: shapes cannot be inferred ({error}); export the model again") from error


def layers_in(proto: ModelProto) -> tuple[Layer, ...]:
    """The layers of a prepared model, in graph order; each node belongs to the last compute node above it."""
    home: dict[str, int] = {}
    heads: list[NodeProto] = []
    members: list[list[str]] = []
    for node in proto.graph.node:
        if node.op_type in COMPUTE_OPS:
            heads.append(node)
            members.append([node.name])
            index = len(heads) - 1
        else:
            index = max((home[tensor] for tensor in node.input if tensor in home), default=-1)
            if index >= 0:
                members[index].append(node.name)
        home.update(dict.fromkeys(node.output, index))
    return tuple(
        Layer(node=head.name, op=head.op_type, members=tuple(names), output=_activated_output(proto, head))
        for head, names in zip(heads, members, strict=True)
    )


def nodes_to_keep(proto: ModelProto, keep: tuple[str, ...]) -> list[str]:
    """The nodes that stay float when those named do: the whole layer of a compute node, else the node alone.

    Raises:
        QuantizeError: there is no node of that name.
    """
    by_node = {layer.node: layer for layer in layers_in(proto)}
    known = [node.name for node in proto.graph.node]
    found: list[str] = []
    for name in keep:
        if name in by_node:
            found.extend(by_node[name].members)
        elif name in known:
            found.append(name)
        else:
            close = difflib.get_close_matches(name, known, n=3) or sorted(by_node)[:5]
            raise QuantizeError(f"there is no node {name!r} to keep in float; near it: {', '.join(close)}")
    return list(dict.fromkeys(found))


def float_tensors(proto: ModelProto) -> dict[str, int]:
    """Element type of every activation of a prepared model that a quantizer could touch, in graph order."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    typed = {
        value.name: value.type.tensor_type.elem_type
        for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    }
    order = [value.name for value in proto.graph.input]
    order += [tensor for node in proto.graph.node for tensor in node.output]
    return {name: typed[name] for name in order if typed.get(name) == TensorProto.FLOAT and name not in constants}


def _activated_output(proto: ModelProto, head: NodeProto) -> str:
    consumers = [node for node in proto.graph.node if head.output[0] in node.input]
    if len(consumers) == 1 and consumers[0].op_type in {"Relu", "Clip"}:
        return cast("str", consumers[0].output[0])
    return cast("str", head.output[0])


def _refuse_quantized(name: str, proto: ModelProto) -> None:
    for node in proto.graph.node:
        if node.op_type in _INT8_OPS:
            raise QuantizeError(
                f"{name} is quantized already (node {node.name or node.op_type!r} is {node.op_type}); "
                "give the float32 model that it was made from"
            )
    weights = Counter(tensor.data_type for tensor in proto.graph.initializer)
    if weights[TensorProto.FLOAT16] + weights[TensorProto.BFLOAT16] > weights[TensorProto.FLOAT]:
        raise QuantizeError(f"{name} has half precision weights; give the float32 model that it was made from")


def _inline_constants(proto: ModelProto) -> None:
    """Constant nodes and Identity over weights become initializers: some exporters keep weights there."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    outputs = {value.name for value in proto.graph.output}
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        tensor = None
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in weights:
            tensor = weights[node.input[0]]
        if tensor is None or node.output[0] in outputs:
            kept.append(node)
            continue
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = node.output[0]
        proto.graph.initializer.append(copy)
        weights[copy.name] = copy
    if len(kept) != len(proto.graph.node):
        kept = [_copied(node) for node in kept]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _at_least_opset_13(name: str, proto: ModelProto) -> ModelProto:
    if opset_of(proto) >= _OLDEST_OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, _OLDEST_OPSET)
    except (RuntimeError, onnx.checker.ValidationError, version_converter.ConvertError) as error:
        raise QuantizeError(
            f"{name} has opset {opset_of(proto)}, per-channel INT8 needs {_OLDEST_OPSET} and onnx cannot convert it "
            f"({str(error).splitlines()[0]}); export it with --opset {_OLDEST_OPSET} or newer"
        ) from error


def _name_nodes(proto: ModelProto) -> None:
    taken: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}"
        taken.add(node.name)


def _refuse_unfolded(name: str, proto: ModelProto) -> None:
    """Weights that are computed at run time cannot be quantized ahead of it; see redline optimize."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    producer = {tensor: node for node in proto.graph.node for tensor in node.output}
    readers = Counter(tensor for node in proto.graph.node for tensor in node.input)
    for node in proto.graph.node:
        if node.op_type in {"Conv", "ConvTranspose"} and node.input[1] not in weights:
            raise QuantizeError(
                f"{name}: the weight of {node.op_type} node {node.name!r} is computed at run time; "
                "type: redline optimize --pass fold_constants first"
            )
        above = producer.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if above is not None and above.op_type == "Conv" and readers[above.output[0]] == 1:
            raise QuantizeError(
                f"{name}: BatchNormalization node {node.name!r} is not folded into its convolution; "
                "type: redline optimize --pass fuse_bn_into_conv --pass fold_constants first"
            )


def with_outputs(proto: ModelProto, tensors: tuple[str, ...]) -> ModelProto:
    """A copy of a model that also gives those float tensors."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in tensors if tensor not in present
    )
    return copy
