"""Constant folding by ONNX's own reference evaluator; knows nothing of any runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, OperatorSetIdProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from redline.core.tensor import Array
from redline.formats.onnx_file import all_nodes

_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"})
# Folding a DequantizeLinear of a weight would turn an INT8 model back into a floating-point one.
_KEPT = _RANDOM | {"Bernoulli", "Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_GROWTH = 2
_SMALL_BYTES = 1 << 20


def fold_constants(proto: ModelProto) -> ModelProto:
    """A copy in which every node that depends on constants only has become an initializer.

    Left alone: random and Q/DQ operators, nodes with subgraphs, direct graph outputs, and results that are more
    than twice as large as what they are made of (and over 1 MiB): an expanded constant costs more than it saves.
    """
    folded = ModelProto()
    folded.CopyFrom(proto)
    graph = folded.graph
    _say_types(folded)
    inputs = {value.name for value in graph.input}
    outputs = {value.name for value in graph.output}
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name not in inputs}
    kept: list[NodeProto] = []
    for node in graph.node:
        results = None if outputs & set(node.output) else _evaluate(node, constants, folded.opset_import)
        if results is None:
            kept.append(node)
            continue
        for name, array in results.items():
            constants[name] = array
            graph.initializer.append(numpy_helper.from_array(array, name))
    survivors = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(survivors)
    _drop_unused(graph, {t.name for t in proto.graph.initializer}, outputs, _used_names(proto.graph))
    return folded


def _say_types(proto: ModelProto) -> None:
    """Turn CastLike into Cast where the type is known: it depends on a tensor's type only, so it can be folded."""
    nodes = [node for node in proto.graph.node if node.op_type == "CastLike" and not node.domain]
    if not nodes:
        return
    graph = shape_inference.infer_shapes(proto).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    for node in nodes:
        if to := types.get(node.input[1], 0):
            name = node.name
            node.CopyFrom(helper.make_node("Cast", [node.input[0]], list(node.output), name=name, to=to))


def _evaluate(
    node: NodeProto, constants: dict[str, Array], opsets: Sequence[OperatorSetIdProto]
) -> dict[str, Array] | None:
    """The outputs by name, or None where the node has to stay."""
    if node.domain not in ("", "ai.onnx") or node.op_type in _KEPT:
        return None
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return None
    names = [name for name in node.input if name]
    if any(name not in constants for name in names):
        return None
    used = {name: constants[name] for name in names}
    wanted = [name for name in node.output if name]
    try:
        found = _run(node, used, wanted, opsets)
    except Exception:  # noqa: BLE001 (what the evaluator cannot do stays in the graph)
        return None
    if not all(isinstance(value, np.ndarray | np.generic) for value in found):
        return None
    arrays = [np.asarray(value) for value in found]
    size = sum(array.nbytes for array in arrays)
    if names and size > max(_SMALL_BYTES, _GROWTH * sum(array.nbytes for array in used.values())):
        return None
    return dict(zip(wanted, arrays, strict=True))


def _run(
    node: NodeProto, used: dict[str, Array], wanted: list[str], opsets: Sequence[OperatorSetIdProto]
) -> list[object]:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in used.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in wanted]
    model = helper.make_model(helper.make_graph([node], "fold", inputs, outputs), opset_imports=list(opsets))
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(model).run(None, used))


def _used_names(graph: GraphProto) -> set[str]:
    return {name for node in all_nodes(graph.node) for name in node.input}


def _drop_unused(graph: GraphProto, before: set[str], outputs: set[str], used_before: set[str]) -> None:
    """Remove the constants that only folded nodes used; weights that nobody used before are another pass's."""
    needed = _used_names(graph) | outputs | (before - used_before)
    survivors = [tensor for tensor in graph.initializer if tensor.name in needed]
    if len(survivors) == len(graph.initializer):
        return
    inputs = {value.name for value in graph.input}
    for index in reversed(range(len(graph.initializer))):
        name = graph.initializer[index].name
        if name not in needed and name not in inputs:
            del graph.initializer[index]
