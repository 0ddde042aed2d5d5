"""ONNX Runtime's GPU providers: the libraries they need, and why one cannot be used here."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from redline.backends.nvidia import find_gpus
from redline.backends.refusals import reason_of
from redline.core.errors import UnsupportedError

Provider = Literal["CUDAExecutionProvider", "TensorrtExecutionProvider"]
CUDA: Provider = "CUDAExecutionProvider"
TENSORRT: Provider = "TensorrtExecutionProvider"
CPU = "CPUExecutionProvider"
TITLES: dict[Provider, str] = {CUDA: "ONNX Runtime's CUDA provider", TENSORRT: "ONNX Runtime's TensorRT provider"}
# In the order of who needs whom.
_CUDA_LIBRARIES = ("nvJitLink", "cudart", "nvrtc", "cublasLt", "cublas", "curand", "cufft", "cudnn")
_TENSORRT_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_DEFAULT_SEVERITY, _FATAL, _ERROR = 2, 4, 3
_NOT_FOUND = re.compile(r"(lib[\w+-]+\.so[.\d]*): cannot open shared object file")
_LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
_INSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a provider cannot be used here, and what to type; None where typing does not help."""

    reason: str
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}" if self.fix else self.reason


@cache
def preload() -> None:
    """Load CUDA, cuDNN and TensorRT out of pip's packages where they lie; the system's loader does not look there.

    ``onnxruntime.preload_dlls`` prints what it misses, and looks beside its own package alone.
    """
    major = cuda_major()
    if not major:
        return
    folders = [
        folder
        for base in _package_folders("nvidia")
        for folder in sorted(base.glob("*/lib"))
        if folder.parent.name == f"cu{major}" or not re.fullmatch(r"cu\d+", folder.parent.name)
    ]
    _load(folders, _CUDA_LIBRARIES)
    _load(_package_folders("tensorrt_libs"), _TENSORRT_LIBRARIES, f".{wanted_tensorrt()}")


def cuda_major() -> str:
    """The CUDA that this ONNX Runtime was built for, such as ``13``; empty for a CPU build."""
    return str(getattr(ort, "cuda_version", "") or "").split(".")[0]


@cache
def wanted_tensorrt() -> str:
    """The major version of TensorRT that the provider was linked with; empty where it cannot be read."""
    with contextlib.suppress(OSError):
        found = re.search(rb"libnvinfer\.so\.(\d+)", _library_of(TENSORRT).read_bytes())
        return found.group(1).decode() if found else ""
    return ""


@cache
def tensorrt_version() -> str:
    """The version of the TensorRT that the provider uses, such as ``10.13.2``.

    Raises:
        UnsupportedError: its library is not here.
    """
    preload()
    if not _library_of(TENSORRT).is_file():
        raise UnsupportedError(f"{TITLES[TENSORRT]} cannot be used: {_not_loaded(TENSORRT)}")
    try:
        library = ctypes.CDLL(f"libnvinfer.so.{wanted_tensorrt()}")
    except OSError as error:
        raise UnsupportedError(f"{TITLES[TENSORRT]} cannot be used: {_missing(str(error))}") from error
    number = int(library.getInferLibVersion())
    thousands = 10_000 if number >= 100_000 else 1_000  # NvInferVersion.h counts so since TensorRT 10
    return f"{number // thousands}.{number % thousands // 100}.{number % 100}"


def absent(provider: Provider, device: int = 0) -> Trouble | None:
    """Why this provider cannot be here at all, as far as can be told without trying it."""
    if provider not in ort.get_available_providers():
        return _not_built_in(provider)
    found = find_gpus()
    if device >= len(found.gpus):
        return Trouble(reason=found.reason or f"got device {device}, expected 0 to {len(found.gpus) - 1}")
    return None


@cache
def trouble(provider: Provider, device: int = 0) -> Trouble | None:
    """Why this provider cannot be used here; None where a model of one convolution ran on it."""
    if (known := absent(provider, device)) is not None:
        return known
    try:
        session = create_session(_one_convolution(), ort.SessionOptions(), [(provider, {"device_id": str(device)})])
        if provider not in session.get_providers():
            return _not_loaded(provider) or Trouble(reason="ONNX Runtime left it out and did not say why", fix=_INSTALL)
        session.run(None, {"x": np.zeros((1, 1, 4, 4), np.float32)})
    except Exception as error:  # noqa: BLE001 (the runtime's errors share no base; here they become a value)
        return _not_loaded(provider) or explain(reason_of(error))
    nodes = placement(session)
    if nodes is not None and provider not in nodes:
        return Trouble(reason="a convolution does not run on it: is cuDNN here?", fix=_LIBRARIES)
    return None


