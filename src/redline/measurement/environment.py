"""The conditions of a measurement: the machine, its limits, the software, and how noisy it is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from redline.core.files import text_of
from redline.core.host import available_cores, parse_cpuinfo
from redline.core.packages import DECIDING, RECORDED
from redline.measurement.disturbance import steal_share
from redline.measurement.limits import container_limits

#: CPU features that decide which kernels a runtime takes; the rest would only make the fingerprint unreadable.
# fmt: off
RELEVANT_FLAGS = frozenset((
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8",
    "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16", "sme",
))
# fmt: on
#: Variables that change how many threads or which kernels a runtime takes.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ATEN_CPU_CAPABILITY",
    "KMP_BLOCKTIME",
    "KMP_HW_SUBSET",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_DYNAMIC",
    "OMP_WAIT_POLICY",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
)  # fmt: skip
_NOISY_SPREAD = 0.10
_NOISY_STEAL = 0.01
_MOST_SAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How evenly this machine does the same small work over and over.

    Attributes:
        spread: 90th less 10th percentile of its duration, relative to the median.
        steal: Share of the time that the hypervisor gave to others; None where the system does not tell.
        noisy: Whether small differences measured now should be doubted.
        warning: In words, where it is.
    """

    spread: float
    steal: float | None
    noisy: bool
    warning: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where and with what something was measured; what cannot be read is None."""

    cpu: str
    flags: tuple[str, ...]
    cores_logical: int
    cores_available: int
    memory_bytes: int
    container_cpu_limit: float | None
    container_memory_bytes: int | None
    governor: str | None
    os: str
    python: str
    versions: Mapping[str, str]
    load_average: tuple[float, ...]
    noise: Noise | None = None
    architecture: str | None = None
    kernel: str | None = None
    hypervisor: str | None = None
    turbo: bool | None = None
    frequency_hz: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def fingerprint(*, root: Path = Path("/"), noise: Noise | None = None) -> Environment:
    """Read the conditions.

    Args:
        root: Where ``/proc`` and ``/sys`` are; where they are not (macOS), psutil and ``platform`` answer.
        noise: What :func:`noise_check` said.
    """
    text = text_of(root / "proc/cpuinfo")
    name, flags = parse_cpuinfo(text) if text else (_cpu_without_proc(), ())
    limits = container_limits(root)
    logical = psutil.cpu_count() or 1
    return Environment(
        cpu=name,
        flags=tuple(flag for flag in flags if flag in RELEVANT_FLAGS),
        architecture=platform.machine(),
        cores_logical=logical,
        cores_available=available_cores(),
        memory_bytes=psutil.virtual_memory().total,
        container_cpu_limit=limits.cpus,
        container_memory_bytes=limits.memory_bytes,
        governor=text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(root),
        frequency_hz=_frequency_hz(root, text),
        hypervisor=_hypervisor(root, flags),
        os=_os_name(root),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=installed(RECORDED),
        load_average=tuple(round(load, 2) for load in psutil.getloadavg()),
        noise=noise,
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


def usable_cores(environment: Environment) -> int:
    """How many threads can really run at once: affinity, and a container's quota rounded up."""
    quota = environment.container_cpu_limit
    return (
        environment.cores_available if quota is None else max(1, min(environment.cores_available, int(-(-quota // 1))))
    )


def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those that are installed, read from their metadata: nothing is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def comparable(a: Environment, b: Environment) -> list[str]:
    """Why measurements from ``a`` and ``b`` cannot be put into one table; nothing where they can.

    Load, clock speed and the kernel may differ: variants of one run are measured interleaved, so such drift hits
    all of them.
    """
    fields = ("cpu", "flags", "architecture", "cores_available", "container_cpu_limit", "governor", "turbo")
    reasons = [
        f"{name} was {_words(getattr(a, name))}, is {_words(getattr(b, name))}"
        for name in fields
        if getattr(a, name) != getattr(b, name)
    ]
    python = [".".join(environment.python.split(".")[:2]) for environment in (a, b)]
    if python[0] != python[1]:
        reasons.append(f"python was {python[0]}, is {python[1]}")
    for package in DECIDING:
        was, now = a.versions.get(package), b.versions.get(package)
        if was != now:
            reasons.append(f"{package} was {was or 'not installed'}, is {now or 'not installed'}")
    variables = [(name, a.variables.get(name, "unset"), b.variables.get(name, "unset")) for name in _VARIABLES]
    return [*reasons, *(f"{name} was {was}, is {now}" for name, was, now in variables if was != now)]


def noise_check(
    *,
    clock: Callable[[], float] = time.perf_counter,
    duration_s: float = 0.5,
    cpu_times: Callable[[], str | None] = lambda: text_of(Path("/proc/stat")),
) -> Noise:
    """Time a small fixed piece of work again and again and look at the spread.

    Args:
        clock: Seconds.
        duration_s: How long to look.
        cpu_times: The text of ``/proc/stat``, None where there is none.
    """
    before = cpu_times()
    values = np.linspace(1.0, 2.0, 1 << 15, dtype=np.float32)
    buffer = np.empty_like(values)
    samples: list[float] = []
    start = clock()
    while (began := clock()) - start < duration_s and len(samples) < _MOST_SAMPLES:
        for _ in range(20):  # about half a millisecond, on one core, within the second cache
            np.sqrt(values, out=buffer)
            np.multiply(values, buffer, out=buffer)
        samples.append(clock() - began)
    steady = samples[len(samples) // 10 :] or [1.0]
    low, middle, high = np.percentile(steady, [10, 50, 90])
    spread = float((high - low) / middle) if middle else 0.0
    steal = steal_share(before, cpu_times())
    return judge_noise(spread, steal)


def judge_noise(spread: float, steal: float | None) -> Noise:
    """Whether such a spread (of 10 % and more) or steal (of 1 % and more) makes a machine noisy, in words."""
    causes = []
    if spread >= _NOISY_SPREAD:
        causes.append(f"the same small work varies by {100 * spread:.0f} %")
    if steal is not None and steal >= _NOISY_STEAL:
        causes.append(f"the hypervisor took {100 * steal:.1f} % of the time")
    warning = f"noisy machine: {' and '.join(causes)}; stop other work, or doubt small differences" if causes else None
    return Noise(
        spread=round(spread, 4), steal=None if steal is None else round(steal, 4), noisy=bool(causes), warning=warning
    )


def _turbo(root: Path) -> bool | None:
    disabled = text_of(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    if disabled is not None:
        return disabled == "0"
    boost = text_of(root / "sys/devices/system/cpu/cpufreq/boost")
    return None if boost is None else boost == "1"


def _frequency_hz(root: Path, cpuinfo: str | None) -> int | None:
    kilohertz = text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if kilohertz and kilohertz.isdigit():
        return int(kilohertz) * 1000
    for line in (cpuinfo or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "cpu MHz":
            return round(float(value) * 1e6)
    return None


def _hypervisor(root: Path, flags: tuple[str, ...]) -> str | None:
    """Whose virtual machine this is; ``unknown`` where the processor says only that it is one."""
    vendor = text_of(root / "sys/class/dmi/id/sys_vendor") or text_of(root / "sys/hypervisor/type")
    product = text_of(root / "sys/class/dmi/id/product_name") or ""
    words = f"{vendor or ''} {product}".lower()
    virtual = any(word in words for word in ("qemu", "kvm", "vmware", "xen", "virtual", "firecracker"))
    if "hypervisor" not in flags and not virtual:
        return None
    return vendor or "unknown"


def _os_name(root: Path) -> str:
    for line in (text_of(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return platform.platform(terse=True)


def _cpu_without_proc() -> str:
    return platform.processor() or platform.machine()


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
