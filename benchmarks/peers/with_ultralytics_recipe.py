"""The INT8 ONNX recipe that Ultralytics 8.4 applies to its own exports, as a call to ONNX Runtime.

Only the recipe's facts are used: the static quantizer at its defaults, with every operator but Conv, Gemm and MatMul
left in floating point. Ultralytics itself is neither installed nor copied.
"""

from __future__ import annotations

import onnx
from common import CalibrationReader, Job, Product, input_name, main, versions
from onnxruntime.quantization import quantize_static

QUANTIZED = frozenset({"Conv", "Gemm", "MatMul"})


def recipe(job: Job) -> tuple[Product, ...]:
    graph = onnx.load(job.model, load_external_data=False).graph
    left_out = [node.name for node in graph.node if node.op_type not in QUANTIZED]
    reader = CalibrationReader(job.calibration, input_name(job.model))
    quantize_static(job.model, job.out / "int8.onnx", reader, nodes_to_exclude=left_out)
    how = f"defaults (signed 8-bit, per tensor), {len(left_out)} nodes other than Conv, Gemm, MatMul excluded"
    return (Product(name="ultralytics-recipe", file="int8.onnx", format="onnx", how=how, runtime="onnxruntime"),)


if __name__ == "__main__":
    main(
        "ultralytics-recipe",
        lambda: f"recipe of 8.4.190 on {versions('onnxruntime')}",
        {"quantize_static(model, out, reader, nodes_to_exclude=<all but Conv, Gemm, MatMul>)": recipe},
    )
