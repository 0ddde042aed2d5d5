"""What each runtime wants of an INT8 file: one file does not serve all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from redline.core.errors import InputError

Target = Literal["onnxruntime", "openvino", "tensorrt"]
TARGETS: tuple[str, ...] = get_args(Target)
Int8Type = Literal["uint8", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How to quantize for one runtime; weights are always symmetric int8, one scale per output channel.

    Attributes:
        activations: Type of the quantized activations.
        symmetric: True where the zero point of activations must be 0.
        quantize_bias: True where biases become int32 behind DequantizeLinear.
        dynamic_weights: Type of the weights of a dynamic file; None where the runtime refuses such files.
        dynamic_refusal: Why it refuses them.
        why: What was measured or read that led to these choices.
        elsewhere: What to expect of the static file on another runtime; None where nothing is known to be bad.
    """

    activations: Int8Type
    symmetric: bool
    quantize_bias: bool
    dynamic_weights: Int8Type | None
    dynamic_refusal: str | None = None
    why: str
    elsewhere: str | None = None


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "onnxruntime": Preset(
            activations="uint8",
            symmetric=False,
            quantize_bias=True,
            dynamic_weights="uint8",
            why="measured at batch 1 (results/cpu/int8_files.json: ResNet-18 224, 1 thread, VNNI, ONNX Runtime 1.31): "
            "static uint8 activations with int8 weights 3.4x FP32, int8 activations 1.25x; dynamic with uint8 weights "
            "1.04x, with int8 0.26x",
        ),
        "openvino": Preset(
            activations="uint8",
            symmetric=False,
            quantize_bias=True,
            dynamic_weights=None,
            dynamic_refusal="OpenVINO turns ConvInteger back into float convolutions (read from its runtime graph), "
            "which is slower than FP32; use --mode static",
            why="the same file as for onnxruntime: 3.7x ONNX Runtime's FP32 in OpenVINO 2026.4 at batch 1, int8 "
            "activations 3.3x (results/cpu/int8_files.json); against NNCF's file see results/cpu/resnet18.md",
        ),
        "tensorrt": Preset(
            activations="int8",
            symmetric=True,
            quantize_bias=False,
            dynamic_weights=None,
            dynamic_refusal="TensorRT refuses ConvInteger, MatMulInteger and DynamicQuantizeLinear; use --mode static",
            why="TensorRT wants zero points of 0 and refuses an int32 bias behind DequantizeLinear; tried with "
            "TensorRT-RTX 1.7 (opset 20, ResNet-18, engine for SM 8.9): this file builds, that of onnxruntime does not",
            elsewhere="slow on ONNX Runtime's CPU: int8 activations measured 1.25x FP32 there, uint8 ones 3.4x "
            "(results/cpu/int8_files.json: ResNet-18 224, batch 1, 1 thread, VNNI)",
        ),
    }
)


def preset_for(target: str) -> Preset:
    """The preset of a runtime.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return PRESETS[target]
    except KeyError as error:
        raise InputError(f"target is {target!r}, expected one of {', '.join(PRESETS)}") from error
