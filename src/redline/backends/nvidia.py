"""Which NVIDIA GPUs are here, asked of the driver itself; needs no package."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from redline.core.errors import DeviceError
from redline.core.host import Gpu

# Numbers of CUdevice_attribute and CUresult in the driver's cuda.h.
_MAJOR, _MINOR = 75, 76
_NO_DEVICE = 100
#: Compute capabilities that TensorRT-RTX runs on; it refuses the 9.0 and 10.0 of the data centre.
RTX_RUNS_ON = r"7\.5|8\.\d|12\.\d"
_REASONS = {
    34: "the driver's library here is a stub for building, not the driver",
    802: "the GPUs of this machine are not ready: its fabric manager does not run",
    803: "the driver's library and its kernel module are of different versions; reboot, or install the driver again",
    804: "the driver's compatibility library does not fit this GPU; take it out of LD_LIBRARY_PATH",
    999: "the driver does not answer; reboot, or load its kernel module (nvidia-smi says more)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGpus:
    """The GPUs of this machine, and why there are none where there are none."""

    gpus: tuple[Gpu, ...] = ()
    reason: str | None = None


@cache
def find_gpus() -> FoundGpus:
    """Ask the driver once."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return FoundGpus(reason="there is no NVIDIA driver here (no libcuda.so.1)")
    code = library.cuInit(0)
    if code == _NO_DEVICE:
        return FoundGpus(reason="the NVIDIA driver found no GPU")
    if code:
        return FoundGpus(reason=_REASONS.get(code, f"the NVIDIA driver answered with CUDA error {code}"))
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    library.cuDeviceGetCount(ctypes.byref(number))
    driver = _driver_version() or f"CUDA {cuda}"
    return FoundGpus(gpus=tuple(_describe(library, index, driver, cuda) for index in range(number.value)))


def device_count() -> int:
    """How many GPUs CUDA can use; 0 where there is no driver."""
    return len(find_gpus().gpus)


def identity(index: int = 0) -> dict[str, str]:
    """Name, compute capability and driver of a GPU.

    Raises:
        DeviceError: there is no such GPU; says why.
    """
    found = find_gpus()
    if index >= len(found.gpus):
        raise DeviceError(found.reason or f"got device {index}, expected 0 to {len(found.gpus) - 1}")
    gpu = found.gpus[index]
    return {"gpu": gpu.name, "compute_capability": gpu.compute_capability, "driver": gpu.driver}


def _describe(library: ctypes.CDLL, index: int, driver: str, cuda: str) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=memory.value,
        driver=driver,
        cuda=cuda,
    )


def _driver_version() -> str | None:
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() == 0:
            code = library.nvmlSystemGetDriverVersion(text, len(text))
            library.nvmlShutdown()
            if code == 0:
                return text.value.decode(errors="replace")
    with contextlib.suppress(OSError):
        told = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", Path("/proc/driver/nvidia/version").read_text())
        return told.group() if told else None
    return None
