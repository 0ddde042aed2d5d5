"""What the packages for NVIDIA GPUs can do here; each function runs in a process of its own.

Being installed says nothing: each one makes the library do a small piece of work on the GPU.
"""

from __future__ import annotations

import contextlib
import re
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from redline.diagnosis.answers import Answer, answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_WHEELS = ((13, 0, "cu130"), (12, 8, "cu128"), (12, 6, "cu126"))  # PyTorch's own index has these


def probe_nvidia() -> list[Answer]:
    """The GPUs themselves, asked of the driver; one answer with a problem where there are none."""
    from redline.backends.nvidia import find_gpus

    found = find_gpus()
    if not found.gpus:
        return [answer("gpu", "", problem=found.reason or "the driver shows none to this process")]
    return [
        answer(
            f"gpu-{gpu.index}",
            f"driver {gpu.driver}",
            device=gpu.name,
            detail=f"compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.0f} GiB, "
            f"driver for CUDA up to {gpu.cuda}",
        )
        for gpu in found.gpus
    ]


def probe_cuda_bindings() -> list[Answer]:
    """cuda-bindings and cuda-core: memory on the GPU, taken and given back."""
    bindings = import_module("cuda.bindings")
    runtime = import_module("cuda.bindings.runtime")
    core = "without cuda-core"
    with contextlib.suppress(metadata.PackageNotFoundError):
        core = f"cuda-core {metadata.version('cuda-core')}"
    code, pointer = runtime.cudaMalloc(1 << 20)
    if int(code):
        return [_no_memory(int(code), bindings.__version__)]
    runtime.cudaFree(pointer)
    return [answer("cuda-bindings", bindings.__version__, detail=core)]


def probe_torch_cuda() -> list[Answer]:
    """PyTorch on the GPU: a convolution."""
    return [_torch_on_gpu()]


def _torch_on_gpu() -> Answer:
    import torch

    version = torch.__version__
    if torch.version.cuda is None:
        return answer(
            "torch-cuda",
            version,
            problem="this PyTorch is built without CUDA",
            fix=f"pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/{_wheel_tag()}",
        )
    try:
        image = torch.ones(1, 1, 8, 8, device="cuda")
        torch.nn.functional.conv2d(image, image[:, :, :3, :3]).sum().item()
    except Exception as error:  # noqa: BLE001 (whatever it says is the answer)
        return answer("torch-cuda", version, problem=_first_line(error))
    version_of: Callable[[], int | None] = torch.backends.cudnn.version
    return answer("torch-cuda", version, detail=f"CUDA {torch.version.cuda}, cuDNN {_cudnn(version_of())}")


def probe_onnxruntime_cuda() -> list[Answer]:
    """ONNX Runtime's CUDA provider: a convolution."""
    from redline.backends.ort_providers import CUDA, cuda_major

    return [_provider("onnxruntime-cuda", CUDA, f"built for CUDA {cuda_major()}")]


def probe_onnxruntime_tensorrt() -> list[Answer]:
    """ONNX Runtime's TensorRT provider: an engine of one convolution, built and run."""
    from redline.backends.ort_providers import TENSORRT, wanted_tensorrt

    return [_provider("onnxruntime-tensorrt", TENSORRT, f"built for TensorRT {wanted_tensorrt()}")]


def probe_tensorrt() -> list[Answer]:
    """TensorRT of any generation: a builder, and which ways to a precision it has."""
    try:
        module = import_module("tensorrt")
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise
        bindings = import_module("tensorrt_bindings")
        problem = "its bindings are here, and the package tensorrt that gives them their name is not"
        return [answer("tensorrt", bindings.__version__, problem=problem, fix="pip install tensorrt")]
    return [_tensorrt("tensorrt", "tensorrt", module)]


def probe_tensorrt_rtx() -> list[Answer]:
    """TensorRT for RTX: a builder, the GPUs it builds for, and whether one of them is here."""
    try:
        module = import_module("tensorrt_rtx")
    except ModuleNotFoundError:
        module = import_module("tensorrt_rtx_bindings")
    return [_tensorrt("tensorrt-rtx", "tensorrt-rtx", module, _rtx_targets(module))]


