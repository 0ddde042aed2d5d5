"""What the driver says of a GPU, and the silence where there is none."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from redline.backends.nvidia import device_count
from redline.core.plain import to_plain
from redline.measurement import gpu_state


class FakeError(Exception):
    """Stands in for pynvml's."""


class FakeNvml:
    """A driver with one GPU, at a bus of its own, which does not tell its power."""

    NVMLError = FakeError
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self) -> None:
        self.bits = 0x1 | 0x2 | 0x4 | 0x20
        self.processes = [SimpleNamespace(pid=7, usedGpuMemory=300), SimpleNamespace(pid=8, usedGpuMemory=None)]

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index:
            raise FakeError
        return "gpu"

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: bytes) -> str:
        return bus_id.decode()

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return {("gpu", 1): 1200, ("00000000:65:00.0", 1): 900}[handle, clock]

    def nvmlDeviceGetMaxClockInfo(self, handle: str, clock: int) -> int:
        return 1980

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        raise FakeError

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 45

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.bits

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return self.processes


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    gpu_state._nvml.cache_clear()
    yield
    gpu_state._nvml.cache_clear()


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(gpu_state, "_bus_id", lambda device: None)
    return fake


def test_a_state_names_what_holds_the_clock_down_and_leaves_out_what_is_not_told(nvml: FakeNvml) -> None:
    found = gpu_state.state()
    assert found == gpu_state.GpuState(
        sm_mhz=1200,
        max_sm_mhz=1980,
        power_w=None,
        temperature_c=45,
        throttle=("sw_power_cap", "sw_thermal_slowdown"),
    )
    assert to_plain(found)["throttle"] == ["sw_power_cap", "sw_thermal_slowdown"]
    nvml.bits = 0x3
    assert gpu_state.state() is not None
    assert gpu_state.state().throttle == ()  # type: ignore[union-attr]
    assert gpu_state.state(1) is None


def test_cuda_says_which_gpu_is_meant(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_state, "_bus_id", lambda device: b"00000000:65:00.0")
    found = gpu_state.state(3)
    assert found is not None
    assert found.sm_mhz == 900


def test_a_gpu_that_cuda_may_not_see_is_not_told_of(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with CUDA_VISIBLE_DEVICES=1 on a machine of two: the driver's number 1 is CUDA's number 0."""
    monkeypatch.setattr(gpu_state, "_bus_id", lambda device: None if device else b"00000000:65:00.0")
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda index: "gpu")
    assert gpu_state.state(0) is not None
    assert gpu_state.state(1) is None


def test_a_process_has_what_the_driver_lists_for_it(nvml: FakeNvml) -> None:
    assert gpu_state.process_bytes(7) == 300
    assert gpu_state.process_bytes(8) is None
    assert gpu_state.process_bytes(9) is None
    nvml.processes.append(SimpleNamespace(pid=7, usedGpuMemory=50))
    assert gpu_state.process_bytes(7) == 350


@pytest.mark.parametrize("missing", ["package", "driver"])
def test_without_a_package_or_a_driver_there_is_no_answer(
    missing: str, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise FakeError

    if missing == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        monkeypatch.setattr(nvml, "nvmlInit", fail)
    assert gpu_state.state() is None
    assert gpu_state.process_bytes(7) is None


@pytest.mark.skipif(find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
def test_every_name_is_one_of_the_package() -> None:
    import pynvml

    asked: dict[str, Any] = {name: getattr(pynvml, name, None) for name in vars(FakeNvml) if name.startswith("nvml")}
    assert all(callable(function) for function in asked.values()), asked
    assert issubclass(pynvml.NVMLError, Exception)
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU) == (FakeNvml.NVML_CLOCK_SM, 0)
    prefix = "nvmlClocksThrottleReason"
    official = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", name.removeprefix(prefix)).lower().replace("brake_slowdown", "brake"): value
        for name, value in vars(pynvml).items()
        if name.startswith(prefix)
    }
    settings = {
        "none",
        "all",
        "gpu_idle",
        "applications_clocks_setting",
        "user_defined_clocks",
        "display_clock_setting",
    }
    assert {name: bit for name, bit in official.items() if name not in settings} == {
        name: bit for bit, name in gpu_state._REASONS.items()
    }


@pytest.mark.gpu
@pytest.mark.skipif(not device_count() or find_spec("pynvml") is None, reason="needs an NVIDIA GPU and nvidia-ml-py")
def test_the_real_driver_answers() -> None:
    found = gpu_state.state()
    assert found is not None
    assert 0 < (found.sm_mhz or 0) <= (found.max_sm_mhz or 0)
    assert gpu_state.state(device_count()) is None