def create_session(
    model: str | bytes, options: ort.SessionOptions, providers: Sequence[tuple[str, Mapping[str, str]]]
) -> ort.InferenceSession:
    """A session with these providers and the CPU's behind them.

    A provider that cannot be created is left out by the runtime, which only logs it: ask ``get_providers``.
    """
    preload()
    options.log_severity_level = _ERROR
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with _quiet():
        session = ort.InferenceSession(
            model, options, providers=[*((name, dict(given)) for name, given in providers), CPU], enable_fallback=0
        )
    session.disable_fallback()
    return session


def placement(session: ort.InferenceSession) -> dict[str, Counter[str]] | None:
    """How many nodes of which operator run on which provider; None where this ONNX Runtime (before 1.24) cannot say."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return None
    found: dict[str, Counter[str]] = {}
    for part in ask():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def explain(problem: str) -> Trouble:
    """What an error of CUDA means and what to do about it, for the errors that are known."""
    if re.search(r"failure 3[56]\b|driver version is insufficient", problem):
        gpus = find_gpus().gpus
        runs = f" runs CUDA up to {gpus[0].cuda} and" if gpus else ""
        return Trouble(
            reason=f"the NVIDIA driver{runs} is too old for CUDA {cuda_major()}, which this ONNX Runtime was built for",
            fix="update the NVIDIA driver",
        )
    if "no kernel image" in problem:
        return Trouble(reason="this wheel has no code for this GPU", fix="pip install --upgrade onnxruntime-gpu")
    if found := _NOT_FOUND.search(problem):
        return Trouble(reason=_missing(problem), fix=_fix_for(found.group(1)))
    told = re.search(r"CU\w+ failure \d+: [^;]*[^; ]", problem)
    return Trouble(reason=told.group() if told else re.sub(r"^/\S+\.cc:\d+ .*?\) ", "", problem))


def _not_built_in(provider: Provider) -> Trouble:
    installed = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed.append(f"{name} {metadata.version(name)}")
    if len(installed) == 2 and CUDA not in ort.get_available_providers():
        return Trouble(
            reason=f"{' and '.join(installed)} lie in one folder, and the CPU one's files are on top", fix=_INSTALL
        )
    if CUDA in ort.get_available_providers():
        return Trouble(reason=f"{TITLES[provider]} is not in this build of ONNX Runtime", fix=_INSTALL)
    return Trouble(reason=f"ONNX Runtime {ort.__version__} here is the CPU build", fix=_INSTALL)


def _not_loaded(provider: Provider) -> Trouble | None:
    """Why the provider's own library does not load; the runtime must have tried before, as it prepares for it."""
    try:
        ctypes.CDLL(str(_library_of(provider)))
    except OSError as error:
        return explain(str(error))
    return None


def _missing(problem: str) -> str:
    found = _NOT_FOUND.search(problem)
    return f"its library {found.group(1)} is not here" if found else problem


def _fix_for(library: str) -> str:
    if library.startswith("libcuda.so"):
        return "install the NVIDIA driver"
    if re.match(r"libnv(infer|onnxparser)", library):
        return f"pip install 'tensorrt-cu{cuda_major()}=={wanted_tensorrt()}.*'"
    return _LIBRARIES


def _library_of(provider: Provider) -> Path:
    short = provider.removesuffix("ExecutionProvider").lower()
    return Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{short}.so"


def _package_folders(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _load(folders: Sequence[Path], names: Sequence[str], suffix: str = ".*") -> None:
    for name in names:
        for file in (file for folder in folders for file in sorted(folder.glob(f"lib{name}.so{suffix}"))):
            with contextlib.suppress(OSError):
                ctypes.CDLL(os.fspath(file))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the runtime from printing why it leaves a provider out: that becomes an error of ours.

    The runtime has no way to ask for the severity that was set, so its default comes back.
    """
    ort.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_DEFAULT_SEVERITY)


def _one_convolution() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 3, 3], [1.0] * 9)],
    )
    model: Any = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
