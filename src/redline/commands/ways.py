"""From a variant to the worker that runs it: whether it can run here, the files it needs, the engine, the session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redline.backends import BACKENDS, why_not
from redline.backends.nvidia import find_gpus
from redline.core.artifact import Layers
from redline.core.errors import DeviceError, RedlineError, WorkerError
from redline.core.host import cpu_info
from redline.measurement.worker import Source, call_in_fresh_process, thread_environment
from redline.variants import Device, FileStep, Variant, choose_variants

STEPS = "redline.commands.steps"
Files = dict[str, Path]
_COMPILE_S = 900.0
_ASK_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One model at one image size, and where what is made of it lies.

    Attributes:
        name: As on the command line.
        ref: How to load it with PyTorch; None for an ONNX file.
        weights: The weights that every process loads; None where the model's own file has them.
        signature: Its inputs and outputs, as JSON.
        engines: Folder of the compiled engines.
        calibration: An ``.npz`` of samples.
        batches: Sizes that engines are built for.
        threads: Of every runtime.
        method: How static INT8 finds ranges.
        interpreters: Other Pythons by backend, for runtimes that cannot live in one environment with the rest.
    """

    name: str
    ref: Mapping[str, Any] | None
    weights: Path | None
    signature: Mapping[str, Any]
    engines: Path
    calibration: Path
    batches: tuple[int, ...]
    threads: int
    method: str = "minmax"
    interpreters: Mapping[str, str] = field(default_factory=dict)

    def interpreter(self, variant: Variant) -> str:
        """The Python that runs a variant; empty is this one."""
        return self.interpreters.get(variant.backend, "")

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every process that works on it."""
        return thread_environment(self.threads)


def stem_of(model: str) -> str:
    """A file name for a model's name.

    >>> stem_of("nets/small.py:make"), stem_of("out/model.onnx"), stem_of("torchvision:vgg16")
    ('small_make', 'model', 'torchvision_vgg16')
    """
    name = model.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in (".onnx", ".pt2", ".pt", ".pth", ".ts"):
        name = name.removesuffix(suffix)
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name.replace(".py:", "_")) or "model"


def reason_against(variant: Variant, interpreter: str = "") -> str | None:
    """Why a variant cannot run on this machine, in words; None where it can as far as one sees.

    Args:
        variant: The way to run a model.
        interpreter: The Python that is to run it; empty is this one.
    """
    if interpreter:
        return _reason_elsewhere(variant.device, variant.name, interpreter)
    package, extra = _package_of(variant.runtime)
    if find_spec(package) is None:
        return f"{package} is not installed; type: pip install 'redline[{extra}]'"
    if variant.device == "cuda":
        return _reason_against_gpu(variant)
    if variant.file == "int8_nncf" and find_spec("nncf") is None:
        return "nncf is not installed; type: pip install 'redline[openvino]'"
    if variant.requested == "bf16" and not any("bf16" in flag for flag in cpu_info()[1]):
        return "this CPU has no bf16 arithmetic"
    return None


@cache
def _reason_elsewhere(device: Device, name: str, interpreter: str) -> str | None:
    arguments = {"device": device, "name": name}
    source = Source(factory=f"{__name__}:reason_by_name", arguments=arguments, interpreter=interpreter)
    try:
        told = call_in_fresh_process(source, timeout_s=_ASK_S)
    except (WorkerError, OSError) as error:
        return f"{interpreter} cannot run it: {error}"
    return str(told) if told else None


def reason_by_name(device: Device, name: str) -> str | None:
    """What :func:`reason_against` says of the variant of that name."""
    return reason_against(choose_variants((name,), device)[0])


def require_gpu() -> None:
    """Make sure that there is an NVIDIA GPU.

    Raises:
        DeviceError: there is none, or its driver does not answer; says why.
    """
    found = find_gpus()
    if not found.gpus:
        raise DeviceError(f"device cuda cannot be used: {found.reason or 'no NVIDIA GPU was found'}")


def _package_of(runtime: str) -> tuple[str, str]:
    if runtime in BACKENDS:
        return BACKENDS[runtime].package, BACKENDS[runtime].extra
    return runtime, runtime


def _reason_against_gpu(variant: Variant) -> str | None:
    found = find_gpus()
    if not found.gpus:
        return found.reason or "no NVIDIA GPU was found"
    return why_not(variant.runtime) if variant.runtime in BACKENDS else None


def file_source(step: FileStep, files: Files, out: Path, place: Place, **more: Any) -> Source:
    """How a fresh process makes one model file; ``more`` are arguments of that step alone."""
    if step.parent is None:
        arguments: dict[str, Any] = {
            "ref": place.ref,
            "weights_file": str(place.weights) if place.weights else None,
            "opset": min(filter(None, map(newest_opset, ("", *place.interpreters.values()))), default=None),
        }
    else:
        arguments = {"model": str(files[step.parent])}
        if step.calibrated:
            arguments["samples"] = str(place.calibration)
        if step.name == "int8_static":
            arguments["method"] = place.method
    arguments = {**arguments, "out": str(out), **more}
    return Source(factory=f"{STEPS}:{step.function}", arguments=arguments, environment=place.environment)


@cache
def newest_opset(interpreter: str = "") -> int | None:
    """The newest opset that everything installed reads; None where today's exporters need not be told."""
    if interpreter:
        source = Source(factory=f"{__name__}:{newest_opset.__name__}", arguments={}, interpreter=interpreter)
        try:
            told = call_in_fresh_process(source, timeout_s=_ASK_S)
        except (WorkerError, OSError):
            return None
        return int(told) if told else None
    if find_spec("tensorrt") is None:
        return None
    from redline.backends.tensorrt.library import load_library

    try:
        return load_library("tensorrt").highest_opset
    except RedlineError:
        return None


