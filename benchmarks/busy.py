"""Does a busy machine make Redline say something untrue? Tunes one network on a quiet machine, then beside a neighbour.

The neighbour computes in slices, together 20 % of every core's time. Quiet tunes give the truth of every variant: the
hull of their intervals. Wanted: of the tunes beside the neighbour, no headline (faster, slower or the same) whose
value lies outside of it.

    python benchmarks/busy.py -o results/cpu/busy.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import redline
from redline.commands.tune import TUNE, tune
from redline.core.files import write_whole
from redline.core.host import available_cores
from redline.core.plain import to_plain
from redline.findings.claims import claim_of
from redline.measurement.environment import fingerprint, noise_check

SHARE, SLICE_S = 0.2, 0.05
VARIANTS = ("onnxruntime-fp32", "onnxruntime-int8-static", "openvino-fp32")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quiet", type=int, default=3)
    parser.add_argument("--busy", type=int, default=10)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "busy",
        "command": " ".join(["python", "benchmarks/busy.py", *sys.argv[1:]]),
        "model": args.model,
        "threads": args.threads,
        "variants": list(VARIANTS),
        "neighbour": f"{SHARE:.0%} of each core, in slices of about {1000 * SLICE_S:.0f} ms",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint(noise=noise_check())),
        "quiet": [],
        "busy": [],
    }
    for kind, count in (("quiet", args.quiet), ("busy", args.busy)):
        for index in range(count):
            with neighbour(kind == "busy"):
                document[kind].append(one_tune(args.model, args.threads, seed=index))
            document["summary"] = summary(document["quiet"], document["busy"])
            print(f"{kind} {index + 1} of {count}: {document[kind][-1]['headlines']}", flush=True)
            if args.out:
                write_whole(args.out, json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["summary"], indent=1))
    return 0 if not document["summary"]["outside"] else 1


def one_tune(model: str, threads: int, *, seed: int) -> dict[str, Any]:
    """What a tune prints of each variant's speed."""
    started = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = replace(TUNE, threads=threads, variants=VARIANTS, seed=seed)
        study = tune(model, Path(folder) / "run", config=config).study
    claims = {row.variant: claim_of(row) for row in study.rows if not row.is_baseline and not row.control}
    return {
        "seconds": perf_counter() - started,
        "steal_and_waits": [list(claim.reasons) for claim in claims.values() if claim],
        "headlines": {
            name: [claim.verdict, claim.value, claim.low, claim.high] for name, claim in claims.items() if claim
        },
        "recommended": next((row.variant for row in study.rows if row.recommended), None),
    }


def summary(quiet: list[dict[str, Any]], busy: list[dict[str, Any]]) -> dict[str, Any]:
    """Against the hull of the quiet tunes' intervals."""
    truth = {}
    for name in VARIANTS:
        said = [h for run in quiet if (h := run["headlines"].get(name)) and h[0] not in ("disturbed", "undecided")]
        if said:
            truth[name] = [min(h[2] for h in said), max(h[3] for h in said)]
    heard = [
        (index, name, headline)
        for index, run in enumerate(busy)
        for name, headline in run["headlines"].items()
        if name in truth and headline[0] not in ("disturbed", "undecided")
    ]
    return {
        "truth": truth,
        "headlines": len(heard),
        "withheld": sum(len(run["headlines"]) for run in busy) - len(heard),
        "outside": [[i, n, h] for i, n, h in heard if not truth[n][0] <= h[1] <= truth[n][1]],
        "disjoint": [[i, n, h] for i, n, h in heard if h[3] < truth[n][0] or h[2] > truth[n][1]],
    }


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """One process a core that computes a fifth of the time."""
    processes = [multiprocessing.Process(target=_take_slices, args=(n,), daemon=True) for n in range(available_cores())]
    if not wanted:
        processes = []
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _take_slices(seed: int) -> None:
    order = random.Random(seed)
    while True:
        seconds = order.uniform(0.5, 1.5) * SLICE_S
        until = perf_counter() + seconds
        while perf_counter() < until:
            pass
        time.sleep(seconds * (1 - SHARE) / SHARE)


if __name__ == "__main__":
    sys.exit(main())
