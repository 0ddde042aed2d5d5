"""Options of the TensorRT backends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from redline.backends.tensorrt.profiles import Profile, parse_profiles
from redline.core.errors import InputError

Typing = Literal["auto", "weak", "strong"]
Calibrator = Literal["entropy", "minmax"]
Wanted = Literal["auto", "fp32", "tf32", "fp16", "bf16", "int8"]
TYPINGS: tuple[str, ...] = get_args(Typing)
CALIBRATORS: tuple[str, ...] = get_args(Calibrator)
WANTED: tuple[str, ...] = get_args(Wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtOptions:
    """Options of the TensorRT backends.

    Attributes:
        precision: What the builder may use. ``auto`` takes the graph's own. ``fp32`` is true FP32 and ``tf32`` lets
            matrix products round their inputs to 10 bits. With weak typing ``fp16``, ``bf16`` and ``int8`` are the
            builder's flags; with strong typing they must be the graph's types already.
        typing: ``weak`` (the builder chooses among the allowed types), ``strong`` (it follows the graph's), or
            ``auto``: weak where there is such a thing.
        calibrator: How ranges are chosen for ``int8`` with weak typing.
        calibration: An ``.npz`` of samples by input name. Needed for ``int8`` of a graph without Q/DQ nodes.
        calibration_cache: What an earlier calibration wrote; with it no samples are needed.
        calibration_batch: Samples at a time; 0 takes the profile's OPT batch.
        profiles: Optimization profiles, separated by ``;``: ``1,32,64`` are the batch's MIN, OPT and MAX;
            ``image=1x3x224x224,8x3x224x224,32x3x512x512`` names whole shapes. Empty takes ``1,8,32``, unless the
            model's shapes are fixed.
        workspace_bytes: Limit of the memory that a layer may use for itself; 0 leaves TensorRT's own.
        optimization_level: 0 (quick to build) to 5; TensorRT's own is 3.
        hardware_compatible: Build for every GPU since Ampere; slower than an engine for this one.
        version_compatible: Build for later versions of the same major version too.
        target: Build for this compute capability, such as ``sm89``; TensorRT-RTX only.
        timing_cache: File that remembers what was timed, so that the next build is quick. Empty: beside the engine.
        cuda_graph: Whether a session records its work once for each shape and replays it.
        device: Index of the GPU.
        rebuild: Build also where the same engine is there already.
        name: Name of the plan without its suffix; empty takes the model's.
    """

    precision: Wanted = "auto"
    typing: Typing = "auto"
    calibrator: Calibrator = "entropy"
    calibration: str = ""
    calibration_cache: str = ""
    calibration_batch: int = 0
    profiles: str = ""
    workspace_bytes: int = 0
    optimization_level: int = 3
    hardware_compatible: bool = False
    version_compatible: bool = False
    target: str = ""
    timing_cache: str = ""
    cuda_graph: bool = True
    device: int = 0
    rebuild: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("precision", self.precision, WANTED),
            ("typing", self.typing, TYPINGS),
            ("calibrator", self.calibrator, CALIBRATORS),
        ):
            if value not in choices:
                raise InputError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        for name, number in (
            ("workspace_bytes", self.workspace_bytes),
            ("calibration_batch", self.calibration_batch),
            ("device", self.device),
        ):
            if number < 0:
                raise InputError(f"{name} is {number}, expected 0 or more")
        if not 0 <= self.optimization_level <= 5:
            raise InputError(f"optimization_level is {self.optimization_level}, expected 0 to 5")
        if self.target and not re.fullmatch(r"sm\d{2,3}", self.target):
            raise InputError(f"target is {self.target!r}, expected a compute capability such as sm89")
        parse_profiles(self.profiles)

    @property
    def parsed_profiles(self) -> tuple[Profile, ...]:
        """The profiles as values."""
        return parse_profiles(self.profiles)
