r"""Windows of a slide a second through the whole of `scale detect`, against the bare model and against SAHI.

The slide is the real region that is shipped and its mirror images. In each round the three take turns in a drawn order,
each in a process of its own on the same cores: the bare model, which is the same session called in a loop with batches
that are ready, one call at a time or as many as the pipeline makes, whichever is faster; `scale detect`, from the open
slide to written files; and SAHI with the same model file, windows and overlap on a picture that lies in memory, by its
own class for ONNX files, which is Ultralytics', and by the least class that can do it. `scale detect` runs once more
with `--cpu-precision bf16`, beside the bare model in BF16, where the processor has it. Then slides of growing size show
the memory that `scale detect` takes. With `--tissue-share 0.4` so much of the slide is tissue and the rest is glass, as
on slides of patients, and `scale detect` runs as it does by default, without the windows that show none (`detect
tissue`); time is compared for the slide then, as the windows are not the same.

    scripts/setup-peers sahi_ultralytics
    redline export yolo_n -o yolo_n.onnx --opset 17
    python benchmarks/pipeline.py --model yolo_n.onnx --confidence 0.010315 \
        --sahi .peers/sahi_ultralytics/bin/python -o results/cpu/pipeline.json

The model takes squares of --window pixels; with that confidence yolo_n, whose weights are random, finds as many boxes
in a window as there may be nuclei in sparse tissue, with 0.010294 three times as many. Ends with 1 where, by the median
over the rounds and in FP32, the pipeline has less than 90 % of the bare model's windows a second or less than twice
those of SAHI by its own class (with glass: takes more than half of its time), or where its peak memory on the largest
slide is more than 1.25 times that on the smallest.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import redline
from redline.core.files import sha256_of, write_whole
from redline.core.host import cpu_info
from redline.core.plain import to_plain
from redline.loadtesting.job import rss_bytes
from redline.measurement.environment import fingerprint, installed, noise_check
from scale.models.opening import open_model
from scale.pipeline.runners import calls_of
from scale.slides.opening import open_slide

WANTED_OF_BARE, WANTED_OF_SAHI, WANTED_GROWTH = 0.9, 2.0, 1.25
PACKAGES = ("onnxruntime", "openvino", "numpy", "opencv-python-headless", "tifffile", "imagecodecs", "numba", "pyarrow")
PEER = Path(__file__).resolve().parent / "peers" / "with_sahi_slices.py"
FORMATS = ("geojson", "parquet")
#: Its own class for ONNX files, and ours.
SAHI_BY = ("ultralytics", "onnxruntime")
SETTINGS = ("side", "tissue_share", "window", "overlap", "confidence", "classes", "rounds", "threads", "seed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sahi", help="The Python of an environment that has sahi; without it SAHI is left out.")
    parser.add_argument("--side", type=int, default=20_000, help="Of the slide, in pixels.")
    parser.add_argument("--tissue-share", type=float, default=1.0, help="How much of the slide is no glass.")
    parser.add_argument("--leave-out", action="append", default=[], metavar="CONTENDER", help="Repeatable.")
    parser.add_argument("--sides", default="5000,10000,20000,40000", help="Of the slides for memory.")
    parser.add_argument("--window", type=int, default=640)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--confidence", type=float, default=0.25, help="Decides how many boxes there are to merge.")
    parser.add_argument("--classes", type=int, default=80, help="How many classes the model has.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bare-windows", type=int, default=400)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-precision", default="fp32", choices=("fp32", "bf16"), help=argparse.SUPPRESS)
    parser.add_argument("--tissue", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=("bare", "detect"), help=argparse.SUPPRESS)
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(bare(args) if args.worker == "bare" else whole(args)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        noise = noise_check()
        rounds = compare(args, Path(folder))
        memory = grow(args, Path(folder))
    document = {
        "benchmark": "pipeline",
        "command": "python benchmarks/pipeline.py",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint(noise=noise)),
        "packages": installed(PACKAGES),
        "model": {"name": args.model.name, "sha256": sha256_of(args.model)},
        "settings": {name: getattr(args, name) for name in SETTINGS},
        "rounds": rounds,
        "memory": memory,
        "conclusion": conclude(rounds, memory),
    }
    print(json.dumps(document["conclusion"], indent=1))
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0 if document["conclusion"]["passed"] else 1


def compare(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Each contender once a round, in a drawn order."""
    slide = make_slide(folder, args.side, args.tissue_share)
    contenders = {worker: own(args, worker, slide) for worker in ("bare", "detect")}
    if {"avx512_bf16", "amx_bf16"} & set(cpu_info()[1]):
        contenders |= {f"{worker} bf16": own(args, worker, slide, precision="bf16") for worker in ("bare", "detect")}
    if args.sahi:
        picture = make_picture(slide, folder)
        contenders |= {f"sahi by {by}": sahi(args, picture, by) for by in SAHI_BY}
    if args.tissue_share < 1:
        contenders["detect tissue"] = [*own(args, "detect", slide), "--tissue"]
    contenders = {name: words for name, words in contenders.items() if name not in args.leave_out}
    order, rounds = random.Random(args.seed), []
    for number in range(args.rounds):
        names = list(contenders)
        order.shuffle(names)
        found: dict[str, Any] = {"order": names}
        for name in names:
            one = found[name] = asked(contenders[name])
            boxes = f", {one['detections']:,} detections" if "detections" in one else ""
            print(f"round {number + 1}, {name}: {rate(one):.2f} windows/s{boxes}", flush=True)
        rounds.append(found)
    return rounds


