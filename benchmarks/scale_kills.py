"""Kill `scale detect` thirty times at random moments, resume it each time, and hold its files against a whole run's.

    python benchmarks/scale_kills.py -o results/cpu/scale_kills.json

Ends with 1 where a file of the results differs in one byte, a strip was made twice, or something half-made is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grid_kills import run_and_kill

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import redline
import scale
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint

SLIDE = Path(scale.__file__).parent / "assets" / "cmu_small_region.svs"
FORMATS = "json,geojson,parquet,csv,coco"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overlap", default="0.8", help="More of it makes a longer run.")
    parser.add_argument("--model", type=Path, help="An ONNX detector; by itself a tiny one that finds dark spots.")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(Path(folder) / "spots.onnx")
        words = ["scale", "detect", str(SLIDE), "--models", str(model), "--overlap", args.overlap]
        words += ["--strip-windows", "8", "--no-tissue", "--format", FORMATS, "--resume", "--out"]
        begun = time.time()
        run([*words, f"{folder}/whole"])
        run_s = time.time() - begun
        made = stamps(Path(folder) / "whole")
        strips, strips_s = len(made), max(made.values()) / 1e9 - begun
        moments, again = random.Random(args.seed), 0
        killed: list[dict[str, float]] = []
        out = Path(folder) / "killed"
        seen: dict[str, int] = {}
        while len(killed) < args.kills:
            # Merging and writing are killed too; the strips are where most can be lost.
            seconds = moments.uniform(0.1 * strips_s, 0.75 * strips_s + 0.25 * run_s)
            killed_now = run_and_kill([*words, str(out / str(again))], seconds)
            now = stamps(out / str(again))
            repeated = [name for name, stamp in seen.items() if now.get(name) != stamp]
            if repeated:
                raise RuntimeError(f"made twice: {repeated}")
            seen = now
            if killed_now:
                killed.append({"after_s": round(seconds, 2), "run": again, "strips": len(now)})
                print(f"kill {len(killed)} after {seconds:.2f} s: {len(now)} of {strips} strips are there", flush=True)
            if not killed_now or len(now) == strips:
                # A run whose strips are all there is begun anew: most kills are to fall where there is work to lose.
                again, seen = again + 1, {}
        for number in range(again + 1):
            run([*words, str(out / str(number))])
        expected = digests(Path(folder) / "whole")
        found = [digests(out / str(number)) for number in range(again + 1)]
        left = [path.name for path in out.rglob("*.partial*")]
    document = {
        "benchmark": "scale_kills",
        "command": "python benchmarks/scale_kills.py",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint()),
        "strips": strips,
        "kills": killed,
        "uninterrupted_s": run_s,
        "uninterrupted_strips_s": strips_s,
        "seconds": time.monotonic() - started,
        "runs": again + 1,
        "files": expected,
        "equal": [one == expected for one in found],
        "half_made": left,
    }
    print(json.dumps({key: document[key] for key in ("runs", "equal", "half_made", "seconds")}))
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0 if all(document["equal"]) and not left else 1


def make_model(path: Path) -> Path:
    from tests.scale.detector_models import spot_model

    return spot_model(path, size_px=128)


def run(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *words, "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"it ended with exit code {done.returncode}: {done.stderr.strip()}")


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / SLIDE.stem / "shards").glob("0*.npz")}


def digests(out: Path) -> dict[str, str]:
    """Of the results; the times of a run and where it lies are its own."""
    kept = [*(out / SLIDE.stem).glob("detections.*"), *(out / SLIDE.stem / "shards").glob("*.npz")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(kept)}


if __name__ == "__main__":
    sys.exit(main())
