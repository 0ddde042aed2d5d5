"""The records of a study that never took place: a model of time per cell, and noise around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from redline.core.plain import from_plain, to_plain
from redline.findings.conclusion import conclude
from redline.study import records as kinds
from redline.study.config import StudyConfig
from redline.study.derive import summarize
from redline.study.rows import Study

#: As it stands in a line of the file.
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the grid."""

    model: str
    variant: str
    device: str
    loader: str
    batch: int
    height: int
    width: int

    @property
    def id(self) -> str:
        point = f"{self.batch}x{self.height}x{self.width}"
        return "/".join((self.model, self.variant, self.device, self.loader, point))

    @property
    def images(self) -> float:
        """Its work, in images of 224x224."""
        return self.batch * self.height * self.width / 224**2


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A variant: what its record says and how fast it is, in images of 224x224 a second, by device."""

    title: str
    backend: str
    requested: str
    speed: Mapping[str, float]
    precision: str | None = None


KINDS: dict[str, Kind] = {
    "torch-eager-fp32": Kind(title="PyTorch eager", backend="torch", requested="fp32", speed={"cpu": 50, "cuda": 2000}),
    "torch-eager-fp16": Kind(title="PyTorch eager FP16", backend="torch", requested="fp16", speed={"cuda": 5000}),
    "onnxruntime-fp32": Kind(
        title="ONNX Runtime FP32", backend="onnxruntime", requested="fp32", speed={"cpu": 90, "cuda": 2600}
    ),
    "onnxruntime-int8-static": Kind(
        title="ONNX Runtime INT8 static", backend="onnxruntime", requested="int8", speed={"cpu": 220}
    ),
    "openvino-fp32": Kind(title="OpenVINO FP32", backend="openvino", requested="fp32", speed={"cpu": 89.9}),
}
#: Seconds of a call that do not grow with the batch.
CALL_S = {"cpu": 0.0002, "cuda": 0.0001}


def usual_time(cell: Cell) -> float:
    """Seconds of a call: a small fixed part and one in proportion to the pixels."""
    return CALL_S[cell.device] + cell.images / kind_of(cell.variant).speed[cell.device]


def usual_outcome(cell: Cell) -> tuple[str, str | None, str | None]:
    """What a device cannot run is skipped; OpenVINO fails at the largest batch."""
    if cell.device not in kind_of(cell.variant).speed:
        return "skipped", None, f"{kind_of(cell.variant).title} does not run on {cell.device}"
    if cell.variant == "openvino-fp32" and cell.batch >= 16:
        return "failed", "measure", "the worker was killed: out of memory"
    return "measured", None, None


@dataclass(frozen=True, kw_only=True)
class Run:
    """Of what the records are made.

    Attributes:
        noise: Spread of the calls above the fastest, relative.
        process_noise: Spread of the repeats, relative: two processes of one file are not alike.
        drift: Spread of the groups, relative: the machine is not the same an hour later.
        change: Called with every record; gives what is written in its place, None for nothing.
    """

    models: Sequence[str] = ("net",)
    variants: Sequence[str] = tuple(KINDS)
    devices: Sequence[str] = ("cpu", "cuda")
    loaders: Sequence[str] = ("dummy", "real")
    batches: Sequence[int] = (1, 4, 16)
    sizes: Sequence[tuple[int, int]] = ((224, 224),)
    baseline: Mapping[str, str] = field(default_factory=lambda: {"cpu": "torch-eager-fp32", "cuda": "torch-eager-fp32"})
    rounds: int = 6
    repeats: int = 3
    calls: int = 10
    purpose: str = "bench"
    controls: bool = True
    noise: float = 0.02
    process_noise: float = 0.002
    drift: float = 0.01
    seed: int = 0
    time: Callable[[Cell], float] = usual_time
    outcome: Callable[[Cell], tuple[str, str | None, str | None]] = usual_outcome
    change: Callable[[Record], Record | None] = lambda record: record


def lines_of(run: Run | None = None) -> list[Record]:
    """A complete, legal run: several variants, two devices, both loaders, some cells skipped and failed."""
    run = run or Run()
    changed = (run.change(record) for record in _records(run, np.random.default_rng(run.seed)))
    return [record for record in changed if record is not None]


def records_of(run: Run | None = None) -> tuple[kinds.Record, ...]:
    """The same as they are read."""
    return tuple(from_plain(kinds.KINDS[line["kind"]], line, where=line["kind"]) for line in lines_of(run))


def study_of(run: Run | None = None) -> Study:
    """Its rows."""
    return summarize(records_of(run))


def write_tune(path: Path) -> Path:
    """The results of a tune that never ran, concluded."""
    run = Run(purpose="tune", devices=("cpu",), loaders=("samples",), batches=(1, 8))
    conclusion = to_plain(conclude(study_of(run), batch=1, objective="latency"))
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines_of(run), conclusion]))
    return path


def cells_of(run: Run) -> list[Cell]:
    """Every cell, group by group; the control of each device's baseline behind it."""
    return [
        Cell(model=model, variant=variant, device=device, loader=loader, batch=batch, height=size[0], width=size[1])
        for model in run.models
        for size in run.sizes
        for batch in run.batches
        for device in run.devices
        for loader in run.loaders
        for name in run.variants
        for variant in ((name, f"{name}-control") if run.controls and name == run.baseline.get(device) else (name,))
    ]


