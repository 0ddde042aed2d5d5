"""What can run on this machine, and what to type where something cannot."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal

from redline.commands.probes import MARK, Answer
from redline.measurement.environment import Environment, fingerprint, usable_cores

Status = Literal["ok", "missing", "broken", "unusable"]
Group = Literal["runtime", "tool", "models"]
_AT_ONCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something to look at: its probe, its import name, and what to type when it is not there."""

    name: str
    title: str
    probe: str
    install: str
    group: Group = "runtime"
    needs_gpu: bool = False


SUBJECTS: tuple[Subject, ...] = (
    Subject(name="torch-eager", title="PyTorch eager", probe="torch", install="pip install 'redline[torch]'"),
    Subject(name="torch-compile", title="PyTorch torch.compile", probe="torch", install="pip install 'redline[torch]'"),
    Subject(name="torchscript", title="PyTorch TorchScript", probe="torch", install="pip install 'redline[torch]'"),
    Subject(name="onnxruntime", title="ONNX Runtime", probe="onnxruntime", install="pip install onnxruntime"),
    Subject(name="openvino", title="OpenVINO", probe="openvino", install="pip install 'redline[openvino]'"),
    Subject(name="tensorrt", title="TensorRT", probe="tensorrt", install="pip install tensorrt", needs_gpu=True),
    Subject(
        name="tensorrt-rtx",
        title="TensorRT for RTX",
        probe="tensorrt_rtx",
        install="pip install tensorrt-rtx",
        needs_gpu=True,
    ),
    Subject(
        name="torch-tensorrt",
        title="Torch-TensorRT",
        probe="torch_tensorrt",
        install="pip install torch-tensorrt",
        needs_gpu=True,
    ),
    Subject(
        name="nncf",
        title="NNCF (INT8 for OpenVINO)",
        probe="nncf",
        install="pip install 'redline[openvino]'",
        group="tool",
    ),
    Subject(
        name="onnxscript",
        title="onnxscript (export)",
        probe="onnxscript",
        install="pip install 'redline[torch]'",
        group="tool",
    ),
    Subject(
        name="onnxoptimizer",
        title="onnxoptimizer",
        probe="onnxoptimizer",
        install="pip install 'redline[optimize]'",
        group="tool",
    ),
    Subject(
        name="onnxslim", title="OnnxSlim", probe="onnxslim", install="pip install 'redline[optimize]'", group="tool"
    ),
    Subject(
        name="vl-convert",
        title="vl-convert (plots)",
        probe="vl_convert",
        install="pip install 'redline[report]'",
        group="tool",
    ),
    Subject(
        name="torchvision",
        title="torchvision:NAME",
        probe="torchvision",
        install="pip install torchvision",
        group="models",
    ),
    Subject(name="timm", title="timm:NAME", probe="timm", install="pip install timm", group="models"),
)

