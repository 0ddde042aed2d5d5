"""ONNX Runtime's CUDA execution provider as a backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import onnxruntime as ort

from redline.backends.nvidia import identity
from redline.backends.ort import GRAPH_LEVELS
from redline.backends.ort_gpu_session import OrtGpuSession, compute_stream, describe_elsewhere
from redline.backends.ort_providers import (
    CUDA,
    TITLES,
    Provider,
    absent,
    create_session,
    placement,
    trouble,
)
from redline.backends.refusals import check_platform, refused
from redline.core.artifact import Argument, Engine, Layers, OnnxModel, Step
from redline.core.errors import EngineMismatchError, InputError, UnsupportedError
from redline.core.files import sha256_of, whole_file
from redline.formats.onnx_file import all_nodes, layers_of, versions

NAME = "onnxruntime-cuda"
ConvSearch = Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"]
_TF32_SINCE = 8  # major compute capability: Ampere


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtCudaOptions:
    """Options of ONNX Runtime's CUDA provider.

    Attributes:
        device: Index of the GPU.
        tf32: Whether FP32 convolutions and matrix products may round their inputs to 10 bits.
        graph_optimization: ``all``, ``extended``, ``basic`` or ``disabled`` (the file as it is).
        cudnn_conv_algo_search: How cuDNN's algorithms are chosen: ``EXHAUSTIVE`` times them all at the first call of
            each shape, ``HEURISTIC`` asks cuDNN, ``DEFAULT`` takes one for everything.
    """

    device: int = 0
    tf32: bool = False
    graph_optimization: str = "all"
    cudnn_conv_algo_search: ConvSearch = "EXHAUSTIVE"

    def __post_init__(self) -> None:
        check_common(self.device, self.graph_optimization)
        if self.cudnn_conv_algo_search not in get_args(ConvSearch):
            raise InputError(
                f"cudnn_conv_algo_search is {self.cudnn_conv_algo_search!r}, expected {', '.join(get_args(ConvSearch))}"
            )


def create(options: Mapping[str, Any]) -> OnnxRuntimeCuda:
    """The backend with those options (the table calls this)."""
    return OnnxRuntimeCuda(OrtCudaOptions(**options))


class OnnxRuntimeCuda:
    """Compiles to ONNX Runtime's own optimized graph for this GPU, saved as a file."""

    name = NAME

    def __init__(self, options: OrtCudaOptions | None = None) -> None:
        self.options = options or OrtCudaOptions()

    def why_not(self) -> str | None:
        """Why it cannot run here; None where it can."""
        found = trouble(CUDA, self.options.device)
        return str(found) if found else None

    def platform(self) -> dict[str, str]:
        """Library version, GPU and driver."""
        return {"onnxruntime": ort.__version__, **identity(self.options.device)}

    def compile(self, model: OnnxModel, directory: Path) -> Engine:
        """Optimize the graph for this GPU; the precision is read from the optimized graph and the TF32 option.

        Raises:
            UnsupportedError: the provider cannot be used here; says why and what to install.
            BuildError: it refused the model.
        """
        path = directory / f"{model.path.stem}.cuda.onnx"
        with whole_file(path) as scratch:
            options = session_options(self.options.graph_optimization)
            options.optimized_model_filepath = str(scratch)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "")
            session = open_on(model.path, options, CUDA, self.options.device, [(CUDA, self._provider_options())])
            proto = onnx.load_model(str(scratch))
            if drop_copies(proto):
                scratch.write_bytes(proto.SerializeToString())
        counts = dict(_as_computed(proto).counts)
        if self.options.tf32 and may_use_tf32(self.options.device):
            counts["tf32"] = counts.pop("fp32", 0)
        arguments = {**asdict(self.options), "elsewhere": describe_elsewhere(CUDA, placement(session))}
        return described(self.name, model, path, Layers.of(counts), self.platform(), asdict(self.options), arguments)

    def load(self, engine: Engine) -> OrtGpuSession:
        """Load an engine that was compiled for this GPU."""
        check_here(engine, CUDA, self.options.device, self.platform)
        stream = compute_stream(self.options.device)
        own = self._provider_options() | ({"user_compute_stream": str(stream.handle)} if stream else {})
        session = open_on(engine.path, session_options("disabled"), CUDA, self.options.device, [(CUDA, own)])
        return OrtGpuSession(session, engine.signature, CUDA, device=self.options.device, stream=stream)

    def _provider_options(self) -> dict[str, str]:
        return {
            "device_id": str(self.options.device),
            "use_tf32": str(int(self.options.tf32)),
            "cudnn_conv_algo_search": self.options.cudnn_conv_algo_search,
        }