def kind_of(variant: str) -> Kind:
    """Of a variant; a control is what it controls."""
    return KINDS[variant.removesuffix("-control")]


def _records(run: Run, rng: np.random.Generator) -> Iterator[Record]:
    cells = cells_of(run)
    yield _run_line(run, sum(not cell.variant.endswith("-control") for cell in cells))
    yield {"kind": "node", "node": "n0", "machine": machine(run)}
    yield from _limits(run)
    yield from _variants(run)
    groups: dict[tuple[str, int, int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.batch, cell.height, cell.width), []).append(cell)
    for group in groups.values():
        shift = float(np.exp(rng.normal(0, run.drift)))
        measured = [cell for cell in group if run.outcome(cell)[0] == "measured"]
        for repeat in range(run.repeats):
            yield from _repeat(run, measured, repeat, shift, rng)
        yield from (_cell_line(cell, run) for cell in group)


def _repeat(run: Run, cells: Sequence[Cell], repeat: int, shift: float, rng: np.random.Generator) -> Iterator[Record]:
    own = {cell.id: shift * float(np.exp(rng.normal(0, run.process_noise))) for cell in cells}
    yield from (_process(cell, repeat) for cell in cells)
    for number in range(run.rounds):
        for cell in cells:
            calls_s = run.time(cell) * own[cell.id] * (1 + rng.exponential(run.noise, run.calls))
            yield _samples(cell, repeat, number, calls_s)


def _samples(cell: Cell, repeat: int, number: int, calls_s: np.ndarray) -> Record:
    record: Record = {"kind": "samples", "cell": cell.id, "phase": "screen", "process": repeat, "round": number}
    record["disturbance"] = {"run_delay": 0.0, "steal": 0.0, "pressure": 0.0, "switches": 0}
    host_s = calls_s + (5e-5 if cell.device == "cuda" else 0.0)
    record["samples_s"] = host_s.tolist()
    if cell.device == "cuda":
        record["device_s"] = calls_s.tolist()
        reading = {"sm_mhz": 1980, "max_sm_mhz": 1980, "power_w": 310.0, "temperature_c": 45, "throttle": []}
        record["gpu"] = reading
    if cell.loader == "real":
        record["pipeline_s"] = (1.03 * host_s).tolist()
        record["serial_s"] = (host_s + 0.002 * cell.batch).tolist()
    return record


def _process(cell: Cell, repeat: int) -> Record:
    activations = int(4e6 * cell.images)
    memory = {
        "private_peak_bytes": 200_000_000 + (activations if cell.device == "cpu" else 0),
        "private_before_bytes": 20_000_000,
        "rss_peak_bytes": 400_000_000,
        "device_peak_bytes": 500_000_000 + activations if cell.device == "cuda" else None,
        "device_source": "nvml process" if cell.device == "cuda" else None,
        "allocator_peak_bytes": 50_000_000 + activations if cell.device == "cuda" else None,
    }
    times = {"load_s": 0.5, "first_call_s": 0.1, "warm_up_calls": 30, "stable": True, "window_s": 0.2}
    return {"kind": "process", "cell": cell.id, "phase": "screen", "process": repeat, **times, "memory": memory}


def _cell_line(cell: Cell, run: Run) -> Record:
    outcome, stage, reason = run.outcome(cell)
    names = {"cell": cell.id, "model": cell.model, "variant": cell.variant, "device": cell.device}
    point = {"loader": cell.loader, "batch": cell.batch, "size": [cell.height, cell.width]}
    ended = {"outcome": outcome, "stage": stage, "reason": reason, "control": cell.variant.endswith("-control")}
    return {"kind": "cell", **names, **point, **ended, "node": "n0"}


