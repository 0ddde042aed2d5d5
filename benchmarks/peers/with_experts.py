"""What an expert makes by hand: OpenVINO with NNCF, and ONNX Runtime's U8S8 per channel."""

from __future__ import annotations

import nncf
import openvino as ov
from common import CalibrationReader, Job, Product, input_name, main, versions
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

LATENCY = {"PERFORMANCE_HINT": "LATENCY"}


def openvino_default(job: Job) -> tuple[Product, ...]:
    ov.save_model(ov.convert_model(job.model), job.out / "default.xml", compress_to_fp16=False)
    how = "fp32 weights, OpenVINO's default inference precision (bf16 where the CPU has it)"
    return (_ir("openvino-default", "default.xml", how, None),)


def nncf_int8(job: Job) -> tuple[Product, ...]:
    model = ov.convert_model(job.model)
    images = nncf.Dataset([job.calibration[index : index + 1] for index in range(len(job.calibration))])
    quantized = nncf.quantize(model, images, subset_size=len(job.calibration))
    ov.save_model(quantized, job.out / "int8.xml")
    products = [_ir("openvino-nncf-int8", "int8.xml", "nncf.quantize defaults, dynamic batch", None)]
    for batch in (1, 8):
        fixed = quantized.clone()
        fixed.reshape([batch, *job.calibration.shape[1:]])
        ov.save_model(fixed, job.out / f"int8_b{batch}.xml")
        how = f"nncf.quantize defaults, static shape, batch {batch}"
        products.append(_ir(f"openvino-nncf-int8-b{batch}", f"int8_b{batch}.xml", how, batch))
    return tuple(products)


def ort_u8s8(job: Job) -> tuple[Product, ...]:
    prepared = job.out / "prepared.onnx"
    quant_pre_process(str(job.model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        prepared,
        job.out / "u8s8.onnx",
        CalibrationReader(job.calibration, input_name(job.model)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    prepared.unlink()
    how = "Q/DQ, unsigned 8-bit activations, signed 8-bit weights per channel, min-max"
    return (Product(name="ort-u8s8-per-channel", file="u8s8.onnx", format="onnx", how=how, runtime="onnxruntime"),)


def _ir(name: str, file: str, how: str, batch: int | None) -> Product:
    return Product(
        name=name,
        file=file,
        format="openvino-ir",
        how=how,
        runtime="openvino",
        runtime_options=dict(LATENCY),
        batch=batch,
    )


if __name__ == "__main__":
    main(
        "experts",
        lambda: versions("openvino", "nncf", "onnxruntime"),
        {
            "openvino.compile_model(model)": openvino_default,
            "nncf.quantize(openvino_model, nncf.Dataset(images))": nncf_int8,
            "quant_pre_process + quantize_static(QUInt8, QInt8, per_channel=True)": ort_u8s8,
        },
    )
