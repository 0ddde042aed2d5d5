"""Does Redline call equals equal and find a 5 % delay? Runs whole grids with both planted, and writes every interval.

The baseline is ONNX Runtime in FP32; against it stand the same file again, as if other backends ran it, and the same
file with 5 % added to each call. Every grid measures as ``redline bench`` does, in fresh processes. Wanted: at most
1.5 % of the equals are called faster or slower, at least 95 % of the delays are called slower, and the intervals hold
1 and 1 / 1.05 in 98.5 % of the cells that are published.

    python benchmarks/honesty.py -o results/cpu/honesty.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import redline.variants

HERE = Path(__file__).resolve().parent
SAME, SLOW, DELAY = "onnxruntime-again", "onnxruntime-slower", 0.05
OF_EACH = 4
_BASE = next(v for v in redline.variants.VARIANTS if (v.name, v.device) == ("onnxruntime-fp32", "cpu"))
BACKENDS = tuple(f"{kind}{number}" for kind in (SAME, SLOW) for number in range(OF_EACH))
PLANTED = tuple(replace(_BASE, name=f"{name}-fp32", title=name, backend=name) for name in BACKENDS)
redline.variants.VARIANTS = (*redline.variants.VARIANTS, *PLANTED)  # before the study reads the table

from redline.commands.bench import bench  # noqa: E402
from redline.core.files import write_whole  # noqa: E402
from redline.core.plain import to_plain  # noqa: E402
from redline.findings.claims import Claim, claim_of  # noqa: E402
from redline.measurement.environment import fingerprint, noise_check  # noqa: E402
from redline.measurement.stats import clopper_pearson  # noqa: E402
from redline.study.config import StudyConfig  # noqa: E402
from redline.study.files import Workshop  # noqa: E402
from redline.study.launch import Launch  # noqa: E402
from redline.study.rows import Row  # noqa: E402
from redline.variants import Variant  # noqa: E402

_open = Workshop.open


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25, help=f"grids with {OF_EACH} equals and {OF_EACH} delays each")
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    Workshop.open = _open_with_delay  # type: ignore[method-assign]
    config = StudyConfig(
        models=(args.model,),
        backends=("onnxruntime", *BACKENDS),
        batches=(args.batch,),
        baseline="onnxruntime-fp32",
        threads=1,
    )
    document: dict[str, Any] = {
        "benchmark": "honesty",
        "command": " ".join(["python", "benchmarks/honesty.py", *sys.argv[1:]]),
        "settings": to_plain(config),
        "delay": DELAY,
        "redline": redline.__version__,
        "environment": to_plain(fingerprint(noise=noise_check())),
    }
    cells: list[dict[str, Any]] = []
    for run in range(args.runs):
        started = perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            study = bench(replace(config, seed=run), Path(folder) / "run.jsonl")
        cells += [{"run": run, **_figures(row)} for row in study.rows if row.backend in BACKENDS]
        document |= {"summary": summary(cells), "cells": cells}
        print(f"run {run + 1} of {args.runs}, {perf_counter() - started:.0f} s: {document['summary']}", flush=True)
        if args.out:
            write_whole(args.out, json.dumps(document, indent=1) + "\n")
    found = document["summary"]
    return 0 if found["equal_called_different"] <= 0.015 and found["delay_found"] >= 0.95 else 1


def _open_with_delay(self: Workshop, variant: Variant, batch: int) -> Launch:
    launch = _open(self, variant, batch)
    if not variant.backend.startswith(SLOW):
        return launch
    source = replace(
        launch.source,
        factory="delayed:open_delayed",
        arguments={**launch.source.arguments, "share": DELAY},
        environment={**launch.source.environment, "PYTHONPATH": str(HERE)},
    )
    return replace(launch, source=source)


def _figures(row: Row) -> dict[str, Any]:
    claim = claim_of(row) or Claim(verdict="undecided", reasons=(row.reason or "",))
    slow = row.backend.startswith(SLOW)
    return {
        "planted": "delay" if slow else "equal",
        "outcome": row.outcome,
        "verdict": claim.verdict,
        "reasons": list(claim.reasons),
        "ratio": [claim.value, claim.low, claim.high],
    }


def summary(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    equal = [cell for cell in cells if cell["planted"] == "equal"]
    slow = [cell for cell in cells if cell["planted"] == "delay"]
    published = [cell for cell in cells if cell["verdict"] not in ("disturbed", "undecided") and cell["ratio"][0]]
    held = [c for c in published if c["ratio"][1] <= _truth(c) <= c["ratio"][2]]
    return {
        "cells": len(cells),
        "equal": dict(Counter(cell["verdict"] for cell in equal)),
        "delay": dict(Counter(cell["verdict"] for cell in slow)),
        "equal_called_different": _share(equal, ("faster", "slower")),
        "delay_found": _share(slow, ("slower",)),
        "published": len(published),
        "coverage": len(held) / len(published) if published else None,
        "coverage_interval": clopper_pearson(len(held), len(published)) if published else None,
    }


def _truth(cell: dict[str, Any]) -> float:
    return 1 / (1 + DELAY) if cell["planted"] == "delay" else 1.0


def _share(cells: Sequence[dict[str, Any]], verdicts: tuple[str, ...]) -> float:
    return sum(cell["verdict"] in verdicts for cell in cells) / max(len(cells), 1)


if __name__ == "__main__":
    sys.exit(main())
