"""`redline serve` under load for long: ten minutes at 80 % of the knee, with what its memory does and what it answers.

The knee (the highest open-loop rate that it keeps up with) is looked for first, for each kind of body. Then windows of
open loops at 80 % of it follow each other, the kinds of bodies in turns, while memory is read once a second and
`/metrics` and `/status` are asked as a monitor would.

    python benchmarks/serve_soak.py -o results/cpu/serve_soak.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import serve as bench

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.loadtesting.generators import open_generator
from redline.loadtesting.job import Job, Parcel
from redline.loadtesting.plan import schedule
from redline.measurement.environment import fingerprint, noise_check

SHARE = 0.8
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
PATHS = {"json": "/v2/models/m/infer", "binary": "/v2/models/m/infer", "jpeg": "/predict/m"}
CONNECTIONS = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", choices=["mlp", "resnet18"])
    parser.add_argument("--file", type=Path, help="its ONNX file, where there is no torch to make it")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--window", type=float, default=10.0, help="seconds of one kind of body")
    parser.add_argument("--runner", default="granian", choices=["granian", "waitress"])
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    environment = to_plain(fingerprint(noise=noise_check()))
    with tempfile.TemporaryDirectory() as scratch:
        found = soak(args, Path(scratch))
    document = {
        "benchmark": "serve_soak",
        "command": f"python benchmarks/serve_soak.py --model {args.model} --runner {args.runner}",
        "redline": redline.__version__,
        "environment": environment,
        **found,
    }
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    flat, clean = abs(found["rss_growth"]) <= 0.05, not found["errors"]
    print(
        f"{found['requests']} requests in {found['seconds']:.0f} s, {found['errors']} errors, RSS "
        f"{found['rss_first_bytes'] / 2**20:.1f} to {found['rss_last_bytes'] / 2**20:.1f} MiB "
        f"({found['rss_growth']:+.1%})"
    )
    return 0 if flat and clean else 1


def soak(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = args.file or bench.make_model(args.model, folder)
    port = bench.free_port()
    command = [sys.executable, "-m", "redline", "serve", f"m={model}", "--port", str(port), "--runner", args.runner]
    process = subprocess.Popen([*command, "--quiet"])
    generator = open_generator("open")
    try:
        wait_for(f"http://127.0.0.1:{port}/v2/health/ready")
        parcels = {}
        for kind, body in bench.make_bodies(args.model).items():
            parcels[kind] = str(folder / kind)
            Parcel(host="127.0.0.1", port=port, path=PATHS[kind], headers=body.headers, bodies=(body.content,)).save(
                folder / kind
            )
        knees = {kind: knee(generator, parcel) for kind, parcel in parcels.items()}
        print({kind: round(rate, 1) for kind, rate in knees.items()}, "requests/s at the knee", flush=True)
        watch = Watch(process.pid, port)
        windows = []
        end = time.monotonic() + 60 * args.minutes
        for kind in itertools.cycle(parcels):
            if time.monotonic() >= end:
                break
            windows.append({"kind": kind, **drive(generator, parcels[kind], SHARE * knees[kind], args.window)})
        rss = watch.stop()
    finally:
        generator.close()
        process.terminate()
        code = process.wait(60)
    # The first minute fills caches and pools of threads.
    settled = [one for one in rss if one[0] >= 60] or rss
    tenth = max(1, len(settled) // 10)
    first, last = (median(size for _, size in part) for part in (settled[:tenth], settled[-tenth:]))
    return {
        "runner": args.runner,
        "model": args.model,
        "knee_per_s": knees,
        "share": SHARE,
        "seconds": sum(window["seconds"] for window in windows),
        "requests": sum(window["requests"] for window in windows),
        "errors": sum(window["errors"] for window in windows) + watch.failed,
        "exit_code": code,
        "rss_first_bytes": first,
        "rss_last_bytes": last,
        "rss_growth": last / first - 1,
        "rss": rss,
        "windows": windows,
    }


def knee(generator: Any, parcel: str) -> float:
    """The highest rate of which 95 % was answered when its windows ended."""
    closed = generator.run(Job(parcel=parcel, users=8, lead_s=1.0, seconds=4.0))
    most = len(closed.response_s) / closed.seconds
    for share in SHARES:
        outcome = open_window(generator, parcel, share * most, 4.0)
        kept = len(outcome.response_s) / outcome.seconds >= 0.95 * share * most and not outcome.dropped
        if kept and set(outcome.statuses) == {"200"}:
            return share * most
    raise RuntimeError(f"it does not keep up with half of its {most:.0f} requests/s of a closed loop")


def drive(generator: Any, parcel: str, rate: float, seconds: float) -> dict[str, Any]:
    outcome = open_window(generator, parcel, rate, seconds)
    p50, p99 = np.percentile(outcome.response_s, (50, 99)) if outcome.response_s else (0.0, 0.0)
    return {
        "rate": rate,
        "seconds": outcome.seconds,
        "requests": len(outcome.response_s),
        "errors": outcome.offered - len(outcome.response_s),
        "statuses": dict(outcome.statuses),
        "p50_ms": 1e3 * float(p50),
        "p99_ms": 1e3 * float(p99),
    }


def open_window(generator: Any, parcel: str, rate: float, seconds: float) -> Any:
    due = schedule("poisson", rate=rate, seconds=seconds, seed=round(time.monotonic() * 1e3))
    return generator.run(Job(parcel=parcel, due=due, seconds=seconds, connections=CONNECTIONS, timeout_s=30.0))


class Watch:
    """Reads the server's memory once a second and asks what a monitor would."""

    def __init__(self, pid: int, port: int) -> None:
        self.failed = 0
        self._process, self._port = psutil.Process(pid), port
        self._rss: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[float, int]]:
        self._ended.set()
        self._thread.join()
        return self._rss

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(1.0):
            processes = [self._process, *self._process.children(recursive=True)]
            self._rss.append((round(time.monotonic() - began, 1), sum(one.memory_info().rss for one in processes)))
            if len(self._rss) % 10 == 0:
                for path in ("/metrics", "/status", "/v2/health/ready"):
                    try:
                        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as answer:
                            answer.read()
                    except OSError:
                        self.failed += 1


def wait_for(url: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not answer within 30 s")


if __name__ == "__main__":
    sys.exit(main())
