"""Which precision each layer of an engine computes in, read from what TensorRT made and not from what was asked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redline.core.artifact import Layers, Precision

# The layer that computes goes before one that only prepares its inputs or rounds its outputs.
_COMPUTES = re.compile(r"conv|correlation|gemm|matmul|matrixmultiply|matrix_multiply|fusion|fc\b|fullyconnected", re.I)
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]\x1f\x1e]*)\]")
_TYPES: tuple[tuple[re.Pattern[str], Precision], ...] = (
    (re.compile(r"\b(fp8|e4m3)", re.I), "fp8"),
    (re.compile(r"\bu?int8\b", re.I), "int8"),
    (re.compile(r"\b(bfloat16|bf16|bfloat)\b", re.I), "bf16"),
    (re.compile(r"\b(half|fp16|float16)\b", re.I), "fp16"),
    (re.compile(r"\b(float|fp32|float32)\b", re.I), "fp32"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        kind: TensorRT's own word for it.
        precision: Of its first input, or of its weights where the inspector leaves formats open ("N/A due to dynamic
            shapes"); None where neither says it.
        tactic: The kernel's name, where TensorRT tells it.
        nodes: The ONNX nodes that went into it.
    """

    name: str
    kind: str
    precision: Precision | None
    tactic: str
    nodes: tuple[str, ...]


def from_inspector(text: str) -> list[EngineLayer]:
    """Layers from the JSON of an engine inspector; an engine built without details tells no more than names."""
    found = []
    for layer in json.loads(text, strict=False).get("Layers", []):
        if not isinstance(layer, dict):
            continue
        metadata = " ".join(str(layer.get(key, "")) for key in ("Metadata", "Metadata "))
        found.append(
            EngineLayer(
                name=str(layer.get("Name", "")),
                kind=f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".strip(),
                precision=_inspected(layer),
                tactic=str(layer.get("TacticName", "")),
                nodes=tuple(_ONNX_LAYER.findall(metadata)),
            )
        )
    return found


def from_report(text: str) -> list[EngineLayer]:
    """Layers from the list that the builder prints at the end; the only source where there is no GPU to inspect on."""
    found = []
    for line in text.splitlines():
        if not line.startswith("Name: ") or "LayerType: " not in line:
            continue
        head = line.partition("Constants: [")[0]
        datatype = re.search(r"Inputs: \[ \{.*?(?:Datatype|Format/Datatype): ([^,}]*)", head)
        found.append(
            EngineLayer(
                name=line[len("Name: ") :].partition(", LayerType: ")[0],
                kind=line.partition("LayerType: ")[2].partition(",")[0],
                precision=_precision(datatype.group(1)) if datatype else None,
                tactic=line.partition("TacticName: ")[2].partition(",")[0],
                nodes=tuple(_ONNX_LAYER.findall(line)),
            )
        )
    return found


def count_layers(layers: Sequence[EngineLayer], compute_nodes: Iterable[str], *, tf32_allowed: bool) -> Layers:
    """How many convolutions and matrix products compute in each precision.

    Each ONNX node counts once, by the engine layer that computes it. Where TensorRT does not say which nodes a layer
    came from, the engine's own compute layers count. TF32 is read from the kernel's name; where kernels are not named
    and TF32 was allowed, a float layer counts as tf32, as nobody can say that it is not.
    """
    of_node: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        for node in layer.nodes:
            of_node.setdefault(node, []).append(layer)
    counts: Counter[Precision] = Counter()
    named = [of_node[node] for node in compute_nodes if node in of_node]
    groups = named or [[layer] for layer in layers if _COMPUTES.search(layer.kind)]
    for group in groups:
        best = max(group, key=lambda layer: (bool(_COMPUTES.search(layer.kind)), layer.precision is not None))
        if best.precision is not None:
            counts[_with_tf32(best, best.precision, tf32_allowed=tf32_allowed)] += 1
    return Layers.of(counts)


def _with_tf32(layer: EngineLayer, precision: Precision, *, tf32_allowed: bool) -> Precision:
    if precision != "fp32" or not tf32_allowed:
        return precision
    tactic = layer.tactic.lower()
    nameless = not tactic or tactic.startswith(("__my", "0x"))
    return "tf32" if nameless or "tf32" in tactic or "s1688" in tactic else "fp32"


def _inspected(layer: Mapping[str, Any]) -> Precision | None:
    inputs = layer.get("Inputs") or [{}]
    weights = [value for key, value in layer.items() if key.endswith("Weights") and isinstance(value, dict)]
    return next((found for found in map(_precision, map(_tensor_type, (inputs[0], *weights))) if found), None)


def _tensor_type(tensor: Mapping[str, Any]) -> str:
    return " ".join(str(tensor[key]) for key in ("Datatype", "Format/Datatype", "Type") if key in tensor)


def _precision(text: str) -> Precision | None:
    return next((precision for pattern, precision in _TYPES if pattern.search(text)), None)
