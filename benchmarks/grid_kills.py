"""Kill a grid of 60 cells fifty times at random moments, resume it each time, and count its cells at the end.

python benchmarks/grid_kills.py -o results/cpu/grid_kills.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint
from redline.study.journal import read_records
from redline.study.records import CellEnded, WindowMeasured

CELLS, REPEATS, ROUNDS = 60, 2, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    killed_after_s, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = redline.export("digits", Path(folder) / "digits.onnx").model.path
        out = Path(folder) / "run.jsonl"
        words = [
            "redline",
            "bench",
            str(model),
            "-o",
            str(out),
            "--backend",
            "onnxruntime",
            "--baseline",
            "onnxruntime-fp32",
        ]
        for precision in ("fp32", "fp16", "int8", "int8-dynamic"):
            words += ["--precision", precision]
        words += ["--backend", "openvino", "--precision", "default"]  # five ways to run it, and one for each refusal
        words += ["--batch", "1,2,4,8,16,32", "--rounds", str(ROUNDS), "--repeats", str(REPEATS)]
        words += ["--duration", "0.01", "--warmup", "0.05", "--threads", "1", "--resume"]
        done = False
        while len(killed_after_s) < args.kills and not done:
            seconds = moments.uniform(0.5, 9.0)
            done = not run_and_kill(words, seconds)
            if not done:
                killed_after_s.append(seconds)
                print(f"kill {len(killed_after_s)} after {seconds:.1f} s: {count(out)}", flush=True)
        finished = subprocess.run([sys.executable, "-m", *words, "--json"], capture_output=True, check=False)
        counted = count(out)
    document = {
        "benchmark": "grid_kills",
        "command": "python benchmarks/grid_kills.py",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint()),
        "killed_after_s": killed_after_s,
        "exit_code": finished.returncode,
        "seconds": time.monotonic() - started,
        **counted,
    }
    print(json.dumps({key: document[key] for key in ("exit_code", "seconds", *counted)}))
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0 if counted["cells"] == CELLS and not counted["cells_twice"] and not counted["windows_twice"] else 1


def run_and_kill(words: list[str], seconds: float) -> bool:
    """Start the module ``words[0]``, kill it after so many seconds; False where it finished before.

    Raises:
        RuntimeError: it ended with an error.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", *words, "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    if process.returncode:
        raise RuntimeError(f"it ended with exit code {process.returncode}")
    return False


def count(out: Path) -> dict[str, Any]:
    records = read_records(out) if out.is_file() and out.stat().st_size else []
    cells = Counter(record.cell for record in records if isinstance(record, CellEnded))
    windows = Counter((r.cell, r.phase, r.process, r.round) for r in records if isinstance(r, WindowMeasured))
    return {
        "cells": len(cells),
        "cells_twice": sum(number > 1 for number in cells.values()),
        "windows": len(windows),
        "windows_twice": sum(number > 1 for number in windows.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
