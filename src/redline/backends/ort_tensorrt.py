"""ONNX Runtime's TensorRT execution provider as a backend."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from redline.backends.nvidia import identity
from redline.backends.ort_gpu import (
    check_common,
    check_here,
    described,
    may_use_tf32,
    open_on,
    refuse_absent,
    session_options,
)
from redline.backends.ort_gpu_session import OrtTensorRtSession, compute_stream, describe_elsewhere
from redline.backends.ort_providers import CUDA, TENSORRT, placement, tensorrt_version, trouble
from redline.backends.tensorrt.profiles import Profile, Range, parse_profiles
from redline.core.artifact import Argument, Engine, Layers, OnnxModel
from redline.core.errors import EngineMismatchError, InputError, UnsupportedError
from redline.core.files import sha256_of, write_whole
from redline.core.tensor import Signature
from redline.formats.onnx_file import load_proto

NAME = "onnxruntime-tensorrt"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtTensorRtOptions:
    """Options of ONNX Runtime's TensorRT provider, whose engines lie in a folder beside the engine file.

    Attributes:
        device: Index of the GPU.
        tf32: Whether FP32 may round its inputs to 10 bits. The provider has no switch for it: TensorRT takes TF32
            unless the environment has ``NVIDIA_TF32_OVERRIDE=0``, and an engine built without that says tf32.
        graph_optimization: ``all``, ``extended``, ``basic`` or ``disabled``, before TensorRT gets the graph.
        fp16: Whether TensorRT before 11 may compute in FP16; a graph that is FP16 already needs no leave.
        int8: Demand a graph with Q/DQ nodes, which TensorRT computes in INT8.
        profile: ``MIN,OPT,MAX`` batch sizes such as ``1,32,64``, or whole shapes by input name; empty is ``1,8,32``.
        workspace_bytes: Limit of the memory that a layer may use for itself; 0 leaves the provider's own.
    """

    device: int = 0
    tf32: bool = False
    graph_optimization: str = "all"
    fp16: bool = False
    int8: bool = False
    profile: str = ""
    workspace_bytes: int = 0

    def __post_init__(self) -> None:
        check_common(self.device, self.graph_optimization)
        if self.workspace_bytes < 0:
            raise InputError(f"workspace_bytes is {self.workspace_bytes}, expected 0 or more")
        if len(parse_profiles(self.profile)) > 1:
            raise InputError(f"profile is {self.profile!r}, expected one: this provider takes no more")


def create(options: Mapping[str, Any]) -> OnnxRuntimeTensorRt:
    """The backend with those options (the table calls this)."""
    return OnnxRuntimeTensorRt(OrtTensorRtOptions(**options))


class OnnxRuntimeTensorRt:
    """Builds TensorRT engines for the parts of a graph that TensorRT takes; CUDA and the CPU run the rest."""

    name = NAME

    def __init__(self, options: OrtTensorRtOptions | None = None) -> None:
        self.options = options or OrtTensorRtOptions()

    def why_not(self) -> str | None:
        """Why it cannot run here; None where it can."""
        found = trouble(TENSORRT, self.options.device)
        return str(found) if found else None

    def platform(self) -> dict[str, str]:
        """Versions of both libraries, GPU and driver."""
        here = identity(self.options.device)
        return {"onnxruntime": ort.__version__, "tensorrt": tensorrt_version(), **here}

    def compile(self, model: OnnxModel, directory: Path) -> Engine:
        """Copy the model and let the provider build its engines beside it.

        The provider does not say what its engines compute in: the precision is that of the graph, lowered by the
        options, and tf32 where nothing rules it out.

        Raises:
            UnsupportedError: the provider cannot be used here; says why and what to install.
            BuildError: it refused the model.
            InputError: the options do not fit the model.
        """
        refuse_absent(TENSORRT, self.options.device)
        tensorrt_version()
        self._check_precision(model)
        ranges = self._ranges(model.signature)
        path = directory / f"{model.path.stem}.trt.onnx"
        write_whole(path, load_proto(model.path).SerializeToString())
        cache = _cache_of(path, sha256_of(path))
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        session = self._session(path, cache, model.layers, ranges, None)
        _run_once(session, model.signature, ranges)
        arguments: dict[str, Argument] = {
            **asdict(self.options),
            "elsewhere": describe_elsewhere(TENSORRT, placement(session)),
            "layers_read_from": "graph and options",
            "engines": _digest(cache),
        }
        return described(
            self.name, model, path, self._layers(model.layers), self.platform(), asdict(self.options), arguments
        )

    def load(self, engine: Engine) -> OrtTensorRtSession:
        """Load an engine that was built for this GPU and these versions."""
        check_here(engine, TENSORRT, self.options.device, self.platform)
        cache = _cache_of(engine.path, engine.sha256)
        if _digest(cache) != engine.provenance[-1].arguments.get("engines"):
            raise EngineMismatchError(
                f"{cache} does not hold the engines that were built; build {engine.path.name} again"
            )
        ranges = self._ranges(engine.signature)
        stream = compute_stream(self.options.device)
        session = self._session(engine.path, cache, engine.layers, ranges, stream.handle if stream else None)
        return OrtTensorRtSession(session, engine.signature, ranges, device=self.options.device, stream=stream)

    def _check_precision(self, model: OnnxModel) -> None:
        if self.options.int8 and "int8" not in dict(model.layers.counts):
            raise InputError(
                f"{model.path.name} has no Q/DQ nodes, and this provider computes in INT8 by them alone; quantize it "
                f"first: redline quantize {model.path.name} --for tensorrt"
            )
        if self.options.fp16 and _generation() >= 11:
            raise UnsupportedError(
                f"TensorRT {tensorrt_version()} has no precision flags, it follows the graph; convert it first: "
                f"redline quantize {model.path.name} --for tensorrt --mode fp16"
            )

    def _ranges(self, signature: Signature) -> dict[str, Range]:
        asked = parse_profiles(self.options.profile)
        return (asked[0] if asked else Profile()).ranges(signature)

    def _layers(self, layers: Layers) -> Layers:
        counts = dict(layers.counts)
        if self.options.fp16:
            counts["fp16"] = counts.pop("fp32", 0) + counts.get("fp16", 0)
        elif "fp32" in counts and may_use_tf32(self.options.device):
            counts["tf32"] = counts.pop("fp32")
            if not self.options.tf32:
                _logger.warning("TensorRT computes FP32 in TF32 unless the environment has NVIDIA_TF32_OVERRIDE=0")
        return Layers.of(counts)

    def _session(
        self, path: Path, cache: Path, layers: Layers, ranges: Mapping[str, Range], stream: int | None
    ) -> ort.InferenceSession:
        own = self._provider_options(cache, dict(layers.counts), ranges)
        behind = {"device_id": str(self.options.device), "use_tf32": str(int(self.options.tf32))}
        if stream is not None:
            own |= {"has_user_compute_stream": "1", "user_compute_stream": str(stream)}
            behind |= {"user_compute_stream": str(stream)}
        providers = [(TENSORRT, own), (CUDA, behind)]
        return open_on(path, session_options(self.options.graph_optimization), TENSORRT, self.options.device, providers)

    def _provider_options(self, cache: Path, counts: Mapping[Any, int], ranges: Mapping[str, Range]) -> dict[str, str]:
        flags = _generation() < 11
        given = {
            "device_id": str(self.options.device),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache.resolve()),
            "trt_fp16_enable": str(int(flags and (self.options.fp16 or "fp16" in counts))),
            "trt_int8_enable": str(int(flags and "int8" in counts)),
        }
        if self.options.workspace_bytes:
            given["trt_max_workspace_size"] = str(self.options.workspace_bytes)
        if ranges:
            for key, part in (("min", "smallest"), ("opt", "usual"), ("max", "largest")):
                shapes = (f"{name}:{_shape_text(getattr(limits, part))}" for name, limits in ranges.items())
                given[f"trt_profile_{key}_shapes"] = ",".join(shapes)
        return given


def _run_once(session: ort.InferenceSession, signature: Signature, ranges: Mapping[str, Range]) -> None:
    """Let the provider build and save what it puts off until the first call."""
    zeros = {
        spec.name: np.zeros(
            ranges[spec.name].usual if spec.name in ranges else tuple(int(size) for size in spec.shape),
            spec.numpy_dtype,
        )
        for spec in signature.inputs
    }
    with contextlib.suppress(Exception):  # zeros may be no input for this model: what matters is what they set off
        session.run(None, zeros)


def _generation() -> int:
    return int(tensorrt_version().split(".")[0])


def _cache_of(path: Path, sha256: str) -> Path:
    """Named after the model's digest: the provider names its engines after the graph's shape, not its weights."""
    return path.with_name(f"{path.name}.{sha256[:12]}.engines")


def _digest(cache: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(cache.glob("*.engine")):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
