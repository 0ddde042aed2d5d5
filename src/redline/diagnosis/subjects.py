"""What ``redline doctor`` looks at, and what to type where it is not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redline.core.packages import install as install_line

Group = Literal["runtime", "gpu", "tool", "models"]
Needs = Literal["no", "to run", "yes"]
_TORCH = install_line("torch")
_OPTIMIZE = install_line("onnxslim")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something to look at.

    Attributes:
        probe: The name of its probe.
        modules: Import names, any of which says that it is installed; the probe's name where none is given.
        install: What to type when it is not there.
        gpu: Whether it needs an NVIDIA GPU; what needs one only ``to run`` is good for something without.
    """

    name: str
    title: str
    probe: str
    install: str
    modules: tuple[str, ...] = ()
    group: Group = "runtime"
    gpu: Needs = "no"

    @property
    def import_names(self) -> tuple[str, ...]:
        """The import names to look for."""
        return self.modules or (self.probe,)


def _gpu(name: str, title: str, probe: str, install: str, *modules: str, needs: Needs = "yes") -> Subject:
    return Subject(name=name, title=title, probe=probe, install=install, modules=modules, group="gpu", gpu=needs)


def _tool(name: str, title: str, probe: str, install: str) -> Subject:
    return Subject(name=name, title=title, probe=probe, install=install, group="tool")


SUBJECTS: tuple[Subject, ...] = (
    Subject(name="torch-eager", title="PyTorch eager", probe="torch", install=_TORCH),
    Subject(name="torch-compile", title="PyTorch torch.compile", probe="torch", install=_TORCH),
    Subject(name="torchscript", title="PyTorch TorchScript", probe="torch", install=_TORCH),
    Subject(name="onnxruntime", title="ONNX Runtime", probe="onnxruntime", install="pip install onnxruntime"),
    Subject(name="openvino", title="OpenVINO", probe="openvino", install=install_line("openvino")),
    _gpu("torch-cuda", "PyTorch CUDA", "torch_cuda", _TORCH, "torch"),
    _gpu("onnxruntime-cuda", "ONNX Runtime CUDA", "onnxruntime_cuda", "pip install onnxruntime-gpu", "onnxruntime"),
    _gpu(
        "onnxruntime-tensorrt",
        "ONNX Runtime TensorRT",
        "onnxruntime_tensorrt",
        "pip install onnxruntime-gpu",
        "onnxruntime",
    ),
    _gpu("tensorrt", "TensorRT", "tensorrt", install_line("tensorrt"), "tensorrt", "tensorrt_bindings"),
    _gpu(
        "tensorrt-rtx",
        "TensorRT for RTX",
        "tensorrt_rtx",
        install_line("tensorrt_rtx"),
        "tensorrt_rtx",
        "tensorrt_rtx_bindings",
        needs="to run",
    ),
    _gpu("torch-tensorrt", "Torch-TensorRT", "torch_tensorrt", install_line("torch_tensorrt")),
    _gpu("cuda-bindings", "cuda-bindings", "cuda_bindings", install_line("tensorrt"), "cuda.bindings"),
    _tool("nncf", "NNCF (INT8 for OpenVINO)", "nncf", install_line("openvino")),
    _tool("onnxscript", "onnxscript (export)", "onnxscript", _TORCH),
    _tool("onnxoptimizer", "onnxoptimizer", "onnxoptimizer", _OPTIMIZE),
    _tool("onnxslim", "OnnxSlim", "onnxslim", _OPTIMIZE),
    _tool("vl-convert", "vl-convert (plots)", "vl_convert", install_line("vl_convert")),
    Subject(
        name="torchvision",
        title="torchvision:NAME",
        probe="torchvision",
        install="pip install torchvision",
        group="models",
    ),
    Subject(name="timm", title="timm:NAME", probe="timm", install="pip install timm", group="models"),
)
