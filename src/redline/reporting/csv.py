"""The cells of a grid as CSV, for a spreadsheet: each line says by itself where and how it was measured."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from redline.core.files import write_whole
from redline.findings.claims import claim_of
from redline.reporting.conditions import device_name, model_of
from redline.reporting.table import shape_of
from redline.study.rows import Row, Study

#: Column by field of a row.
_FIGURES = {
    "outcome": "outcome",
    "stage": "stage",
    "reason": "reason",
    "clock": "clock",
    "time_median_s": "time_s",
    "time_p90_s": "p90_s",
    "time_p99_s": "p99_s",
    "time_mean_s": "mean_s",
    "calls": "calls",
    "images_per_s": "throughput_per_s",
    "host_to_host_median_s": "latency_s",
    "device_median_s": "device_s",
    "batch_with_loader_median_s": "pipeline_s",
    "batch_with_loader_in_line_median_s": "serial_s",
    "host_memory_peak_bytes": "host_bytes",
    "device_memory_peak_bytes": "device_bytes",
    "allocator_memory_peak_bytes": "allocator_bytes",
    "weights_bytes": "weights_bytes",
    "file_bytes": "size_bytes",
    "load_s": "load_s",
    "first_call_s": "first_call_s",
    "settled": "stable",
    "share_of_limit_fraction": "share_of_limit",
    "limit_by": "limit_by",
    "top1_agreement_fraction": "top1_agreement",
    "largest_relative_error_ratio": "relative_error",
    "answers_finite": "finite",
    "largest_error": "max_abs",
    "cosine": "cosine",
    "accuracy_fraction": "accuracy",
    "accuracy_drop_fraction": "accuracy_drop",
    "passed": "passed",
    "gate_reason": "gate_reason",
    "samples_verified": "samples",
    "confirmed": "confirmed",
    "control": "control",
    "recommended": "recommended",
    "pareto": "pareto",
    "memory_sound": "memory_sound",
    "precision_evidence": "precision_evidence",
    "sm_clock_median_mhz": "sm_mhz",
    "sm_clock_lowest_mhz": "lowest_sm_mhz",
    "note": "note",
    "elsewhere": "elsewhere",
}
_Field = str | int | float | bool | None
_SETTINGS = ("threads", "rounds", "repeats", "confirm", "window_s", "warmup_s", "cell_timeout_s", "seed")


def write_csv(study: Study, out: Path) -> None:
    """Write one line a cell with all its figures and its conditions; an empty field was not measured."""
    lines = [_line(study, row) for row in study.rows]
    # Two machines need not have the same packages: a column is there where any line has it.
    columns = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(out, text.getvalue())


def _line(study: Study, row: Row) -> dict[str, _Field]:
    model = model_of(study, row.model)
    return {
        "model": row.model,
        "model_sha256": model.sha256 if model else None,
        "model_parameters": model.parameters if model else None,
        "variant": row.variant,
        "title": row.title,
        "backend": row.backend,
        "precision_asked": row.requested,
        "precision_found": row.precision if row.precision != "none" else None,
        "precision_layers": row.layers_text,
        "device": row.device,
        "device_name": device_name(study, row),
        "loader": row.loader,
        "batch": row.batch,
        "height_px": row.height,
        "width_px": row.width,
        "shape": shape_of(study, row).replace("×", "x"),
        **{column: getattr(row, name) for column, name in _FIGURES.items()},
        **_speed(row),
        "throttled": ", ".join(row.throttled),
        "baseline": study.run.baselines.get(row.device),
        "cell": row.cell,
        **_conditions(study, row),
    }


def _speed(row: Row) -> dict[str, _Field]:
    claim = claim_of(row)
    if claim is None:
        return {"speed_verdict": None}
    said = claim.says_speed
    return {
        "speed_verdict": claim.verdict,
        "speedup_ratio": claim.value if said else None,
        "speedup_low_ratio": claim.low if said else None,
        "speedup_high_ratio": claim.high if said else None,
        "speed_processes": claim.processes,
        "why_no_speedup": "; ".join(claim.reasons) or None,
    }


def _conditions(study: Study, row: Row) -> dict[str, _Field]:
    run, machine = study.run, study.machine_of(row)
    environment = machine.environment
    gpu = machine.gpus[0] if machine.gpus and row.device != "cpu" else None
    versions = {**environment.versions, **row.versions}
    return {
        "node": row.node,
        "processor": environment.cpu,
        "cores_usable": environment.cores_available,
        "machine_memory_bytes": environment.memory_bytes,
        "gpu_driver": gpu.driver if gpu else None,
        "gpu_cuda": gpu.cuda if gpu else None,
        "gpu_memory_bytes": gpu.memory_bytes if gpu else None,
        "gpu_compute_capability": gpu.compute_capability if gpu else None,
        "system": environment.os,
        "kernel": environment.kernel,
        "python": environment.python,
        **{name: getattr(run.settings, name) for name in _SETTINGS},
        **{f"version_{name}": version for name, version in sorted(versions.items())},
        "run_id": run.run_id,
        "created": run.created,
        "redline": run.redline,
        "commit": run.commit,
    }
