"""What can run on this machine, and what to type where something cannot."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from redline.diagnosis.answers import MARK, Answer
from redline.diagnosis.subjects import SUBJECTS, Group, Subject
from redline.diagnosis.traps import explain
from redline.measurement.environment import Environment, fingerprint, usable_cores

Status = Literal["ok", "missing", "broken", "unusable"]
NEEDS_GPU = "needs an NVIDIA GPU, and there is none"
_GPU_PROBE = "nvidia"
_AT_ONCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
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
    findings: tuple[Diagnosed, ...]


@dataclass(frozen=True, slots=True)
class Probed:
    """How a probe's process ended: its answers, or why there are none."""

    answers: tuple[Answer, ...] = ()
    problem: str | None = None


Prober = Callable[[str], Probed]


def diagnose(*, prober: Prober | None = None, subjects: tuple[Subject, ...] = SUBJECTS) -> Diagnosis:
    """Look at the processor and the GPUs, and try every backend and tool in a process of its own.

    Args:
        prober: Runs one probe; a test gives its own.
        subjects: What to look at.
    """
    ask = prober or run_probe
    environment = fingerprint()
    gpus = _gpus(ask(_GPU_PROBE))
    here = any(finding.status == "ok" for finding in gpus)
    wanted = [subject for subject in subjects if here or subject.gpu != "yes"]
    there = sorted({subject.probe for subject in wanted if prober or _installed(subject)})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        probed = dict(zip(there, pool.map(ask, there), strict=True))
    return Diagnosis(
        environment=environment,
        cores_usable=usable_cores(environment),
        gpus=tuple(f"{gpu.title}, {gpu.detail}, {gpu.version}" for gpu in gpus if gpu.status == "ok"),
        abilities=abilities(environment.flags),
        findings=(*gpus, *(_finding(subject, probed.get(subject.probe), gpu=here) for subject in subjects)),
    )


def run_probe(name: str, timeout_s: float = 90) -> Probed:
    """Run one probe in a fresh interpreter; whatever it does to itself becomes words."""
    # -P: a file onnx.py in the current folder must not stand in for the package.
    command = [sys.executable, "-P", "-m", "redline.diagnosis.probes", name]
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


def _installed(subject: Subject) -> bool:
    for name in subject.import_names:
        with contextlib.suppress(ModuleNotFoundError):  # of the package around it
            if find_spec(name) is not None:
                return True
    return False


def _gpus(probed: Probed) -> tuple[Diagnosed, ...]:
    """A row for each GPU, or one that says why there is none."""
    found = [
        Diagnosed(
            name=answer["name"],
            title=answer["device"] or "GPU",
            group="gpu",
            status="ok",
            version=answer["version"],
            detail=answer["detail"],
        )
        for answer in probed.answers
        if answer["problem"] is None
    ]
    reason = next((answer["problem"] for answer in probed.answers), None) or probed.problem
    return tuple(found) or (Diagnosed(name="gpu", title="GPU", group="gpu", status="missing", detail=reason),)


def _finding(subject: Subject, probed: Probed | None, *, gpu: bool) -> Diagnosed:
    name, title, group = subject.name, subject.title, subject.group
    if subject.gpu != "no" and not gpu and (subject.gpu == "yes" or probed is None):
        return Diagnosed(name=name, title=title, group=group, status="missing", detail=NEEDS_GPU)
    if probed is None:
        detail = "not installed"
        return Diagnosed(name=name, title=title, group=group, status="missing", detail=detail, fix=subject.install)
    answer = next((answer for answer in probed.answers if answer["name"] == name), None)
    if answer is None:
        problem = probed.problem or "it gave no answer"
        detail, fix = explain(problem) or (
            f"installed, but does not import: {problem}",
            f"{subject.install} --force-reinstall",
        )
        return Diagnosed(name=name, title=title, group=group, status="broken", detail=detail, fix=fix)
    if answer["problem"] is None:
        return Diagnosed(
            name=name,
            title=title,
            group=group,
            status="ok",
            version=answer["version"],
            device=answer["device"],
            detail=answer["detail"],
        )
    detail, fix = answer["problem"], answer["fix"]
    if fix is None:
        detail, fix = explain(detail) or (detail, None)
    return Diagnosed(
        name=name,
        title=title,
        group=group,
        status="unusable",
        version=answer["version"],
        device=answer["device"],
        detail=detail,
        fix=fix,
    )
