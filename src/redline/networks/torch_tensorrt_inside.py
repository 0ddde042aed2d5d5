"""What is inside of a module that Torch-TensorRT made, and what its INT8 calibrator is given."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from redline.core.artifact import Layers, Precision
from redline.core.errors import DataError
from redline.core.tensor import Array

_ENGINE_NODE = "tensorrt::execute_engine"
_COMPUTES = re.compile(r"conv|gemm|matmul|matrix_?multiply|fully_?connected", re.IGNORECASE)
_TYPES: tuple[tuple[re.Pattern[str], Precision], ...] = (
    (re.compile(r"\bint8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\b(bf16|bfloat16)\b", re.IGNORECASE), "bf16"),
    (re.compile(r"\b(half|fp16|float16)\b", re.IGNORECASE), "fp16"),
    (re.compile(r"\b(float|fp32|float32)\b", re.IGNORECASE), "fp32"),
)


def engines_in(made: Any) -> list[Any]:
    """Every TensorRT engine in a compiled module; something for each, even where it cannot be got hold of."""
    if isinstance(made, torch.jit.ScriptModule):
        graph: Any = made.inlined_graph
        return [_engine_of(made, node) for node in graph.findAllNodes(_ENGINE_NODE, recurse=True)]
    if isinstance(made, nn.Module):
        return [part for part in made.modules() if type(part).__name__.endswith("TorchTensorRTModule")]
    return []


def left_to_torch(made: Any) -> int:
    """How many operations (TorchScript) or parts (dynamo) of a compiled module run in PyTorch."""
    if isinstance(made, torch.jit.ScriptModule):
        return sum(node.kind().startswith("aten::") for node in made.inlined_graph.nodes())
    if isinstance(made, nn.Module):
        return sum("_run_on_gpu" in name for name, _ in made.named_children())
    return 0


def read_layers(engines: Sequence[Any]) -> Layers | None:
    """Which precisions the engines' layers compute in; None where an engine does not say."""
    counts: Counter[Precision] = Counter()
    for engine in engines:
        found = precisions_in(_told_by(engine))
        if found is None:
            return None
        counts.update(found)
    return Layers.of(counts) if counts else None


def precisions_in(text: str) -> list[Precision] | None:
    """The precision of each convolution and matrix product that an engine inspector tells of, by its first input.

    None where the engine was built without details, which is what Torch-TensorRT does unless it is debugged.

    >>> precisions_in('{"Layers": ["conv1"], "Bindings": []}')
    >>> precisions_in('{"Layers": [{"LayerType": "gemm", "Inputs": [{"Format/Datatype": "Row major Half format"}]}]}')
    ['fp16']
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        return None
    found: list[Precision] = []
    for layer in layers:
        kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
        inputs = layer.get("Inputs") or []
        if not _COMPUTES.search(kind) or not inputs:
            continue
        described = " ".join(str(inputs[0].get(key, "")) for key in ("Datatype", "Format/Datatype"))
        precision = next((name for pattern, name in _TYPES if pattern.search(described)), None)
        if precision is None:
            return None
        found.append(precision)
    return found


def calibrator(library: Any, path: Path, names: Sequence[str], batch: int, device: torch.device) -> Any:
    """An entropy calibrator over the samples of a file, in batches of the size that the engine is to be fast at.

    TensorRT calibrates at that size, and reads past the end of smaller batches.

    Raises:
        DataError: the file cannot be read, or has too few samples.
    """
    batches = calibration_batches(path, names, batch)
    held: list[list[Tensor]] = []

    def get_batch(_: object, __: object) -> list[int] | None:
        if not batches:
            return None
        held[:] = [[torch.from_numpy(array).to(device) for array in batches.pop(0)]]
        torch.cuda.synchronize(device)
        return [tensor.data_ptr() for tensor in held[0]]

    methods = {
        "get_batch_size": lambda _: batch,
        "get_batch": get_batch,
        "read_calibration_cache": lambda _: b"",
        "write_calibration_cache": lambda _, __: None,
        "__reduce__": lambda self: type(self).__name__,  # it is copied with the other arguments, and must stay itself
    }
    return type("Calibrator", (library._C.IInt8EntropyCalibrator2,), methods)()  # noqa: SLF001 (as its own ptq does)


def calibration_batches(path: Path, names: Sequence[str], batch: int) -> list[list[Array]]:
    """The samples of an ``.npz`` file in whole batches: for each, an array for each input, in the order of ``names``.

    Raises:
        DataError: the file cannot be read, lacks an input, or has less than one batch.
    """
    try:
        with np.load(path) as data:
            arrays = [np.ascontiguousarray(data[name]) for name in names]
    except (OSError, ValueError, KeyError) as error:
        wanted = ", ".join(names)
        raise DataError(f"{path} cannot be calibrated on ({error}); expected an .npz file with {wanted}") from error
    count = min(len(array) for array in arrays) // batch
    if not count:
        raise DataError(f"{path} has fewer samples than the batch of {batch} that INT8 is calibrated at")
    return [[array[index * batch : (index + 1) * batch] for array in arrays] for index in range(count)]


def _engine_of(made: Any, node: Any) -> Any:
    source = list(node.inputs())[1].node()
    return getattr(made, source.s("name"), None) if source.kind() == "prim::GetAttr" else None


def _told_by(engine: Any) -> str:
    for holder, method in (
        (engine, "get_layer_info"),
        (engine, "get_engine_layer_info"),
        (getattr(engine, "engine", None), "get_engine_layer_info"),
    ):
        ask = getattr(holder, method, None)
        if ask is not None:
            try:
                return str(ask())
            except Exception:  # noqa: BLE001, S112 (another library's inspector: what it does not tell is not known)
                continue
    return ""