def probe_torch_tensorrt() -> list[Answer]:
    """Torch-TensorRT: imports beside its PyTorch, and its TensorRT makes a builder."""
    torch_tensorrt = import_module("torch_tensorrt")
    version = torch_tensorrt.__version__
    on_gpu = _torch_on_gpu()
    if on_gpu["problem"]:
        return [answer("torch-tensorrt", version, problem=on_gpu["problem"], fix=on_gpu["fix"])]
    below = _tensorrt("tensorrt", "tensorrt", import_module("tensorrt"))
    if below["problem"]:
        return [answer("torch-tensorrt", version, problem=below["problem"])]
    detail = f"PyTorch {on_gpu['version']}, TensorRT {below['version']}"
    return [answer("torch-tensorrt", version, detail=detail)]


def _tensorrt(name: str, flavour: Any, module: ModuleType, targets: str = "") -> Answer:
    from redline.backends.tensorrt.library import Library

    library = Library(flavour, module)
    try:
        builder = module.Builder(library.logger)
    except Exception as error:  # noqa: BLE001 (what the library logged before says more)
        return answer(name, library.version, problem=library.told.reason(_first_line(error)))
    if builder is None:
        return answer(name, library.version, problem=library.told.reason("it made no builder and did not say why"))
    known = (targets, _typing(library), _parser(library))
    return answer(name, library.version, detail="; ".join(part for part in known if part))


def _typing(library: Any) -> str:
    if not library.weak_typing:
        return "strong typing only: no precision flags, no calibrators"
    ways = "weak or strong typing" if library.strong_typing else "weak typing"
    calibrators = hasattr(library.module, "IInt8EntropyCalibrator2")
    return f"{ways}, precision flags, {'calibrators' if calibrators else 'no calibrators'}"


def _parser(library: Any) -> str:
    if not hasattr(library.module, "OnnxParser"):
        return "no ONNX parser"
    newest = library.highest_opset
    return f"reads ONNX up to opset {newest}" if newest else "reads ONNX of opset 18 and newer too"


def _rtx_targets(module: ModuleType) -> str:
    from redline.backends.nvidia import RTX_RUNS_ON, find_gpus

    names = sorted(int(name[2:]) for name in dir(module.ComputeCapability) if re.fullmatch(r"SM\d+", name))
    builds = f"builds for {', '.join(f'sm{name}' for name in names)}"
    gpus = find_gpus().gpus
    if not gpus:
        return f"{builds} (and there is no GPU here to run on)"
    capability = gpus[0].compute_capability
    if re.fullmatch(RTX_RUNS_ON, capability):
        return f"{builds}, runs on this GPU"
    return f"{builds}; cannot run on this GPU: it refuses compute capability {capability}, and wants a GeForce or RTX"


def _provider(name: str, provider: Any, detail: str) -> Answer:
    import onnxruntime

    from redline.backends.ort_providers import trouble

    found = trouble(provider)
    if found is None:
        return answer(name, onnxruntime.__version__, detail=f"{detail}; a convolution ran on it")
    return answer(name, onnxruntime.__version__, problem=found.reason, fix=found.fix)


def _no_memory(code: int, version: str) -> Answer:
    from redline.backends.nvidia import find_gpus

    gpus = find_gpus().gpus
    if not gpus or int(gpus[0].cuda.split(".")[0]) >= int(version.split(".")[0]):
        return answer("cuda-bindings", version, problem=f"CUDA error {code}")
    runs = gpus[0].cuda
    problem = f"the NVIDIA driver runs CUDA up to {runs}, and these bindings are for {version} (CUDA error {code})"
    return answer("cuda-bindings", version, problem=problem, fix=f"pip install 'cuda-bindings=={runs.split('.')[0]}.*'")


def _wheel_tag() -> str:
    """The newest of PyTorch's CUDA builds that this driver runs."""
    from redline.backends.nvidia import find_gpus

    gpus = find_gpus().gpus
    if gpus:
        runs = tuple(int(part) for part in gpus[0].cuda.split("."))
        return next((tag for *needed, tag in _WHEELS if runs >= tuple(needed)), _WHEELS[-1][2])
    return _WHEELS[-1][2]


def _cudnn(number: int | None) -> str:
    """CuDNN's version as text.

    >>> _cudnn(91300), _cudnn(8902), _cudnn(None)
    ('9.13.0', '8.9.2', 'missing')
    """
    if number is None:
        return "missing"
    thousands = 10_000 if number >= 90_000 else 1_000
    return f"{number // thousands}.{number % thousands // 100}.{number % 100}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
