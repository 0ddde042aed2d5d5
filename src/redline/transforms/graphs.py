"""Compare two ONNX graphs by what they compute, not by how they were written down."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

_Key = tuple[object, ...]


def same_graph(one: ModelProto, other: ModelProto) -> bool:
    """True when nodes, names, weights, inputs and outputs are equal.

    Doc strings, metadata, inferred shapes of inner tensors, the order of nodes and weights, and the way weights are
    stored do not count.
    """
    return _model_key(one) == _model_key(other)


def _model_key(proto: ModelProto) -> _Key:
    used = {node.domain for node in proto.graph.node} | {""}
    opsets = frozenset((entry.domain, entry.version) for entry in proto.opset_import if entry.domain in used)
    functions = Counter(function.SerializeToString(deterministic=True) for function in proto.functions)
    return (opsets, frozenset(functions.items()), _graph_key(proto.graph))


def _graph_key(graph: GraphProto) -> _Key:
    nodes = Counter(_node_key(node) for node in graph.node)
    weights = Counter((tensor.name, _tensor_key(tensor)) for tensor in graph.initializer)
    sparse = Counter(tensor.SerializeToString(deterministic=True) for tensor in graph.sparse_initializer)
    values = tuple(
        (value.name, value.type.SerializeToString(deterministic=True)) for value in (*graph.input, *graph.output)
    )
    return (frozenset(nodes.items()), frozenset(weights.items()), frozenset(sparse.items()), values)


def _node_key(node: NodeProto) -> _Key:
    attributes = frozenset((attribute.name, _attribute_key(attribute)) for attribute in node.attribute)
    return (node.op_type, node.domain, node.name, tuple(node.input), tuple(node.output), attributes)


def _attribute_key(attribute: AttributeProto) -> object:
    if attribute.HasField("t"):
        return _tensor_key(attribute.t)
    if attribute.HasField("g"):
        return _graph_key(attribute.g)
    if attribute.graphs:
        return tuple(_graph_key(graph) for graph in attribute.graphs)
    bare = AttributeProto()
    bare.CopyFrom(attribute)
    bare.ClearField("doc_string")
    return bare.SerializeToString(deterministic=True)


def _tensor_key(tensor: TensorProto) -> _Key:
    if tensor.data_type == TensorProto.STRING:
        return (tensor.data_type, tuple(tensor.dims), tuple(tensor.string_data))
    array = np.ascontiguousarray(numpy_helper.to_array(tensor))
    return (tensor.data_type, tuple(tensor.dims), hashlib.sha256(array.tobytes()).digest())
