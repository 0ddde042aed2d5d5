"""Where a model is to run: this machine's GPU, or its CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass

from redline.core.errors import DeviceError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device as it was asked for, and what is there.

    Attributes:
        cpu_wanted: The user said ``cpu``.
        on_gpu: Whether a GPU is used by what can use one.
        index: Of that GPU.
        gpu_wanted: The user said ``cuda``.
    """

    cpu_wanted: bool
    on_gpu: bool
    index: int = 0
    gpu_wanted: bool = False

    @property
    def torch_name(self) -> str:
        """What PyTorch calls it."""
        return f"cuda:{self.index}" if self.on_gpu else "cpu"

    def onnx_runtimes(self) -> list[str]:
        """What can run an ONNX file here, best first."""
        if not self.on_gpu:
            return ["onnxruntime"]
        from redline.backends import why_not

        return [*(["onnxruntime-cuda"] if why_not("onnxruntime-cuda") is None else []), "onnxruntime"]


def place_of(device: str) -> Place:
    """A place by its name: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        InputError: there is no such name.
        DeviceError: it names a GPU that is not there.
    """
    if device == "cpu":
        return Place(cpu_wanted=True, on_gpu=False)
    found = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    if found is None:
        raise InputError(f"got device {device!r}, expected auto, cpu, cuda or cuda:1")
    from redline.backends.nvidia import device_count

    index, count = int(found[1] or 0), device_count()
    if device != "auto" and index >= count:
        there = f"{count} NVIDIA GPU{'s' * (count > 1)}, counted from 0" if count else "no NVIDIA GPU"
        raise DeviceError(
            f"got device {device!r}, and this machine has {there}; take auto or cpu (nvidia-smi lists them)"
        )
    return Place(cpu_wanted=False, on_gpu=count > index, index=index, gpu_wanted=device != "auto")
