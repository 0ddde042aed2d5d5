"""Build an engine: ONNX file in, serialized plan and what is in it out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx

from redline.backends.tensorrt.calibrators import Calibration, cache_key, make_calibrator
from redline.backends.tensorrt.layers import EngineLayer, count_layers, from_inspector, from_report
from redline.backends.tensorrt.library import Library
from redline.backends.tensorrt.options import TensorRtOptions
from redline.backends.tensorrt.parsing import parse
from redline.backends.tensorrt.profiles import Profile, Range
from redline.core.artifact import Layers, OnnxModel
from redline.core.errors import BuildError, InputError, UnsupportedError
from redline.core.files import write_whole
from redline.core.samples import Samples, load_saved
from redline.formats.onnx_file import all_nodes

Progress = Callable[[str, int, int], bool | None]
_logger = logging.getLogger(__name__)
_COMPUTE_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A serialized engine and what is known of it.

    Attributes:
        typing: ``weak`` or ``strong``: how it was built.
        precision: What the builder was allowed, from the graph where nobody asked for anything.
        calibration: ``computed`` or ``from cache``; None where nothing was calibrated.
        calibration_cache: The file of what was learnt.
        layer_source: Where ``layers`` was read: ``inspector`` or ``builder's report``.
    """

    plan: bytes
    layers: Layers
    layer_source: str
    typing: str
    precision: str
    profiles: tuple[dict[str, Range], ...]
    seconds: float
    calibration: str | None
    calibration_cache: Path | None


def build_plan(
    library: Library, model: OnnxModel, options: TensorRtOptions, directory: Path, progress: Progress | None = None
) -> Built:
    """Build it.

    Args:
        library: The TensorRT to build with.
        model: What to build; its external weights are found beside it.
        options: What the engine shall be.
        directory: Where the timing cache and calibration caches lie.
        progress: Called with a phase's name, the steps done and the steps in all; returning False stops the build.

    Raises:
        UnsupportedError: this generation of TensorRT, or this machine, cannot do that at all.
        BuildError: TensorRT refused the model; says which node and why.
        InputError: the options do not fit the model.
    """
    started = perf_counter()
    precision, strong = resolve(library, model, options)
    library.told.clear()
    builder = library.builder_for(options.device)
    network = builder.create_network(library.network_flags(strong=strong))
    parse(library, model, network)
    config = builder.create_builder_config()
    _configure(library, config, options, precision)
    profiles = _add_profiles(builder, config, model, options)
    calibration = None
    if not strong:
        calibration = _allow(library, builder, config, model, options, precision, profiles, directory)
    timing = _load_timing_cache(library, config, options, directory)
    if progress is not None:
        _report_progress(library, config, progress)
    serialized = builder.build_serialized_network(network, config)
    if calibration is not None:
        calibration.check()
    if serialized is None:
        raise BuildError(
            f"{model.path.name}: {library.title} could not build it: {library.told.reason('no reason given')}"
        )
    plan = bytes(serialized)
    _save_timing_cache(config, timing)
    found, source = _layers_of(library, plan, options)
    return Built(
        plan=plan,
        layers=count_layers(found, _compute_nodes(model.path), tf32_allowed=precision == "tf32"),
        layer_source=source,
        typing="strong" if strong else "weak",
        precision=precision,
        profiles=tuple(profiles),
        seconds=perf_counter() - started,
        calibration=None if calibration is None else ("from cache" if calibration.used_cache else "computed"),
        calibration_cache=None if calibration is None else calibration.cache,
    )


def resolve(library: Library, model: OnnxModel, options: TensorRtOptions) -> tuple[str, bool]:
    """The precision to allow, and whether typing is strong.

    Raises:
        UnsupportedError: this generation has no such typing.
        InputError: strong typing was to give another precision than the graph has.
    """
    strong = options.typing == "strong" or (options.typing == "auto" and not library.weak_typing)
    if strong and not library.strong_typing:
        raise UnsupportedError(
            f"{library.title} has no strong typing (TensorRT 9 brought it); use typing weak, where a Q/DQ or FP16 "
            "graph is followed as closely as this version can"
        )
    if options.typing == "weak" and not library.weak_typing:
        raise UnsupportedError(
            f"{library.title} has no weak typing: precision flags and calibrators ended with TensorRT 10. Use "
            "typing strong: redline build converts the graph to FP16, or to INT8 with Q/DQ nodes, by itself"
        )
    graph = _graph_precision(model)
    wanted = graph if options.precision == "auto" else options.precision
    if strong and wanted not in (graph, "tf32"):
        mode = "fp16" if wanted == "fp16" else "static"
        raise InputError(
            f"{model.path.name} is {graph} and strong typing follows the graph, got precision {wanted}; convert it "
            f"first: redline quantize {model.path.name} --for tensorrt --mode {mode}"
        )
    return wanted, strong