def open_variant(variant: Variant, place: Place, files: Files) -> tuple[Source, Layers | None]:
    """How a worker opens the variant; what is to be compiled is compiled first, in a process of its own.

    Returns:
        The source, and the layers that the engine has; None where only the open session can tell.

    Raises:
        WorkerError: it could not be compiled; says why.
    """
    if variant.compiler is None and variant.file is None:
        arguments = {**_torch_arguments(place), "threads": place.threads, **variant.options}
        factory = "redline.networks.eager:open_torch"
        interpreter = place.interpreter(variant)
        return Source(
            factory=factory, arguments=arguments, environment=place.environment, interpreter=interpreter
        ), None
    compiled = call_in_fresh_process(_compile_source(variant, place, files), timeout_s=_COMPILE_S)
    source = Source(
        factory="redline.backends:open_engine",
        arguments={"path": compiled["engine"]},
        environment=place.environment,
        interpreter=place.interpreter(variant),
    )
    return source, Layers.of(dict(compiled["layers"]))


def _torch_arguments(place: Place) -> dict[str, Any]:
    return {
        "ref": place.ref,
        "weights_file": str(place.weights) if place.weights else None,
        "signature": place.signature,
    }


def _compile_source(variant: Variant, place: Place, files: Files) -> Source:
    arguments: dict[str, Any] = {"directory": str(place.engines / variant.name)}
    smallest, largest = min(place.batches), max(place.batches)
    if variant.file is not None:
        arguments |= {"model": str(files[variant.file]), "backend": variant.runtime}
    match variant.compiler:
        case "compile_tensorrt":
            profile = f"{smallest},{largest},{largest}"
            calibration = str(place.calibration) if variant.requested == "int8" else None
            arguments |= {**variant.options, "profile": profile, "calibration": calibration}
        case "compile_torch_tensorrt":
            arguments |= {**_torch_arguments(place), **variant.options, "batch": [smallest, largest, largest]}
        case _:
            threads = {"threads": place.threads} if variant.device == "cpu" else {}
            arguments["options"] = {**variant.options, **threads}
    step = variant.compiler or "compile_engine"
    return Source(
        factory=f"{STEPS}:{step}",
        arguments=arguments,
        environment=place.environment,
        interpreter=place.interpreter(variant),
    )
