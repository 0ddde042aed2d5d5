"""What merging the boxes of overlapping windows loses, leaves and costs: every method, beside SAHI and plain NMS.

Part one, on simulated slides with known objects: the share of objects that is left (recall), and boxes beyond the first
of an object (leftovers). Part two: wall and CPU seconds and peak memory, each run in a process of its own, in turns.

    python benchmarks/merge.py --sahi .peers/sahi/bin/python -o results/cpu/merge.json
    python benchmarks/merge.py --scale 0.02 --boxes 20000 --repeats 1        # to try it

Ends with 1 where drop-cut loses or leaves more than wanted, or takes 2 s or more for a million boxes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from merge_contenders import CONTENDERS
from merge_simulation import CELLS, GLANDS, JITTER_PX, VISIBLE, WINDOW_PX, Scene, judge, simulate

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import PACKAGES, fingerprint, installed, noise_check
from scale.merging import MergeSettings, Method, merge

HERE = Path(__file__).resolve().parent
SAHI = HERE / "peers" / "with_sahi_merge.py"
#: Objects, their number in a whole run, and the overlap.
SLIDES = (("cells", CELLS, 166_000, 0.2), ("cells", CELLS, 10_400, 0.8), ("glands", GLANDS, 20_000, 0.2))
OVERLAPS = (0.2, 0.8)
PROBABILITIES = (1.0, 0.85)
#: Of drop-cut on cells: the least recall, and the most leftovers among that many objects.
WANTED = {
    (0.2, 1.0): (0.99995, 20 / 166_000),
    (0.8, 1.0): (0.99995, 39 / 10_400),
    (0.2, 0.85): (0.8861, 16 / 166_000),
    (0.8, 0.85): (0.9997, 33 / 10_400),
}
LIMIT_S = 2.0
MILLION = 1_000_000
OURS: tuple[tuple[str, Method, MergeSettings], ...] = (
    ("drop-cut", "drop-cut", MergeSettings()),
    ("drop-cut, cut boxes dropped", "drop-cut", MergeSettings(cut_boxes="drop")),
    ("owner", "owner", MergeSettings()),
    ("nms", "nms", MergeSettings()),
    ("nmm", "nmm", MergeSettings()),
    ("wbf", "wbf", MergeSettings()),
    ("union", "union", MergeSettings()),
    ("legacy (plain NMS, IoU 0.4)", "legacy", MergeSettings(iou=0.4)),
)


def main() -> int:
    args = arguments()
    environment = to_plain(fingerprint(noise=noise_check()))
    with tempfile.TemporaryDirectory() as folder:
        quality = list(simulated(args, Path(folder))) if "quality" in args.parts else []
        speed = list(timed(args, Path(folder))) if "speed" in args.parts else []
    missed = [*missed_quality(quality), *missed_speed(speed)]
    document = {
        "benchmark": "merge",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/merge.py" + (f" --scale {args.scale}" if args.scale != 1 else ""),
        "simulation": {
            "cells": asdict(CELLS),
            "glands": asdict(GLANDS),
            "window_px": WINDOW_PX,
            "visible": VISIBLE,
            "jitter_px": JITTER_PX,
            "seeds": list(range(args.seeds)),
        },
        "settings": {name: {"method": method, **asdict(settings)} for name, method, settings in OURS},
        "quality": quality,
        "speed": speed,
        "limit_s": LIMIT_S,
        "missed": missed,
        "redline": redline.__version__,
        "versions": installed((*PACKAGES, "numba", "shapely")),
        "environment": environment,
    }
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    for line in missed:
        print(f"MISSED: {line}")
    return 1 if missed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("quality", "speed"), default=["quality", "speed"])
    parser.add_argument("--sahi", type=Path, help="an interpreter that has sahi; without it SAHI's rows are left out")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the objects of a whole run")
    parser.add_argument("--seeds", type=int, default=1, help="how many slides of each kind")
    parser.add_argument("--boxes", type=int, nargs="+", default=[100_000, MILLION])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one run of a contender")
    parser.add_argument("-o", "--out", type=Path)
    return parser.parse_args()


def simulated(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each slide and method."""
    for name, kind, count, overlap in SLIDES:
        side = round(math.sqrt(count * args.scale / kind.density))
        for probability, seed in product(PROBABILITIES, range(args.seeds)):
            scene = simulate(side_px=side, overlap=overlap, probability=probability, seed=seed, kind=kind)
            place = {"kind": name, "overlap": overlap, "probability": probability, "seed": seed}
            counts = {"objects": len(scene.objects), "found": len(scene.found)}
            print(f"{name}, overlap {overlap}, p {probability}: {counts['objects']} objects, {counts['found']} boxes")
            for method, boxes, scores in merged(args, scene, folder):
                outcome = judge(scene, boxes, scores)
                told = f"recall {outcome.recall:9.4%}, with half its area {outcome.recall_half:9.4%}"
                print(f"  {method:40} {told}, leftovers {outcome.leftovers:6}", flush=True)
                yield {**place, **counts, "method": method, **asdict(outcome)}