def drop_copies(proto: onnx.ModelProto) -> bool:
    """Take out the copies between host and GPU that ONNX Runtime put in; true where there were any.

    It saves them with the graph, and when it loads that, putting them in again gives two tensors one name. They carry
    a tensor to or from ``<name>_CUDAExecutionProvider``.
    """
    suffix = f"_{CUDA}"
    names: dict[str, str] = {}
    graphs = [proto.graph, *(a.g for node in all_nodes(proto.graph.node) for a in node.attribute if a.HasField("g"))]
    for graph in graphs:
        copies = [node for node in graph.node if node.op_type in ("MemcpyFromHost", "MemcpyToHost")]
        for node in copies:
            source, target = node.input[0], node.output[0]
            moved, kept = (source, target) if source.endswith(suffix) else (target, source)
            names[moved] = kept
            graph.node.remove(node)
    if not names:
        return False
    for node in all_nodes(proto.graph.node):
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for graph in graphs:
        for value in graph.output:
            value.name = names.get(value.name, value.name)
        known = [value for value in graph.value_info if value.name not in names]
        del graph.value_info[:]
        graph.value_info.extend(known)
    return True


def check_common(device: int, graph_optimization: str) -> None:
    """Refuse what no GPU provider takes.

    Raises:
        InputError: a negative device, or a level that there is not.
    """
    if device < 0:
        raise InputError(f"device is {device}, expected 0 or more")
    if graph_optimization not in GRAPH_LEVELS:
        raise InputError(f"graph_optimization is {graph_optimization!r}, expected {', '.join(GRAPH_LEVELS)}")


def session_options(graph_optimization: str) -> ort.SessionOptions:
    """ONNX Runtime's own options object."""
    options = ort.SessionOptions()
    options.graph_optimization_level = GRAPH_LEVELS[graph_optimization]
    return options


def refuse_absent(provider: Provider, device: int) -> None:
    """Refuse early where the provider cannot be here at all.

    Raises:
        UnsupportedError: says why, and what to install.
    """
    if (known := absent(provider, device)) is not None:
        raise UnsupportedError(f"{TITLES[provider]} cannot be used here: {known}")


def open_on(
    path: Path,
    options: ort.SessionOptions,
    provider: Provider,
    device: int,
    providers: list[tuple[Provider, dict[str, str]]],
) -> ort.InferenceSession:
    """A session that really has the provider.

    Raises:
        UnsupportedError: the provider could not be created; the runtime itself would go on with the CPU.
        BuildError: it refused the model.
    """
    refuse_absent(provider, device)
    try:
        session = create_session(str(path), options, providers)
    except Exception as error:
        if (found := trouble(provider, device)) is not None:
            raise UnsupportedError(f"{TITLES[provider]} cannot be used here: {found}") from error
        raise refused(path, TITLES[provider], error) from error
    if provider not in session.get_providers():
        found = trouble(provider, device)
        raise UnsupportedError(f"{TITLES[provider]} cannot be used here: {found or 'the runtime left it out'}")
    return session


def _as_computed(proto: onnx.ModelProto) -> Layers:
    """Layers as the CUDA provider computes them: it has no integer convolution, so one between Q/DQ nodes is float."""
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    for node in all_nodes(plain.graph.node):
        if node.op_type == "DequantizeLinear":
            node.op_type = "Cast"
    return layers_of(plain)


def may_use_tf32(device: int) -> bool:
    """Whether this GPU has TF32 and the environment does not rule it out."""
    capability = identity(device)["compute_capability"]
    return int(capability.split(".")[0]) >= _TF32_SINCE and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def check_here(engine: Engine, provider: Provider, device: int, platform: Callable[[], Mapping[str, str]]) -> None:
    """Refuse an engine that cannot run here; a newer driver runs what an older one did.

    Raises:
        EngineMismatchError: the provider cannot be used here, or the engine was made for another platform.
    """
    if (known := absent(provider, device)) is not None:
        made_for = engine.platform.get("gpu", "a GPU")
        raise EngineMismatchError(
            f"{engine.path.name} was compiled for {made_for}; {TITLES[provider]} cannot be used here: {known}"
        )
    check_platform(engine, {key: value for key, value in platform().items() if key != "driver"})


def described(
    name: str,
    model: OnnxModel,
    path: Path,
    layers: Layers,
    platform: Mapping[str, str],
    options: Mapping[str, Argument],
    arguments: Mapping[str, Argument],
) -> Engine:
    """The engine at ``path``, with its description saved beside it."""
    step = Step(
        step=f"compile {name}",
        arguments=arguments,
        parent_sha256=model.sha256,
        versions=versions("onnxruntime-gpu", "onnxruntime"),
    )
    engine = Engine(
        path=path,
        sha256=sha256_of(path),
        backend=name,
        signature=model.signature,
        usage=model.usage,
        layers=layers,
        platform=platform,
        options=options,
        provenance=(*model.provenance, step),
    )
    engine.save()
    return engine