def _variants(run: Run) -> Iterator[Record]:
    for cell in cells_of(run):
        kind = kind_of(cell.variant)
        if cell.loader != run.loaders[0] or cell.device not in kind.speed:
            continue
        where = {"model": cell.model, "size": [cell.height, cell.width], "batch": cell.batch}
        where |= {"variant": cell.variant, "device": cell.device}
        precision = kind.precision or kind.requested
        yield {
            "kind": "variant",
            **where,
            "title": kind.title + (", again" if cell.variant.endswith("-control") else ""),
            "backend": kind.backend,
            "runtime": f"{kind.backend} 1.0",
            "requested": kind.requested,
            "precision": precision,
            "layers": [[precision, 21]],
            "artifact": None,
            "size_bytes": 40_000_000,
            "weights_bytes": 10_000_000 if kind.requested == "int8" else 40_000_000,
            "note": None,
            "elsewhere": None,
            "versions": {},
            "control": cell.variant.endswith("-control"),
        }
        agreement = 0.99 if kind.requested == "int8" else 1.0
        answers = {"top1_agreement": agreement, "relative_error": 0.05 if agreement < 1 else 1e-6, "finite": True}
        unknown = ("top1_output", "accuracy", "reference_accuracy", "broken", "repaired", "reason", "evidence")
        judged = {"outputs": [], "samples": 100, "passed": True, **dict.fromkeys(unknown), "notes": []}
        yield {"kind": "agreement", **where, **answers, **judged}


def _limits(run: Run) -> Iterator[Record]:
    for device, scale in (("cpu", 1.0), ("cuda", 100.0)):
        if device in run.devices:
            for precision, gflops in (("fp32", 400.0), ("fp16", 800.0), ("int8", 1600.0)):
                name = {"device": device, "precision": precision}
                yield {"kind": "ceiling", **name, "gflops": scale * gflops, "how": "matrix product"}
            yield {"kind": "bandwidth", "device": device, "gbytes_per_s": 20.0 * scale, "how": "copy"}
    for model in run.models:
        for height, width in run.sizes:
            macs = int(1.8e9 * height * width / 224**2)
            yield {"kind": "macs", "model": model, "size": [height, width], "macs_per_sample": macs}


def _run_line(run: Run, cells: int) -> Record:
    settings = {
        "models": list(run.models),
        "devices": list(run.devices),
        "loaders": list(run.loaders),
        "batches": list(run.batches),
        "sizes": [list(size) for size in run.sizes],
        "rounds": run.rounds,
        "window_s": 0.2,
        "warmup_s": 3.0,
        "repeats": run.repeats,
        "cell_timeout_s": 120.0,
        "threads": 2,
    }
    StudyConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    return {
        "kind": "run",
        "format": 2,
        "purpose": run.purpose,
        "run_id": "0f" * 8,
        "redline": "0.2.0",
        "command": f"redline {run.purpose} net",
        "created": "2026-01-01T00:00:00+00:00",
        "name": "net",
        "commit": None,
        "cells": cells,
        "settings": settings,
        "baselines": {device: name for device, name in run.baseline.items() if device in run.devices},
        "variants": list(run.variants),
        "models": [_model(name, index) for index, name in enumerate(run.models, start=1)],
        "data": {"source": "photos", "images": 32, "warning": None},
        "machine": machine(run),
        "clock": {"resolution_s": 1e-9, "overhead_s": 1e-7},
    }


def _model(name: str, index: int) -> Record:
    image = {"name": "x", "shape": ["batch", 3, 224, 224], "dtype": "float32"}
    scores = {"name": "y", "shape": ["batch", 10], "dtype": "float32"}
    return {
        "name": name,
        "ref": None,
        "weights_file": None,
        "sha256": f"{index:02x}" * 32,
        "parameters": 10_000_000,
        "signature": {"inputs": [image], "outputs": [scores]},
        "preprocess": None,
    }


def machine(run: Run) -> Record:
    """With a GPU where the run has one."""
    gpu: Record = {"index": 0, "name": "H100", "compute_capability": "9.0", "driver": "570.1", "cuda": "12.8"}
    gpu["memory_bytes"] = 80 * 10**9
    return {"environment": environment(), "gpus": [gpu] if "cuda" in run.devices else []}


def environment() -> Record:
    """A machine's."""
    return {
        "cpu": "Some CPU",
        "flags": ["avx2", "fma"],
        "cores_logical": 2,
        "cores_available": 2,
        "memory_bytes": 8 * 10**9,
        "container_cpu_limit": None,
        "container_memory_bytes": None,
        "governor": "performance",
        "os": "Some Linux 1",
        "python": "3.12.1",
        "versions": {"redline": "0.1.0", "numpy": "2.0.0", "torch": "2.6.0", "onnxruntime": "1.20.0"},
        "load_average": [0.1, 0.1, 0.1],
        "noise": {"spread": 0.02, "steal": 0.0, "noisy": False, "warning": None},
        "architecture": "x86_64",
        "kernel": "Linux 6",
        "hypervisor": None,
        "turbo": True,
        "frequency_hz": 3_000_000_000,
        "variables": {},
    }