def merged(args: argparse.Namespace, scene: Scene, folder: Path) -> Iterator[tuple[str, Any, Any]]:
    for name, method, settings in OURS:
        left = merge(scene.found, method=method, settings=settings, grid=scene.grid).detections
        yield name, left.boxes, left.scores
    whole = scene.found.take(scene.found.cuts == 0)
    left = merge(whole, method="nms", settings=MergeSettings(iou=0.55)).detections
    yield "cut boxes dropped, nms 0.55", left.boxes, left.scores
    if args.sahi:
        saved = save(folder / "quality.npz", scene)
        for name, options in (("SAHI NMS, IoU 0.4", ("nms", "IOU", "0.4")), SAHI_DEFAULT):
            result = folder / "sahi.npz"
            command = [args.sahi, SAHI, saved, "--post-process", *options, "--out", result]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=args.timeout)
            except subprocess.TimeoutExpired:
                print(f"  {name:40} not done in {args.timeout:.0f} s", flush=True)
                continue
            with np.load(result) as arrays:
                yield name, arrays["boxes"], arrays["scores"]


SAHI_DEFAULT = ("SAHI greedy NMM, IoS 0.5 (its default)", ("greedy_nmm", "IOS", "0.5"))


def save(path: Path, scene: Scene) -> Path:
    given = scene.found.detections
    np.savez(
        path,
        boxes=given.boxes,
        scores=given.scores,
        windows=scene.found.windows,
        cuts=scene.found.cuts,
        grid=np.array([scene.grid.region.width_px, scene.grid.window_px, scene.grid.overlap_px]),
    )
    return path


def timed(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each number of boxes and contender: every run of it, in turns that start with another one each time."""
    for wanted in args.boxes:
        for overlap in OVERLAPS:
            scene = scene_of(wanted, overlap)
            saved = save(folder / "speed.npz", scene)
            names = [*CONTENDERS, *(["SAHI NMS, IoU 0.4"] if args.sahi else [])]
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for turn in range(args.repeats):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    if not any("failed" in run for run in runs[name]):
                        runs[name].append(run_one(name, saved, args))
            for name in names:
                told = row_of(name, runs[name])
                print(f"{len(scene.found)} boxes, overlap {overlap}: {name:32} {said(told)}", flush=True)
                yield {"boxes": len(scene.found), "wanted_boxes": wanted, "overlap": overlap, **told}


def scene_of(boxes: int, overlap: float) -> Scene:
    """A slide on which about so many boxes are found."""
    trial = simulate(side_px=6 * WINDOW_PX, overlap=overlap, probability=1.0)
    side = 6 * WINDOW_PX * math.sqrt(boxes / len(trial.found))
    # A slide's border sees fewer windows, so the first guess is a little off.
    for _ in range(2):
        scene = simulate(side_px=round(side), overlap=overlap, probability=1.0)
        side *= math.sqrt(boxes / len(scene.found))
    return scene


def run_one(name: str, saved: Path, args: argparse.Namespace) -> dict[str, Any]:
    command: list[Any] = [sys.executable, HERE / "merge_contenders.py", saved, "--contender", name]
    if name not in CONTENDERS:
        command = [args.sahi, SAHI, saved, "--post-process", "nms", "IOU", "0.4", "--arrays"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=args.timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {args.timeout:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": (error.stderr.strip().splitlines() or ["no reason given"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def row_of(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    good = [run for run in runs if "failed" not in run]
    row: dict[str, Any] = {"contender": name, "runs": runs}
    if good:
        row |= {f"median_{key}": median(run[key] for run in good) for key in ("wall_s", "cpu_s", "peak_rss_bytes")}
        row |= {"kept": good[0]["kept"]}
    return row


def said(row: dict[str, Any]) -> str:
    if "kept" not in row:
        return f"failed: {row['runs'][0]['failed']}"
    return (
        f"{row['median_wall_s']:8.3f} s wall, {row['median_cpu_s']:8.3f} s CPU, "
        f"{row['median_peak_rss_bytes'] / 1e6:6.0f} MB, {row['kept']} kept"
    )


def missed_quality(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if (row["kind"], row["method"]) == ("cells", "drop-cut"):
            recall, share = WANTED[row["overlap"], row["probability"]]
            # A trial on few objects may have one or two by chance.
            most = max(share * row["objects"], 2)
            if row["recall"] < recall or row["leftovers"] > most:
                yield (
                    f"overlap {row['overlap']}, p {row['probability']}: recall {row['recall']:.4%} and "
                    f"{row['leftovers']} leftovers, wanted {recall:.4%} and at most {most:.0f}"
                )


def missed_speed(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["contender"] == "drop-cut, numba" and row["wanted_boxes"] >= MILLION:
            seconds = row.get("median_wall_s", math.inf)
            if seconds >= LIMIT_S:
                yield f"{row['boxes']} boxes, overlap {row['overlap']}: {seconds:.2f} s, wanted under {LIMIT_S:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
