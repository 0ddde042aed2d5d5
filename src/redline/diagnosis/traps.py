"""What a package's error means and what to type, for the traps that are known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from redline.core.packages import install

_NVIDIA_INDEX = "--extra-index-url https://pypi.nvidia.com"
# The packages that bring those of CUDA's libraries that bear CUDA's own number, by the start of the name.
_CUDA_PACKAGES = {"libcudart": "nvidia-cuda-runtime", "libcublas": "nvidia-cublas", "libnvrtc": "nvidia-cuda-nvrtc"}


@dataclass(frozen=True, slots=True)
class Trap:
    """An error, as a pattern; what it means; what to type. Groups of the pattern fill ``{1}`` and so on."""

    pattern: str
    meaning: str
    fix: str | None = None


_TRAPS = (
    Trap(
        "torchvision::nms",
        "its wheel was built for a CUDA build of PyTorch, and this one is for the CPU",
        "pip install torchvision --index-url https://download.pytorch.org/whl/cpu (the built-in models need none)",
    ),
    Trap(r"libcuda\.so", "it needs the NVIDIA driver, which is not here", "install the NVIDIA driver"),
    Trap(
        r"(?:[Ee]rror:? ?|failure )3[56]\b|driver version is insufficient|NVIDIA driver on your system is too old",
        "the NVIDIA driver is older than the CUDA that this package was built for (CUDA error 35)",
        "update the NVIDIA driver, or install the package's build for the CUDA that nvidia-smi shows",
    ),
    Trap(
        r"(?:[Ee]rror:? ?|failure )100\b|no CUDA-capable device|Found no NVIDIA driver",
        "CUDA sees no GPU in this process",
        "look at CUDA_VISIBLE_DEVICES; in a container, start it with --gpus all",
    ),
    Trap(
        r"libnv(?:infer|onnxparser)\w*\.so\.(\d+)",
        "TensorRT's Python package is here without TensorRT's libraries",
        f"pip install --force-reinstall 'tensorrt=={{1}}.*' {_NVIDIA_INDEX}",
    ),
    Trap(
        r"libtensorrt_\w+\.so",
        "TensorRT-RTX's Python package is here without its libraries",
        install("tensorrt_rtx"),
    ),
    Trap(
        r"No module named 'tensorrt_(?:bindings|libs)\b|module 'tensorrt' has no attribute|Could not find: libnvinfer",
        "what is installed as tensorrt is a shell without TensorRT in it; the index had no more",
        f"pip install --force-reinstall tensorrt {_NVIDIA_INDEX}",
    ),
    Trap(
        r"no kernel image is available",
        "its wheel has no code for this GPU's compute capability",
        "install its newest version: pip install --upgrade",
    ),
    Trap(
        r"compiled using NumPy 1\.x|numpy\.core\.multiarray failed to import",
        "it was built for NumPy 1",
        'pip install "numpy<2"',
    ),
    Trap(
        r"torch_?t(?:enso)?rt.*undefined symbol|undefined symbol.*(?:torch|c10)",
        "it was built for another version of PyTorch",
        "install the release with PyTorch's own number: 2.8 goes with 2.8",
    ),
)


def explain(problem: str) -> tuple[str, str | None] | None:
    """What an error means and what to type; None where it is not known.

    >>> explain("ImportError: libcublas.so.12: cannot open shared object file")
    ('libcublas.so.12 of CUDA is not here', 'pip install nvidia-cublas-cu12')
    """
    for trap in _TRAPS:
        found = re.search(trap.pattern, problem)
        if found is not None:
            groups = (found.group(), *found.groups())
            return trap.meaning, trap.fix.format(*groups) if trap.fix else None
    return _missing_cuda(problem)


def _missing_cuda(problem: str) -> tuple[str, str | None] | None:
    found = re.search(r"(lib[a-zA-Z]+)\.so\.(\d+)[.\d]*: cannot open", problem)
    if found is None:
        return None
    name, major = found.groups()
    package = next((package for start, package in _CUDA_PACKAGES.items() if name.startswith(start)), None)
    if package is None:
        return None
    # CUDA 13's packages bear no number any more.
    return f"{name}.so.{major} of CUDA is not here", f"pip install {package}{'' if int(major) > 12 else f'-cu{major}'}"
