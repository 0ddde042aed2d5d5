"""Which arguments say what to each generation of Torch-TensorRT; knows its names and imports nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from redline.core.errors import InputError, UnsupportedError

TrtPrecision = Literal["fp32", "tf32", "fp16", "int8"]
FrontEnd = Literal["ts", "dynamo"]
Version = tuple[int, int]

_FIRST_DYNAMO_THAT_SAVES = (2, 3)
_LAST_CALIBRATORS = (2, 8)
# From here on use_explicit_typing is the default; before, enabled_precisions said what TensorRT may choose from.
_FIRST_STRONGLY_TYPED = (2, 10)
# Here enabled_precisions and use_explicit_typing are gone, and what is given for the former is ignored silently.
_FIRST_WITHOUT_PRECISIONS = (2, 13)
_ENABLED: Mapping[TrtPrecision, tuple[str, ...]] = {
    "fp32": ("float32",),
    "tf32": ("float32",),
    "fp16": ("float32", "float16"),
    "int8": ("float32", "float16", "int8"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilePlan:
    """How to ask one generation of Torch-TensorRT for one precision.

    Attributes:
        half: Whether the module and its inputs become FP16 before they are compiled.
        binding: Whether TensorRT must compute in the precision that was asked for; else it chooses layer by layer
            among that one and coarser ones.
        calibrates: Whether a calibrator goes with it.
        saves: Whether the result can be saved.
        arguments: Keyword arguments; ``enabled_precisions`` holds names of torch's types.
    """

    front_end: FrontEnd
    half: bool
    binding: bool
    calibrates: bool
    saves: bool
    arguments: Mapping[str, object]


def plan_compile(
    version: Version, precision: TrtPrecision, ir: FrontEnd | Literal["auto"] = "auto", *, scripted: bool = False
) -> CompilePlan:
    """How to compile.

    Args:
        version: Of Torch-TensorRT, such as ``(2, 10)``.
        precision: ``fp32`` forbids TF32, ``tf32`` allows it.
        ir: ``auto`` takes TorchScript for 2.2 and for TorchScript modules, dynamo for all else.
        scripted: Whether the model is a TorchScript module.

    Raises:
        UnsupportedError: this generation cannot do that; says what can.

    >>> plan_compile((2, 13), "fp16").half
    True
    >>> plan_compile((2, 5), "fp16").arguments["enabled_precisions"]
    ('float32', 'float16')
    """
    if precision not in get_args(TrtPrecision) or ir not in (*get_args(FrontEnd), "auto"):
        raise InputError(
            f"got precision {precision!r} and ir {ir!r}, expected {get_args(TrtPrecision)} and auto, ts or dynamo"
        )
    front_end: FrontEnd = ir if ir != "auto" else "ts" if scripted or version < _FIRST_DYNAMO_THAT_SAVES else "dynamo"
    if front_end == "ts":
        return _torchscript(version, precision)
    if scripted:
        raise UnsupportedError("the dynamo front end takes no TorchScript; give the module, or ir='ts'")
    return _dynamo(version, precision)


def _torchscript(version: Version, precision: TrtPrecision) -> CompilePlan:
    if version >= _FIRST_WITHOUT_PRECISIONS:
        raise UnsupportedError(
            f"the TorchScript front end of Torch-TensorRT {_name(version)} chooses precisions by flags that its "
            "TensorRT 11 no longer has; take ir='dynamo'"
        )
    if precision == "int8" and version > _LAST_CALIBRATORS:
        raise _without_int8(version)
    return CompilePlan(
        front_end="ts",
        half=False,
        binding=precision in ("fp32", "tf32"),
        calibrates=precision == "int8",
        saves=True,
        arguments={
            "enabled_precisions": _ENABLED[precision],
            "disable_tf32": precision == "fp32",
            "min_block_size": 1,
            "truncate_long_and_double": True,
        },
    )


def _dynamo(version: Version, precision: TrtPrecision) -> CompilePlan:
    if precision == "int8":
        raise _without_int8(version)
    strong = version >= _FIRST_STRONGLY_TYPED
    arguments: dict[str, object] = {"disable_tf32": precision == "fp32", "min_block_size": 1}
    if version < _FIRST_DYNAMO_THAT_SAVES:
        arguments |= {"truncate_long_and_double": True, "output_format": "fx"}
    else:
        arguments["truncate_double"] = True
    if not strong:
        arguments["enabled_precisions"] = _ENABLED[precision]
    elif version < _FIRST_WITHOUT_PRECISIONS:
        arguments["use_explicit_typing"] = True
    return CompilePlan(
        front_end="dynamo",
        half=strong and precision == "fp16",
        binding=strong or precision in ("fp32", "tf32"),
        calibrates=False,
        saves=version >= _FIRST_DYNAMO_THAT_SAVES,
        arguments=arguments,
    )


def _without_int8(version: Version) -> UnsupportedError:
    return UnsupportedError(
        f"Torch-TensorRT {_name(version)} has no calibrators here: its INT8 is for modules that nvidia-modelopt "
        "quantized; build an INT8 engine from the ONNX file instead (redline build --precision int8), or take "
        "ir='ts' of Torch-TensorRT 2.2 to 2.8"
    )


def _name(version: Version) -> str:
    return ".".join(map(str, version))
