"""Do runs of the demo agree with each other? Runs ``scripts/demo`` several times and compares what each says.

Wanted: of every variant that two runs publish a ratio of, the intervals overlap, and all recommend the same variant.

    python benchmarks/demo_agreement.py -o results/cpu/demo_agreement.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.findings.claims import claim_of
from redline.measurement.environment import fingerprint, noise_check
from redline.study.journal import read_study

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("digits", "resnet18")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "demo_agreement",
        "command": " ".join(["python", "benchmarks/demo_agreement.py", *sys.argv[1:]]),
        "redline": redline.__version__,
        "environment": to_plain(fingerprint(noise=noise_check())),
        "runs": [],
    }
    for index in range(args.runs):
        started = perf_counter()
        subprocess.run([ROOT / "scripts" / "demo"], check=True, stdout=subprocess.DEVNULL)
        found = {model: said(ROOT / "demo" / model / "results.jsonl") for model in MODELS}
        document["runs"].append({"seconds": perf_counter() - started, **found})
        document["summary"] = summary(document["runs"])
        print(f"run {index + 1} of {args.runs}: {document['summary']}", flush=True)
        if args.out:
            write_whole(args.out, json.dumps(document, indent=1) + "\n")
    found = document["summary"]
    return 0 if not found["disjoint"] and all(len(names) == 1 for names in found["recommended"].values()) else 1


def said(results: Path) -> dict[str, Any]:
    study = read_study(results)
    claims = {row.variant: claim_of(row) for row in study.rows if not row.is_baseline and not row.control}
    return {
        "recommended": next((row.variant for row in study.rows if row.recommended), None),
        "sentences": list(study.conclusion.sentences) if study.conclusion else [],
        "claims": {name: [c.verdict, c.value, c.low, c.high] for name, c in claims.items() if c},
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    pairs, disjoint = 0, []
    for model in MODELS:
        for (i, one), (j, other) in combinations(enumerate(runs), 2):
            for name in one[model]["claims"].keys() & other[model]["claims"].keys():
                a, b = one[model]["claims"][name], other[model]["claims"][name]
                if "disturbed" in (a[0], b[0]) or a[1] is None or b[1] is None:
                    continue
                pairs += 1
                if a[3] < b[2] or b[3] < a[2]:
                    disjoint.append([model, name, i, j, a, b])
    return {
        "seconds": [round(run["seconds"]) for run in runs],
        "recommended": {model: sorted({str(run[model]["recommended"]) for run in runs}) for model in MODELS},
        "pairs": pairs,
        "disjoint": disjoint,
    }


if __name__ == "__main__":
    sys.exit(main())
