"""The cells of a grid as CSV, for a spreadsheet: each line says by itself where and how it was measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redline.core.files import write_whole
from redline.grid.rows import GridRow, GridStudy
from redline.reporting.grid_conditions import device_name, environment_of, model_of
from redline.reporting.grid_table import shape_of

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
    "speedup_ratio": "speedup",
    "speedup_low_ratio": "speedup_low",
    "speedup_high_ratio": "speedup_high",
    "verdict": "verdict",
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
    "sm_clock_median_mhz": "sm_mhz",
    "sm_clock_lowest_mhz": "lowest_sm_mhz",
    "note": "note",
    "elsewhere": "elsewhere",
}
_SETTINGS = ("threads", "rounds", "repeats", "window_s", "warmup_s", "cell_timeout_s", "seed")


def write_grid_csv(study: GridStudy, out: Path) -> None:
    """Write one line a cell with all its figures and its conditions; an empty field was not measured."""
    lines = [_line(study, row) for row in study.rows]
    # Two machines need not have the same packages: a column is there where any line has it.
    columns = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(out, text.getvalue())


def _line(study: GridStudy, row: GridRow) -> dict[str, Any]:
    return {
        "model": row.model,
        "model_sha256": model_of(study, row.model).get("sha256"),
        "model_parameters": model_of(study, row.model).get("parameters"),
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
        "throttled": ", ".join(row.throttled),
        "baseline": (study.run.get("settings", {}).get("baseline") or {}).get(row.device),
        "cell": row.cell,
        **_conditions(study, row),
    }


def _conditions(study: GridStudy, row: GridRow) -> dict[str, Any]:
    run, environment = study.run, environment_of(study, row)
    gpus = environment.get("gpus") if row.device != "cpu" else None
    gpu: Mapping[str, Any] = gpus[0] if gpus else {}
    settings = run.get("settings") or {}
    versions = environment.get("versions") or {}
    return {
        "node": row.node,
        "processor": environment.get("cpu"),
        "cores_usable": environment.get("cores_available"),
        "machine_memory_bytes": environment.get("memory_bytes"),
        "gpu_driver": gpu.get("driver"),
        "gpu_cuda": gpu.get("cuda"),
        "gpu_memory_bytes": gpu.get("memory_bytes"),
        "gpu_compute_capability": gpu.get("compute_capability"),
        "system": environment.get("os"),
        "kernel": environment.get("kernel"),
        "python": environment.get("python"),
        **{name: settings.get(name) for name in _SETTINGS},
        **{f"version_{name}": version for name, version in sorted(versions.items())},
        "run_id": run.get("run_id"),
        "created": run.get("created"),
        "redline": run.get("redline"),
    }