def calibration_file(library: Library, model: OnnxModel, options: TensorRtOptions) -> str | None:
    """Name of the file that a calibration for this build would write; None where nothing is calibrated."""
    precision, strong = resolve(library, model, options)
    if strong or precision != "int8" or _graph_precision(model) == "int8":
        return None
    return _calibration_plan(library, model, options, _ranges(model, options))[1]


def _graph_precision(model: OnnxModel) -> str:
    """The lowest type that the graph's compute layers have: one INT8 layer needs the builder's leave too."""
    counts = dict(model.layers.counts)
    return next((name for name in ("fp8", "int8", "fp16", "bf16") if counts.get(name)), "fp32")


def _configure(library: Library, config: Any, options: TensorRtOptions, precision: str) -> None:
    module = library.module
    if options.workspace_bytes:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    # TensorRT's own default is on: what is called FP32, or stays in FP32 because it is sensitive, would be TF32.
    if precision == "tf32":
        config.set_flag(module.BuilderFlag.TF32)
    else:
        config.clear_flag(module.BuilderFlag.TF32)
    library.share_profiles(config)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        if library.flavour == "tensorrt-rtx":
            raise UnsupportedError(f"{library.title} makes no version-compatible engines; build one for each version")
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.target:
        _aim(library, config, options.target)


def _aim(library: Library, config: Any, target: str) -> None:
    if library.flavour != "tensorrt-rtx":
        raise UnsupportedError(
            f"got target {target}: {library.title} builds for the GPU that it runs on; use the backend tensorrt-rtx"
        )
    capability = getattr(library.module.ComputeCapability, target.upper(), None)
    if capability is None:
        known = [name.lower() for name in dir(library.module.ComputeCapability) if name.startswith("SM")]
        raise UnsupportedError(f"{library.title} cannot build for {target}, expected one of {', '.join(sorted(known))}")
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(capability, 0):
        raise UnsupportedError(f"{library.title} refused target {target}: {library.told.reason('no reason given')}")


def _add_profiles(builder: Any, config: Any, model: OnnxModel, options: TensorRtOptions) -> list[dict[str, Range]]:
    ranges = _ranges(model, options)
    for wanted in ranges:
        profile = builder.create_optimization_profile()
        for name, limits in wanted.items():
            profile.set_shape(name, limits.smallest, limits.usual, limits.largest)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"{model.path.name}: TensorRT refused the profile {_profile_text(wanted)}")
    return ranges


def _ranges(model: OnnxModel, options: TensorRtOptions) -> list[dict[str, Range]]:
    asked = options.parsed_profiles
    ranges = [profile.ranges(model.signature) for profile in asked or (Profile(),)]
    if any(ranges):
        return ranges
    if asked:
        raise InputError(f"{model.path.name} has fixed shapes and takes no profile; export it with a dynamic batch")
    return []


def _allow(
    library: Library,
    builder: Any,
    config: Any,
    model: OnnxModel,
    options: TensorRtOptions,
    precision: str,
    profiles: list[dict[str, Range]],
    directory: Path,
) -> Calibration | None:
    """Set the flags of weak typing; returns the calibration where there is one."""
    flags = library.module.BuilderFlag
    # INT8 with FP16 beside it: what has no INT8 kernel, or is faster so, runs in FP16.
    for name in {"fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8", "FP16"), "fp8": ("FP8", "FP16")}.get(
        precision, ()
    ):
        flag = getattr(flags, name, None)
        if flag is None:
            raise UnsupportedError(f"{library.title} has no {name}")
        config.set_flag(flag)
    if precision != "int8" or _graph_precision(model) == "int8":
        return None
    calibration = _calibration(library, model, options, profiles, directory)
    batch = calibration.batch
    config.int8_calibrator = make_calibrator(library, calibration, options.calibrator)
    if profiles:
        _set_calibration_profile(builder, config, profiles, batch)
    return calibration


