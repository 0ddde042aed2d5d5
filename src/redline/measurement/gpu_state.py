"""What an NVIDIA GPU does at this moment, asked of its driver through ``nvidia-ml-py``; None where nobody can say.

GPUs are numbered as CUDA numbers them in this process, so ``CUDA_VISIBLE_DEVICES`` is obeyed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

# Bits of nvmlClocksEventReasons in the driver's nvml.h. Not among them: an idle GPU, and clocks that somebody set.
_REASONS = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake",
    0x200: "board_limit",
    0x400: "reliability",
}
_BUS_ID_LENGTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """One reading of a GPU; None for what it does not tell.

    Attributes:
        sm_mhz: Clock of its multiprocessors.
        max_sm_mhz: The highest that clock goes.
        throttle: What holds the clock down: a power or heat limit, by its name.
    """

    sm_mhz: int | None
    max_sm_mhz: int | None
    power_w: float | None
    temperature_c: int | None
    throttle: tuple[str, ...]


def state(device: int = 0) -> GpuState | None:
    """How fast, hot and held back a GPU is; None without ``nvidia-ml-py``, a driver or such a GPU."""
    nvml = _nvml()
    handle = _handle(nvml, device)
    if handle is None:
        return None
    power_mw = _ask(nvml, "nvmlDeviceGetPowerUsage", handle)
    return GpuState(
        sm_mhz=_ask(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
        max_sm_mhz=_ask(nvml, "nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM),
        power_w=None if power_mw is None else power_mw / 1e3,
        temperature_c=_ask(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        throttle=_reasons(_ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle) or 0),
    )


def process_bytes(pid: int, device: int = 0) -> int | None:
    """Bytes of a GPU's memory that a process holds, its CUDA context with them; None where the driver does not say.

    Within a container the driver may list processes by numbers of the host's, among which this one is not found.
    """
    nvml = _nvml()
    handle = _handle(nvml, device)
    if handle is None:
        return None
    running = _ask(nvml, "nvmlDeviceGetComputeRunningProcesses", handle) or []
    sizes: list[int | None] = [one.usedGpuMemory for one in running if one.pid == pid]
    told = [size for size in sizes if size is not None]
    return sum(told) if told else None


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in _REASONS.items() if bits & bit)


@cache
def _nvml() -> Any:
    """The package, talking to the driver; None where there is no package or no driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _handle(nvml: Any, device: int) -> Any:
    # The driver numbers all GPUs by their place on the bus, CUDA those that it may see, the fastest first.
    if nvml is None:
        return None
    bus_id = _bus_id(device)
    if bus_id is not None:
        return _ask(nvml, "nvmlDeviceGetHandleByPciBusId", bus_id)
    if device and _bus_id(0) is not None:  # CUDA tells its GPUs, and has none of this number
        return None
    return _ask(nvml, "nvmlDeviceGetHandleByIndex", device)


@cache
def _bus_id(device: int) -> bytes | None:
    """Where CUDA's GPU of this number sits; None where CUDA does not say."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        found, text = ctypes.c_int(), ctypes.create_string_buffer(_BUS_ID_LENGTH)
        if (
            library.cuInit(0) == 0
            and library.cuDeviceGet(ctypes.byref(found), device) == 0
            and library.cuDeviceGetPCIBusId(text, len(text), found) == 0
        ):
            return text.value
    return None


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """What the driver answers; None where this GPU or driver has no answer."""
    try:
        return getattr(nvml, function)(*arguments)
    except nvml.NVMLError:
        return None
