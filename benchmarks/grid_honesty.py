"""Does a whole grid call equals equal and find a 5 % slowdown? Runs grids with both planted, and writes every interval.

The baseline is ONNX Runtime in FP32; against it stand the same file once more, as if it were another backend, and the
same file with 5 % added to each call. Wanted: at most 5 % of the equal cells are called different, and the slowdown is
found in at least 95 % of the slow ones.

    python benchmarks/grid_honesty.py -o results/cpu/grid_honesty.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import redline.variants

HERE = Path(__file__).resolve().parent
SAME, SLOW, DELAY = "onnxruntime-again", "onnxruntime-slower", 0.05
_BASE = next(v for v in redline.variants.VARIANTS if (v.name, v.device) == ("onnxruntime-fp32", "cpu"))
PLANTED = tuple(replace(_BASE, name=f"{name}-fp32", title=name, backend=name) for name in (SAME, SLOW))
redline.variants.VARIANTS = (*redline.variants.VARIANTS, *PLANTED)  # before the grid reads the table

from redline.commands import bench_workshop  # noqa: E402
from redline.commands.bench import bench  # noqa: E402
from redline.commands.ways import open_variant  # noqa: E402
from redline.core.files import write_whole  # noqa: E402
from redline.grid.config import GridConfig  # noqa: E402
from redline.grid.rows import GridRow, GridStudy  # noqa: E402
from redline.measurement.environment import fingerprint, noise_check  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4, help="grids of 12 equal and 12 slow cells each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    bench_workshop.open_variant = _open_with_delay  # type: ignore[assignment]
    rows: list[dict[str, Any]] = []
    config = GridConfig(
        models=("resnet18",),
        backends=("onnxruntime", SAME, SLOW),
        loaders=("dummy", "real"),
        batches=(1, 2, 4),
        sizes=((96, 96), (128, 128)),
        baseline="onnxruntime-fp32",
        rounds=args.rounds,
        window_s=0.05,
        warmup_s=0.5,
        threads=args.threads,
    )
    document: dict[str, Any] = {
        "benchmark": "grid_honesty",
        "command": "python benchmarks/grid_honesty.py",
        "settings": config.settings(),
        "delay": DELAY,
        "environment": fingerprint(noise=noise_check()).to_json(),
    }
    for run in range(args.runs):
        with tempfile.TemporaryDirectory() as folder:
            study = bench(replace(config, seed=run), Path(folder) / "run.jsonl")
        rows += [{"run": run, **_figures(row)} for row in _planted(study)]
        document |= {"summary": _summary(rows), "cells": rows}
        print(f"run {run + 1} of {args.runs}: {document['summary']}", flush=True)
        if args.out:
            write_whole(args.out, json.dumps(document, indent=1) + "\n")
    summary = document["summary"]
    return 0 if summary["equal_called_different"] <= 0.05 and summary["slow_found"] >= 0.95 else 1


def _open_with_delay(variant: Any, place: Any, files: Any) -> Any:
    source, layers = open_variant(variant, place, files)
    if variant.backend != SLOW:
        return source, layers
    environment = {**source.environment, "PYTHONPATH": str(HERE)}
    arguments = {**source.arguments, "share": DELAY}
    return replace(source, factory="delayed:open_delayed", arguments=arguments, environment=environment), layers


def _planted(study: GridStudy) -> list[GridRow]:
    return [row for row in study.rows if row.backend in (SAME, SLOW)]


def _figures(row: GridRow) -> dict[str, Any]:
    ratio = {"speedup": row.speedup, "low": row.speedup_low, "high": row.speedup_high, "verdict": row.verdict}
    return {"cell": row.cell, "backend": row.backend, "outcome": row.outcome, "reason": row.reason, **ratio}


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    equal = [row for row in rows if row["backend"] == SAME]
    slow = [row for row in rows if row["backend"] == SLOW]
    return {
        "equal_cells": len(equal),
        "equal_called_different": sum(row["verdict"] != "no difference" for row in equal) / len(equal),
        "slow_cells": len(slow),
        "slow_found": sum(row["verdict"] == "slower" for row in slow) / len(slow),
    }


if __name__ == "__main__":
    sys.exit(main())
