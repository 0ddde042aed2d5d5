"""ONNX Runtime as its documentation's first calls give it: the model as it is, and both quantizers' defaults."""

from __future__ import annotations

import shutil

from common import CalibrationReader, Job, Product, input_name, main, versions
from onnxruntime.quantization import quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


def as_it_is(job: Job) -> tuple[Product, ...]:
    shutil.copyfile(job.model, job.out / "fp32.onnx")
    return (
        Product(name="ort-fp32", file="fp32.onnx", format="onnx", how="the model as exported", runtime="onnxruntime"),
    )


def dynamic(job: Job) -> tuple[Product, ...]:
    quantize_dynamic(job.model, job.out / "dynamic.onnx")
    how = "defaults: signed 8-bit weights, per tensor; activations quantized at run time"
    return (Product(name="ort-dynamic", file="dynamic.onnx", format="onnx", how=how, runtime="onnxruntime"),)


def dynamic_prepared(job: Job) -> tuple[Product, ...]:
    """The same after the pre-processing that the quantizer's own warning asks for."""
    prepared = job.out / "prepared.onnx"
    quant_pre_process(str(job.model), str(prepared))
    quantize_dynamic(prepared, job.out / "dynamic_prepared.onnx")
    prepared.unlink()
    how = "pre-processed, then defaults: signed 8-bit weights, per tensor; activations quantized at run time"
    product = Product(
        name="ort-dynamic-prepared", file="dynamic_prepared.onnx", format="onnx", how=how, runtime="onnxruntime"
    )
    return (product,)


def static(job: Job) -> tuple[Product, ...]:
    reader = CalibrationReader(job.calibration, input_name(job.model))
    quantize_static(job.model, job.out / "static.onnx", reader)
    how = "defaults: Q/DQ, signed 8-bit activations and weights, per tensor, min-max"
    return (Product(name="ort-static", file="static.onnx", format="onnx", how=how, runtime="onnxruntime"),)


if __name__ == "__main__":
    main(
        "onnxruntime",
        lambda: versions("onnxruntime"),
        {
            "onnxruntime.InferenceSession(model)": as_it_is,
            "onnxruntime.quantization.quantize_dynamic(model, out)": dynamic,
            "quant_pre_process(model, prepared); quantize_dynamic(prepared, out)": dynamic_prepared,
            "onnxruntime.quantization.quantize_static(model, out, reader)": static,
        },
    )
