"""What an installed package can do here; each function runs in a process of its own, which a broken wheel may kill.

``python -m redline.diagnosis.probes NAME`` prints one line of JSON behind :data:`redline.diagnosis.answers.MARK`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib import import_module

from redline.diagnosis import gpu_probes
from redline.diagnosis.answers import MARK, Answer, answer


def probe_torch() -> list[Answer]:
    """PyTorch eager, torch.compile and TorchScript, with one import."""
    import torch

    device = "CPU"
    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, CPU"
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()} kernels"
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    return [
        answer("torch-eager", torch.__version__, device=device, detail=threads),
        answer(
            "torch-compile",
            torch.__version__,
            device=device,
            detail=f"C++ compiler {compiler}",
            problem=None if compiler else "no C++ compiler was found, which it needs for the CPU",
            fix="install g++ (Debian: apt install g++), or set CXX",
        ),
        answer("torchscript", torch.__version__, device=device),
    ]


def probe_onnxruntime() -> list[Answer]:
    """ONNX Runtime and its execution providers."""
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return [answer("onnxruntime", onnxruntime.__version__, device=", ".join(providers))]


def probe_openvino() -> list[Answer]:
    """OpenVINO, its devices and the precision that it takes when nobody asks."""
    import openvino

    core = openvino.Core()
    hint = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    names = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "dynamic": "dynamic"}
    detail = f"computes in {names.get(hint, hint)} by default"
    return [
        answer("openvino", openvino.__version__.split("-")[0], device=", ".join(core.available_devices), detail=detail)
    ]


def probe_nncf() -> list[Answer]:
    """NNCF, which quantizes for OpenVINO."""
    import nncf

    return [answer("nncf", nncf.__version__)]


def probe_onnxoptimizer() -> list[Answer]:
    """The optimizer of the ONNX project and how many passes it has."""
    import onnxoptimizer

    passes = len(onnxoptimizer.get_available_passes())
    return [answer("onnxoptimizer", onnxoptimizer.__version__, detail=f"{passes} passes")]


def probe_onnxslim() -> list[Answer]:
    """OnnxSlim."""
    import onnxslim

    return [answer("onnxslim", onnxslim.__version__)]


def probe_onnxscript() -> list[Answer]:
    """onnxscript, which torch.onnx.export needs."""
    import onnxscript

    return [answer("onnxscript", onnxscript.__version__)]


def probe_vl_convert() -> list[Answer]:
    """vl-convert, which brings the report's plots."""
    vl_convert = import_module("vl_convert")
    return [answer("vl-convert", vl_convert.__version__)]


def probe_torchvision() -> list[Answer]:
    """torchvision, the source of ``torchvision:NAME`` models."""
    import torchvision

    return [answer("torchvision", torchvision.__version__)]


def probe_timm() -> list[Answer]:
    """timm, the source of ``timm:NAME`` models."""
    import timm

    return [answer("timm", timm.__version__)]


PROBES: dict[str, Callable[[], list[Answer]]] = {
    "torch": probe_torch,
    "onnxruntime": probe_onnxruntime,
    "openvino": probe_openvino,
    "nncf": probe_nncf,
    "nvidia": gpu_probes.probe_nvidia,
    "torch_cuda": gpu_probes.probe_torch_cuda,
    "cuda_bindings": gpu_probes.probe_cuda_bindings,
    "onnxruntime_cuda": gpu_probes.probe_onnxruntime_cuda,
    "onnxruntime_tensorrt": gpu_probes.probe_onnxruntime_tensorrt,
    "tensorrt": gpu_probes.probe_tensorrt,
    "tensorrt_rtx": gpu_probes.probe_tensorrt_rtx,
    "torch_tensorrt": gpu_probes.probe_torch_tensorrt,
    "onnxoptimizer": probe_onnxoptimizer,
    "onnxslim": probe_onnxslim,
    "onnxscript": probe_onnxscript,
    "vl_convert": probe_vl_convert,
    "torchvision": probe_torchvision,
    "timm": probe_timm,
}


def main(name: str) -> None:
    """Run one probe and print its answers."""
    warnings.simplefilter("ignore")
    sys.stdout.write(f"\n{MARK}{json.dumps(PROBES[name]())}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
