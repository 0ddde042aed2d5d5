"""From a variant to the worker that runs it: whether it can run here, the files it needs, the engine, the session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from redline.backends import BACKENDS, why_not
from redline.backends.nvidia import find_gpus
from redline.core.artifact import Engine, Layers
from redline.core.errors import DeviceError, RedlineError, WorkerError
from redline.core.host import cpu_info
from redline.core.packages import missing
from redline.core.plain import Json, to_plain
from redline.core.tensor import Signature
from redline.measurement.worker import Source, call_in_fresh_process, thread_environment
from redline.study.records import ModelFile
from redline.variants import Device, FileStep, Variant, choose_variants

#: The functions that fresh processes call.
STEPS = "redline.commands.steps"
Files = dict[str, Path]
_COMPILE_S = 900.0
_ASK_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One model at one image size, and where what is made of it lies.

    Attributes:
        name: As on the command line.
        ref: How to load it with PyTorch; None for an ONNX file.
        weights: The weights that every process loads; None where the model's own file has them.
        engines: Folder of the compiled engines.
        calibration: An ``.npz`` of samples.
        batches: Sizes that engines are built for.
        threads: Of every runtime.
        method: How static INT8 finds ranges.
        interpreters: Other Pythons by backend, for runtimes that cannot live in one environment with the rest.
    """

    name: str
    ref: ModelFile | None
    weights: Path | None
    signature: Signature
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

    @property
    def torch_arguments(self) -> dict[str, Json]:
        """How a process loads the PyTorch model."""
        weights = str(self.weights) if self.weights else None
        return {"ref": to_plain(self.ref), "weights_file": weights, "signature": to_plain(self.signature)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a worker opens a variant.

    Attributes:
        layers: What the engine has; None where only the open session can tell.
        engine: Its description, where it was compiled.
    """

    source: Source
    layers: Layers | None = None
    engine: Engine | None = None


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
        return str(missing("nncf"))
    if variant.requested == "bf16" and not any("bf16" in flag for flag in cpu_info()[1]):
        return "this CPU has no bf16 arithmetic"
    return None


@cache
def _reason_elsewhere(device: Device, name: str, interpreter: str) -> str | None:
    arguments = {"device": device, "name": name.removesuffix("-control")}
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


def file_source(step: FileStep, files: Files, out: Path, site: Site, more: Mapping[str, Json]) -> Source:
    """How a fresh process makes one model file; ``more`` are arguments of that step alone."""
    if step.parent is None:
        opsets = [opset for opset in map(newest_opset, ("", *site.interpreters.values())) if opset]
        weights = str(site.weights) if site.weights else None
        arguments: dict[str, Json] = {
            "ref": to_plain(site.ref),
            "weights_file": weights,
            "opset": min(opsets, default=None),
        }
    else:
        arguments = {"model": str(files[step.parent])}
        if step.calibrated:
            arguments["samples"] = str(site.calibration)
        if step.name == "int8_static":
            arguments["method"] = site.method
    arguments = {**arguments, "out": str(out), **more}
    return Source(factory=f"{STEPS}:{step.function}", arguments=arguments, environment=site.environment)


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


def open_variant(variant: Variant, site: Site, files: Files, batch: int) -> Launch:
    """How a worker opens the variant; what is to be compiled is compiled first, in a process of its own.

    Args:
        variant: What is opened.
        site: Of which model.
        files: The model files by step.
        batch: Of the calls; what is compiled for a fixed shape is compiled for it.

    Raises:
        WorkerError: it could not be compiled; says why.
    """
    if variant.compiler is None and variant.file is None:
        arguments = {**site.torch_arguments, "threads": site.threads, **variant.options}
        source = Source(
            factory="redline.networks.eager:open_torch",
            arguments=arguments,
            environment=site.environment,
            interpreter=site.interpreter(variant),
        )
        return Launch(source=source)
    compiled = call_in_fresh_process(_compile_source(variant, site, files, batch), timeout_s=_COMPILE_S)
    engine = Engine.described(Path(str(compiled)))
    source = Source(
        factory="redline.backends:open_engine",
        arguments={"path": str(compiled)},
        environment=site.environment,
        interpreter=site.interpreter(variant),
    )
    return Launch(source=source, layers=engine.layers, engine=engine)


def engine_folder(variant: Variant, site: Site, batch: int) -> Path:
    """Where the engine of a variant lies; of a control, that of the baseline."""
    folder = site.engines / variant.name.removesuffix("-control")
    return folder / f"batch{batch}" if variant.fixed else folder


def _compile_source(variant: Variant, site: Site, files: Files, batch: int) -> Source:
    arguments: dict[str, Json] = {"directory": str(engine_folder(variant, site, batch))}
    smallest, largest = min(site.batches), max(site.batches)
    if variant.file is not None:
        arguments |= {"model": str(files[variant.file]), "backend": variant.runtime}
    match variant.compiler:
        case "compile_tensorrt":
            profile = f"{smallest},{largest},{largest}"
            calibration = str(site.calibration) if variant.requested == "int8" else None
            arguments |= {**variant.options, "profile": profile, "calibration": calibration}
        case "compile_torch_tensorrt":
            arguments |= {**site.torch_arguments, **variant.options, "batch": [smallest, largest, largest]}
        case _:
            options = {**variant.options}
            if variant.device == "cpu":
                options["threads"] = site.threads
            if variant.fixed:
                options["batch"] = batch
            arguments["options"] = options
    step = variant.compiler or "compile_engine"
    return Source(
        factory=f"{STEPS}:{step}",
        arguments=arguments,
        environment=site.environment,
        interpreter=site.interpreter(variant),
    )
