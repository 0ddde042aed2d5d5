"""A detector that names the best class of each box itself: six numbers a box instead of one for every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper

from redline.core.artifact import OnnxModel, Step
from redline.core.errors import InputError
from redline.core.preprocess import Detection, Usage
from redline.core.tensor import Dim, Signature, TensorSpec
from redline.detection.heads import ONE_CLASS, Layout, layout_of
from redline.formats.onnx_file import load_proto, save_proto
from scale.models.graph_names import FreeNames

STEP = "best class"
_BOX = 4
# FP16 holds every whole number up to here, so that an engine in it names the class that was found.
_MOST_CLASSES = 2048
_LEAST_OPSET = 11
# Before it every weight is an input too, and ONNX Runtime makes inputs of Constant nodes that it shares.
_LEAST_IR = 4
_REDUCE_TAKES_AXES_AS_INPUT = 18


def with_best_class(model: OnnxModel, out: Path) -> OnnxModel:
    """A copy whose boxes come as (batch, 6 + shares of masks, n): place, best score, its class, shares.

    The first of classes that score alike is the best, as it is without. Scores of a head with an objectness are
    multiplied by it. The output has a new name, and the file says what it is: a head called ``best``.

    A model is returned as it is where its head cannot be told or is of finished boxes, and where nothing would get
    smaller.
    """
    layout = layout_told(model.signature, model.usage)
    if layout is None or not _shrinks(layout) or model.opset < _LEAST_OPSET:
        return model
    spec = next(spec for spec in model.signature.outputs if spec.name == layout.predictions)
    if spec.dtype not in ("float32", "float16"):
        return model
    proto = load_proto(model.path)
    proto.ir_version = max(proto.ir_version, _LEAST_IR)
    _rewire(proto.graph, _Rewrite.of(layout, spec, model.opset))
    step = Step(step=STEP, arguments={"head": layout.head}, parent_sha256=model.sha256, versions={})
    detection = replace(model.usage.detection or Detection(), head="best")
    return save_proto(proto, out, step=step, parent=model, usage=replace(model.usage, detection=detection))


def layout_told(signature: Signature, usage: Usage) -> Layout | None:
    """How outputs are read by whoever runs the model; None where nobody could before they are there."""
    try:
        return layout_of(
            {spec.name: spec.shape for spec in signature.outputs},
            detection=usage.detection,
            class_count=len(usage.class_names) or None,
        )
    except InputError:
        return None


def _shrinks(layout: Layout) -> bool:
    before = _BOX + (layout.head == "v5") + (layout.class_count or 0)
    return ONE_CLASS < before <= _BOX + _MOST_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rewrite:
    """What is to be done to an output.

    Attributes:
        axis: Along which a box has its numbers.
        classes: Where the scores of the classes begin and end along it.
        width: How many numbers it has there.
        shape: Of the output that replaces it.
    """

    name: str
    axis: int
    classes: tuple[int, int]
    width: int
    half: bool
    objectness: bool
    shape: tuple[Dim, ...]
    opset: int

    @classmethod
    def of(cls, layout: Layout, spec: TensorSpec, opset: int) -> _Rewrite:
        """For a head whose number of classes is known."""
        objectness = layout.head == "v5"
        first = _BOX + objectness
        end = first + (layout.class_count or 0)
        return cls(
            name=spec.name,
            axis=2 if objectness else 1,
            classes=(first, end),
            width=end + layout.mask_count,
            half=spec.dtype == "float16",
            objectness=objectness,
            shape=(spec.shape[0], ONE_CLASS + layout.mask_count, spec.shape[1 if objectness else 2]),
            opset=opset,
        )


def _rewire(graph: onnx.GraphProto, rewrite: _Rewrite) -> None:
    """Put the nodes behind an output, and their result in its place."""
    nodes = _Nodes(rewrite, FreeNames(graph))
    result = nodes.best_class()
    graph.node.extend(nodes.made)
    position = next(index for index, value in enumerate(graph.output) if value.name == rewrite.name)
    graph.value_info.append(graph.output[position])
    graph.output[position].CopyFrom(helper.make_tensor_value_info(result, TensorProto.FLOAT, list(rewrite.shape)))


class _Nodes:
    """Makes the nodes of one rewrite."""

    def __init__(self, rewrite: _Rewrite, free: FreeNames) -> None:
        self.made: list[NodeProto] = []
        self._rewrite, self._free = rewrite, free

    def best_class(self) -> str:
        """Name of the result."""
        rewrite, axis = self._rewrite, self._rewrite.axis
        values = rewrite.name
        if rewrite.half:  # as the decoder widens them, before an objectness is multiplied with
            values = self._add("Cast", [values], "wide", to=TensorProto.FLOAT)
        box = self._slice(values, "box", 0, _BOX)
        scores = self._slice(values, "scores", *rewrite.classes)
        if rewrite.objectness:
            objectness = self._slice(values, "objectness", _BOX, _BOX + 1)
            scores = self._add("Mul", [scores, objectness], "products")
        index = self._add("ArgMax", [scores], "index", axis=axis, keepdims=1)
        parts = [box, self._maximum(scores), self._add("Cast", [index], "class", to=TensorProto.FLOAT)]
        if rewrite.classes[1] < rewrite.width:
            parts.append(self._slice(values, "shares", rewrite.classes[1], rewrite.width))
        if not rewrite.objectness:
            return self._add("Concat", parts, "best", axis=axis)
        rows = self._add("Concat", parts, "rows", axis=axis)
        return self._add("Transpose", [rows], "best", perm=[0, 2, 1])

    def _maximum(self, scores: str) -> str:
        axes = [self._rewrite.axis]
        if self._rewrite.opset < _REDUCE_TAKES_AXES_AS_INPUT:
            return self._add("ReduceMax", [scores], "score", axes=axes, keepdims=1)
        return self._add("ReduceMax", [scores, self._constant("axes", axes)], "score", keepdims=1)

    def _slice(self, values: str, what: str, start: int, end: int) -> str:
        limits = {"start": start, "end": end, "axis": self._rewrite.axis}
        inputs = [self._constant(f"{what}_{name}", [value]) for name, value in limits.items()]
        return self._add("Slice", [values, *inputs], what)

    def _constant(self, what: str, values: Sequence[int]) -> str:
        tensor = helper.make_tensor(what, TensorProto.INT64, [len(values)], list(values))
        return self._add("Constant", [], what, value=tensor)

    def _add(self, kind: str, inputs: Sequence[str], what: str, **attributes: Any) -> str:
        name = self._free(f"{self._rewrite.name}_{what}")
        self.made.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name
