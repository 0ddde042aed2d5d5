"""Run one graph pass in a process of its own: ``python -m redline.transforms.pass_worker IN OUT PASS``.

Passes are native code that can crash or hang; here they take nobody with them. Nothing is printed but, on failure,
one line on stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto

from redline.core.processes import end_with_parent
from redline.formats.onnx_file import all_nodes, load_proto
from redline.transforms.fold import fold_constants
from redline.transforms.graphs import same_graph
from redline.transforms.passes import PASSES


def run_pass(proto: ModelProto, name: str) -> ModelProto:
    """The model after one pass; ``proto`` keeps what it had."""
    info = PASSES.get(name)
    tool = info.tool if info else "onnxoptimizer"
    match tool:
        case "redline":
            return fold_constants(proto)
        case "onnxslim":
            return _onnxslim(proto)
        case "onnxruntime":
            return _onnxruntime(proto, name)
        case "onnxoptimizer":
            return _onnxoptimizer(proto, name, folds=bool(info and info.folds))


def _onnxoptimizer(proto: ModelProto, name: str, *, folds: bool) -> ModelProto:
    optimizer = importlib.import_module("onnxoptimizer")
    if not folds:
        return _optimized(optimizer, proto, name)
    # Equal weights that an exporter shares through Identity nodes hide from the fusions (4 of 20 fused).
    ready = _optimized(optimizer, proto, "eliminate_identity")
    fused = _optimized(optimizer, ready, name)
    if same_graph(ready, fused):
        return proto
    # onnxoptimizer 0.4 leaves the fused weights as arithmetic for run time (onnx/optimizer issues 133, 178, 255),
    # which is slow, and a quantizer then finds no weights.
    return fold_constants(fused)


def _optimized(optimizer: object, proto: ModelProto, name: str) -> ModelProto:
    result: ModelProto = optimizer.optimize(proto, [name])  # type: ignore[attr-defined]
    return result


def _onnxslim(proto: ModelProto) -> ModelProto:
    slim = importlib.import_module("onnxslim").slim
    copy = ModelProto()
    copy.CopyFrom(proto)
    result = slim(copy)
    if not isinstance(result, ModelProto):
        raise TypeError(f"onnxslim returned {type(result).__name__}, expected a model")
    return result


def _onnxruntime(proto: ModelProto, name: str) -> ModelProto:
    runtime = importlib.import_module("onnxruntime")
    levels = runtime.GraphOptimizationLevel
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = (
        levels.ORT_ENABLE_BASIC if name == "onnxruntime-basic" else levels.ORT_ENABLE_EXTENDED
    )
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(saved)
        runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        result = onnx.load_model(str(saved))
    _drop_unused_domains(result)
    return result


def _drop_unused_domains(proto: ModelProto) -> None:
    """ONNX Runtime imports all of its domains into every file, and other readers stumble over them."""
    used = {"", "ai.onnx"} | {node.domain for node in all_nodes(proto.graph.node)}
    for function in proto.functions:
        used |= {function.domain, *(entry.domain for entry in function.opset_import)}
    kept = [entry for entry in proto.opset_import if entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def main(arguments: list[str]) -> int:
    """Read IN, run PASS, write OUT; 0 when done."""
    source, target, name = arguments
    proto = load_proto(Path(source))
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        result = run_pass(proto, name)
    del result.metadata_props[:]
    result.metadata_props.extend(proto.metadata_props)
    onnx.save_model(result, target)
    return 0


if __name__ == "__main__":
    end_with_parent()
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception as error:  # noqa: BLE001 (the edge of a process: it becomes the reason)
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}\n")
        sys.exit(1)
