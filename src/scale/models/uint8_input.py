"""A model whose images are bytes: a quarter of what float32 would be on the way to a GPU, scaled in its own graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from redline.core.artifact import OnnxModel, Step
from redline.formats.onnx_file import all_nodes, load_proto, save_proto
from scale.models.graph_names import FreeNames

STEP = "uint8 input"


def with_uint8_input(model: OnnxModel, out: Path) -> OnnxModel:
    """A copy that takes uint8 images, casts them at once and divides by 255; the same numbers go on from there.

    A model is returned as it is where its input is no float32, or where its images are normalized further.
    """
    (spec,) = model.signature.inputs
    told = model.usage.preprocess
    plain = told is None or (not any(told.mean) and all(value == 1 for value in told.std))
    if spec.dtype != "float32" or not plain:
        return model
    proto = load_proto(model.path)
    _rewire(proto, spec.name)
    step = Step(step=STEP, arguments={"divided_by": 255}, parent_sha256=model.sha256, versions={})
    return save_proto(proto, out, step=step, parent=model)


def _rewire(proto: onnx.ModelProto, name: str) -> None:
    graph = proto.graph
    free = FreeNames(graph)
    whole, scaled, divisor = (free(f"{name}_{what}") for what in ("as_float", "scaled", "divisor"))
    for node in all_nodes(graph.node):
        for index, value in enumerate(node.input):
            if value == name:
                node.input[index] = scaled
    image = next(value for value in graph.input if value.name == name)
    image.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    # TensorRT 8.6 takes bytes only where a cast to float follows at once.
    cast = onnx.helper.make_node("Cast", [name], [whole], name=whole, to=onnx.TensorProto.FLOAT)
    divide = onnx.helper.make_node("Div", [whole, divisor], [scaled], name=scaled)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(255, np.float32), divisor))
    for position, node in enumerate((cast, divide)):
        graph.node.insert(position, node)