def grow(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The peak memory of `scale detect` on slides of growing size."""
    rows = []
    for side in [int(text) for text in args.sides.split(",") if text]:
        slide = make_slide(folder, side)
        found = asked(own(args, "detect", slide))
        rows.append({"side_px": side, **found})
        print(f"{side} x {side}: {found['peak_rss_bytes'] / 2**20:.0f} MiB, {rate(found):.2f} windows/s", flush=True)
        slide.unlink()
    return rows


def conclude(rounds: list[dict[str, Any]], memory: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of ratios within a round."""

    def ratio(one: str, other: str, speed: Callable[[dict[str, Any]], float] = rate) -> float | None:
        if not {one, other} <= set(rounds[0]):
            return None
        return median(speed(found[one]) / speed(found[other]) for found in rounds)

    of_bare, of_sahi = ratio("detect", "bare"), ratio("detect", f"sahi by {SAHI_BY[0]}")
    by_time = ratio("detect tissue", f"sahi by {SAHI_BY[0]}", slides_per_s)
    peaks = [row["peak_rss_bytes"] for row in memory]
    growth = peaks[-1] / peaks[0] if peaks else None
    least = [(of_bare, WANTED_OF_BARE), (of_sahi if by_time is None else by_time, WANTED_OF_SAHI)]
    passed = all(found is None or found >= wanted for found, wanted in least)
    passed = passed and (growth is None or growth <= WANTED_GROWTH)
    return {
        "of_bare": of_bare,
        "of_sahi": of_sahi,
        "of_least_sahi": ratio("detect", f"sahi by {SAHI_BY[1]}"),
        "bf16_of_bare_bf16": ratio("detect bf16", "bare bf16"),
        "bf16_of_fp32": ratio("detect bf16", "detect"),
        "bf16_of_sahi": ratio("detect bf16", f"sahi by {SAHI_BY[0]}"),
        "bf16_of_least_sahi": ratio("detect bf16", f"sahi by {SAHI_BY[1]}"),
        "tissue_of_sahi_by_time": by_time,
        "memory_growth": growth,
        "passed": passed,
    }


def rate(found: dict[str, Any]) -> float:
    return float(found["windows"] / found["seconds"])


def slides_per_s(found: dict[str, Any]) -> float:
    return 1 / float(found["seconds"])


def make_slide(folder: Path, side: int, tissue_share: float = 1.0) -> Path:
    from tests.scale.slides_tools import make_pyramid

    path = folder / f"slide_{side}.tif"
    return path if path.is_file() else make_pyramid(path, side, side, tissue_share=tissue_share)


def make_picture(slide: Path, folder: Path) -> Path:
    """The slide's pixels as a file that an environment without readers of slides can load."""
    with open_slide(slide) as opened:
        level, path = opened.levels[0], folder / "picture.npy"
        shape = (level.height_px, level.width_px, 3)
        picture = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        for y in range(0, level.height_px, 1024):
            height = min(1024, level.height_px - y)
            picture[y : y + height] = opened.read(0, y, level.width_px, height)
        picture.flush()
    return path


def own(args: argparse.Namespace, worker: str, slide: Path, precision: str = "fp32") -> list[str]:
    words = [sys.executable, __file__, "--worker", worker, "--slide", str(slide), "--model", str(args.model)]
    for name in ("window", "overlap", "confidence", "classes", "threads"):
        words += [f"--{name}", str(getattr(args, name))]
    return [*words, "--bare-windows", str(args.bare_windows), "--cpu-precision", precision]


def sahi(args: argparse.Namespace, picture: Path, by: str) -> list[str]:
    words = [args.sahi, str(PEER), str(picture), str(args.model), "--by", by, "--window", str(args.window)]
    words += ["--overlap", str(args.overlap), "--confidence", str(args.confidence)]
    return [*words, "--threads", str(args.threads)]


def asked(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[1:4]} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def spec_of(args: argparse.Namespace) -> Any:
    from scale.models.spec import ModelSpec

    classes = {number: f"class {number}" for number in range(args.classes)}
    return ModelSpec(name="m", path=args.model, window_px=args.window, confidence=args.confidence, class_names=classes)


def how_of(args: argparse.Namespace) -> dict[str, Any]:
    return {"device": "cpu", "threads": args.threads, "cpu_precision": args.cpu_precision}


def bare(args: argparse.Namespace) -> dict[str, Any]:
    """The model with batches of real windows that are ready: one call at a time on all cores, or as the pipeline calls.

    The faster of the two counts.
    """
    from scale.pipeline.models import open_runners, runner_of

    with ExitStack() as stack:
        model = open_model(spec_of(args), device="cpu", threads=args.threads, cpu_precision=args.cpu_precision)
        stack.callback(model.close)
        ways = {"one call on all cores": looped(runner_of(model), args)}
        (runner,) = stack.enter_context(open_runners([spec_of(args)], **how_of(args)))
        ways["as the pipeline calls it"] = looped(runner, args)
    best = max(ways.values(), key=rate)
    return {**best, "ways": ways, "peak_rss_bytes": rss_bytes()}


def looped(runner: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Windows and seconds of a runner that does nothing but answer."""
    batch, side = runner.shape.batch, args.window
    with open_slide(args.slide) as slide:
        windows = [runner.fit(slide.read(side * n, side, side, side)) for n in range(2 * batch)]
    ready = [runner.seal(windows[start : start + batch]).inputs for start in (0, batch)]

    def answer(inputs: Any) -> None:
        runner.infer(inputs)

    with ThreadPoolExecutor(calls_of(runner)) as pool:
        list(pool.map(answer, ready * calls_of(runner)))
        calls = max(1, args.bare_windows // batch)
        start = time.perf_counter()
        for answered in [pool.submit(answer, ready[number % 2]) for number in range(calls)]:
            answered.result()
        seconds = time.perf_counter() - start
    return {"windows": calls * batch, "seconds": seconds, "batch": batch, "calls_at_once": calls_of(runner)}


def whole(args: argparse.Namespace) -> dict[str, Any]:
    """From the open slide to written files; models are open, as they are for the bare model."""
    from scale.pipeline.detect import detect
    from scale.pipeline.options import DetectOptions
    from scale.pipeline.plan import PlanOptions

    options = DetectOptions(plan=PlanOptions(overlap=args.overlap), tissue=args.tissue, formats=FORMATS)
    with tempfile.TemporaryDirectory() as folder:
        report = detect([args.slide], [spec_of(args)], folder, options=options, **how_of(args)).slides[0]
    assert report.good, report.error
    assert report.timing is not None
    return {
        "windows": report.windows,
        "seconds": report.timing.wall_s,
        "detections": report.detections,
        "timing": to_plain(report.timing),
        "peak_rss_bytes": rss_bytes(),
    }


if __name__ == "__main__":
    sys.exit(main())