def _calibration(
    library: Library,
    model: OnnxModel,
    options: TensorRtOptions,
    profiles: list[dict[str, Range]],
    directory: Path,
) -> Calibration:
    samples, name, batch = _calibration_plan(library, model, options, profiles)
    cache = Path(options.calibration_cache) if samples is None else directory / name
    return Calibration(samples, model.signature, batch=batch, cache=cache)


def _calibration_plan(
    library: Library, model: OnnxModel, options: TensorRtOptions, profiles: list[dict[str, Range]]
) -> tuple[Samples | None, str, int]:
    """Samples (none where an earlier calibration is given), the name of the file for what is learnt, the batch."""
    if options.calibration_cache and Path(options.calibration_cache).is_file():
        return None, Path(options.calibration_cache).name, _calibration_batch(model, options, profiles, 1 << 30)
    if not options.calibration:
        raise InputError(
            f"{model.path.name} has no Q/DQ nodes: INT8 needs samples to choose ranges on; give images with --data"
        )
    samples = load_saved(options.calibration)
    batch = _calibration_batch(model, options, profiles, len(samples))
    key = cache_key(library, model.sha256, samples, options.calibrator, batch)
    return samples, f"calibration-{options.calibrator}-{key}.cache", batch


def _calibration_batch(model: OnnxModel, options: TensorRtOptions, profiles: list[dict[str, Range]], count: int) -> int:
    fixed = model.signature.fixed_batch
    if fixed is not None:
        return fixed
    usual = next(iter(profiles[0].values())).usual[0] if profiles else 1
    # Several batches: a remainder that does not fill one is left out.
    return min(options.calibration_batch or usual, max(1, count // 4))


def _set_calibration_profile(builder: Any, config: Any, profiles: list[dict[str, Range]], batch: int) -> None:
    """A profile of exactly the calibrator's batch: TensorRT calibrates at the OPT shape, whatever it is given."""
    profile = builder.create_optimization_profile()
    for name, limits in profiles[0].items():
        shape = (batch, *limits.usual[1:])
        profile.set_shape(name, shape, shape, shape)
    if not config.set_calibration_profile(profile):
        raise BuildError("TensorRT refused the calibration profile")


def _load_timing_cache(library: Library, config: Any, options: TensorRtOptions, directory: Path) -> Path | None:
    if library.flavour == "tensorrt-rtx":
        return None  # it times nothing when it builds
    path = Path(options.timing_cache) if options.timing_cache else directory / f"timing-{library.version}.cache"
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        _logger.warning("%s is of another GPU or TensorRT; starting a new one", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return path


def _save_timing_cache(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache() if path is not None else None
    if path is not None and cache is not None:
        write_whole(path, bytes(cache.serialize()))


def _report_progress(library: Library, config: Any, progress: Progress) -> None:
    base = getattr(library.module, "IProgressMonitor", None)
    if base is None:
        return

    steps: dict[str, int] = {}

    class Monitor(base):  # type: ignore[misc,valid-type]
        """Hands TensorRT's progress on."""

        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase: str, _parent: str | None, count: int) -> None:
            steps[phase] = count
            progress(phase, 0, count)

        def step_complete(self, phase: str, step: int) -> bool:
            return progress(phase, step + 1, steps.get(phase, step + 1)) is not False

        def phase_finish(self, phase: str) -> None:
            count = steps.pop(phase, 0)
            progress(phase, count, count)

    config.progress_monitor = Monitor()


def _layers_of(library: Library, plan: bytes, options: TensorRtOptions) -> tuple[list[EngineLayer], str]:
    """From the engine where it can be loaded here, else from what the builder printed of it."""
    report = library.told.layers
    if options.target:
        return (from_report(report), "builder's report") if report else ([], "nothing")
    module = library.module
    runtime = module.Runtime(library.logger)
    if options.version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is not None:
        inspector = engine.create_engine_inspector()
        found = from_inspector(inspector.get_engine_information(module.LayerInformationFormat.JSON))
        if any(layer.precision for layer in found):
            return found, "inspector"
    return (from_report(report), "builder's report") if report else ([], "nothing")


def _compute_nodes(path: Path) -> list[str]:
    proto = onnx.load_model(str(path), load_external_data=False)
    return [node.name for node in all_nodes(proto.graph.node) if node.op_type in _COMPUTE_OPS]


def _profile_text(ranges: dict[str, Range]) -> str:
    return ", ".join(f"{name} {limits}" for name, limits in ranges.items())