# What a package says when it breaks, and what it means.
_KNOWN_PROBLEMS = (
    (
        "torchvision::nms",
        "its wheel was built for a CUDA build of PyTorch, and this one is for the CPU",
        "pip install torchvision --index-url https://download.pytorch.org/whl/cpu (the built-in models need none)",
    ),
    ("libcuda", "it needs the NVIDIA driver, which is not here", None),
    ("libnvinfer", "TensorRT's libraries are not installed beside its Python package", "pip install tensorrt"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found about one subject.

    Attributes:
        status: ``ok``; ``missing`` (not installed); ``broken`` (installed, does not import); ``unusable`` (imports,
            but this machine lacks something).
        fix: What to type or do; None where nothing needs to, or can, be done.
    """

    name: str
    title: str
    group: Group
    status: Status
    version: str | None = None
    device: str | None = None
    detail: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What the processor can do in one precision, in words."""

    name: str
    available: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that ``redline doctor`` says."""

    environment: Environment
    cores_usable: int
    gpus: tuple[str, ...]
    abilities: tuple[Ability, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "environment": self.environment.to_json(),
            "cores_usable": self.cores_usable,
            "gpus": list(self.gpus),
            "abilities": [asdict(ability) for ability in self.abilities],
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Probed:
    """How a probe's process ended: its answers, or why there are none."""

    answers: tuple[Answer, ...] = ()
    problem: str | None = None


Prober = Callable[[str], Probed]


def doctor(*, prober: Prober | None = None, subjects: tuple[Subject, ...] = SUBJECTS) -> Diagnosis:
    """Look at the processor and try every backend and tool in a process of its own.

    Args:
        prober: Runs one probe; a test gives its own.
        subjects: What to look at.
    """
    ask = prober or run_probe
    environment = fingerprint()
    gpus = find_gpus()
    there = sorted({subject.probe for subject in subjects if prober or find_spec(subject.probe)})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        probed = dict(zip(there, pool.map(ask, there), strict=True))
    return Diagnosis(
        environment=environment,
        cores_usable=usable_cores(environment),
        gpus=gpus,
        abilities=abilities(environment.flags),
        findings=tuple(_finding(subject, probed.get(subject.probe), gpu=bool(gpus)) for subject in subjects),
    )


def run_probe(name: str, timeout_s: float = 90) -> Probed:
    """Run one probe in a fresh interpreter; whatever it does to itself becomes words."""
    # -P: a file onnx.py in the current folder must not stand in for the package.
    command = [sys.executable, "-P", "-m", "redline.commands.probes", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return Probed(problem=f"importing it did not end within {timeout_s:.0f} s")
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            return Probed(tuple(json.loads(line.removeprefix(MARK))))
    if done.returncode < 0:
        return Probed(problem=f"importing it ended with {signal.Signals(-done.returncode).name}")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return Probed(problem=lines[-1].strip() if lines else f"importing it ended with exit code {done.returncode}")


def abilities(flags: tuple[str, ...]) -> tuple[Ability, ...]:
    """What a processor with these flags can do, in words; nothing where the system does not tell its flags."""
    if not flags:
        return ()
    wanted = {
        "FP32": (("avx512f", "sve", "avx2", "avx", "asimd"), "vector units", "no vector unit was found"),
        "INT8": (
            ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "svei8mm", "asimddp"),
            "8-bit products at full speed",
            "8-bit products without instructions of their own, so INT8 gains less",
        ),
        "BF16": (
            ("amx_bf16", "avx512_bf16", "svebf16", "bf16"),
            "half the bytes, products in BF16",
            "BF16 models run as FP32 with casts",
        ),
        "FP16": (
            ("amx_fp16", "avx512_fp16", "asimdhp"),
            "arithmetic in FP16",
            "no FP16 arithmetic: FP16 models run as FP32 with casts, which saves disk and no time",
        ),
    }
    found = []
    for name, (candidates, yes, no) in wanted.items():
        have = [flag for flag in candidates if flag in flags]
        text = f"{', '.join(have)}: {yes}" if have else no
        found.append(Ability(name=name, available=bool(have), text=text))
    return tuple(found)


def find_gpus() -> tuple[str, ...]:
    """NVIDIA GPUs as ``nvidia-smi`` names them, with memory, driver and compute capability; none without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()) if done.returncode == 0 else ()


def _finding(subject: Subject, probed: Probed | None, *, gpu: bool) -> Finding:
    name, title, group = subject.name, subject.title, subject.group
    if probed is None:
        no_gpu = subject.needs_gpu and not gpu
        detail = "needs an NVIDIA GPU, and there is none" if no_gpu else "not installed"
        return Finding(
            name=name,
            title=title,
            group=group,
            status="missing",
            detail=detail,
            fix=None if no_gpu else subject.install,
        )
    answer = next((answer for answer in probed.answers if answer["name"] == name), None)
    if answer is None:
        detail, fix = _explain(probed.problem or "it gave no answer", subject)
        return Finding(name=name, title=title, group=group, status="broken", detail=detail, fix=fix)
    problem = answer["problem"]
    return Finding(
        name=name,
        title=title,
        group=group,
        status="unusable" if problem else "ok",
        version=answer["version"],
        device=answer["device"],
        detail=problem or answer["detail"],
        fix=answer["fix"] if problem else None,
    )


def _explain(problem: str, subject: Subject) -> tuple[str, str | None]:
    for words, meaning, fix in _KNOWN_PROBLEMS:
        if words in problem:
            return meaning, fix
    return f"installed, but does not import: {problem}", f"{subject.install} --force-reinstall"
