"""Does `scale detect` keep a GPU busy: windows a second from an open slide to written files, against the bare engine.

For each model: engines of FP32 (without TF32) and FP16 at batch 32 as `scale convert` makes them; how near their
detections are to ONNX Runtime's in FP32; then the whole pipeline over a slide that is made of the real region and its
mirror images, each run beside the bare engine of the same session on batches that are ready, call by call and as a
stream. What was measured is written after each part; a part that fails is an entry that says why. With `--sahi-side`
SAHI cuts a picture of that many pixels a side, has the windows answered by the same session, and merges, where it is
installed beside Redline. `--save` keeps what each runtime found, to be held against PyTorch on a machine that has it:

    python benchmarks/gpu_pipeline.py --onnx yolov8n.onnx -o results/gpu/scale_pipeline.json
    python benchmarks/gpu_agreement.py saved/yolo_n.npz --model yolo_n -o results/gpu/scale_agreement.json

Ends with 1 where a part fails, or the engine waits 20 % of the time or more by the median over the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gpu_agreement
import numpy as np

import redline
from redline.core.files import sha256_of, write_whole
from redline.core.plain import to_plain
from redline.core.session import SupportsDeviceTiming
from redline.measurement.environment import fingerprint, installed, noise_check

SAHI = Path(__file__).resolve().parent / "peers" / "with_sahi_slices.py"
WANTED_WAITED = 0.2
SAMPLES_PER_S = 10
BOXES_PER_WINDOW = 50
PACKAGES = ("tensorrt", "onnxruntime", "numpy", "opencv-python-headless", "tifffile", "imagecodecs", "numba", "pyarrow")
HEAD = "| model | run | windows | windows/s | waited | GPU computed | NVML | bare calls/s | bare stream/s | of bare |"


class Report:
    """The result, written whole after each part."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.path: Path = args.out
        self.failed = False
        settings = (
            "side",
            "batch",
            "overlap",
            "window",
            "runs",
            "cores",
            "backend",
            "windows",
            "confidence",
            "readers",
            "decoders",
            "reading",
            "input",
            "keep_head",
            "precision",
            "sahi_side",
        )
        self.document: dict[str, Any] = {
            "benchmark": "gpu_pipeline",
            "command": "python benchmarks/gpu_pipeline.py",
            "redline": redline.__version__,
            "environment": to_plain(fingerprint(noise=noise_check())),
            "packages": installed(PACKAGES),
            "settings": {name: getattr(args, name) for name in settings},
            "models": {},
        }

    def part(self, place: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
        """Do it, write what came of it; None where it failed."""
        print(f"{name} ...", flush=True)
        start, found = time.perf_counter(), None
        try:
            found = place[name] = work()
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            place[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
        if self.path:
            write_whole(self.path, json.dumps(self.document, indent=1) + "\n")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, action="append", required=True, help="a detector; repeatable")
    parser.add_argument("--side", type=int, default=40_000, help="of the slide, in pixels")
    parser.add_argument("--window", type=int, default=640)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--classes", type=int, default=0, help="of models whose files name none")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--windows", type=int, default=64, help="on which runtimes are compared; 0 leaves that out")
    parser.add_argument("--confidence", type=float, default=0.25, help="where runtimes are not compared")
    parser.add_argument("--cores", type=int, default=0, help="use so many; 0 is all")
    parser.add_argument("--readers", type=int, default=0)
    parser.add_argument("--decoders", type=int, default=0)
    parser.add_argument("--reading", choices=("auto", "threads", "processes"), default="auto")
    parser.add_argument(
        "--backend", choices=("tensorrt", "onnxruntime"), default="tensorrt", help="onnxruntime: a trial"
    )
    parser.add_argument("--input", choices=("uint8", "float"), default="uint8", help="what engines take")
    parser.add_argument("--keep-head", action="store_true", help="engines do not name the best class themselves")
    parser.add_argument("--precision", choices=("fp32", "fp16"), action="append", help="of engines; both by default")
    parser.add_argument("--sahi-side", type=int, default=0, help="of SAHI's picture, in pixels; 0 leaves it out")
    parser.add_argument("--save", type=Path, help="folder for what each runtime found")
    parser.add_argument("--timing-cache", default="", help="a file that spares later builds their timing")
    parser.add_argument("--work", type=Path, help="folder that keeps the slide and the engines")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    args.precision = args.precision or ["fp32", "fp16"]
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    report = Report(args)
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        slide = work / f"slide_{args.side}.tif"
        if report.part(report.document, "slide", lambda: make_slide(slide, args.side)) is None:
            return 1
        for path in args.onnx:
            place = report.document["models"].setdefault(path.stem, {})
            measure(path, place, slide, work, args, report)
    report.part(report.document, "conclusion", lambda: conclude(report.document))
    print(table(report.document))
    if args.out:
        write_whole(args.out.with_suffix(".md"), table(report.document))
    good = not report.failed and report.document["conclusion"]["passed"]
    return 0 if good else 1


def measure(
    path: Path, place: dict[str, Any], slide: Path, work: Path, args: argparse.Namespace, report: Report
) -> None:
    """All parts of one model."""
    files: dict[str, Path] = {}
    for name in args.precision:

        def build(name: str = name) -> Any:
            found, files[name] = make_engine(path, work / path.stem / name, name, args)
            return found

        report.part(place, f"build {name}", build)
    if args.windows:
        report.part(place, "agreement", lambda: agree(path, files, slide, args))
    confidence = place.get("agreement", {}).get("confidence", args.confidence)
    if "fp16" not in files:
        return
    for number in range(args.runs):
        report.part(place, f"run {number + 1}", lambda: run(files["fp16"], slide, confidence, args))
    if args.sahi_side:
        report.part(place, "sahi", lambda: sahi(files["fp16"], slide, confidence, args))


def make_slide(path: Path, side: int) -> dict[str, Any]:
    from tests.scale.slides_tools import make_pyramid

    if not path.is_file():
        partial = make_pyramid(path.with_suffix(".partial.tif"), side, side)
        partial.replace(path)
    return {"side_px": side, "bytes": path.stat().st_size}


def make_engine(source: Path, folder: Path, name: str, args: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """What `scale convert` makes of a copy of the model; in a trial the model that it would build from."""
    from scale.models.conversion import ConvertOptions
    from scale.models.convert import convert

    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "m.onnx"
    if not copy.is_file() or sha256_of(copy) != sha256_of(source):
        shutil.copy2(source, copy)
    if args.backend == "onnxruntime":
        return {"engine_has": "fp32, a trial"}, copy
    refused = []
    for taken in ("uint8", "float")[args.input == "float" :]:
        options = ConvertOptions(
            half=name == "fp16",
            batch=args.batch,
            input_type=taken,
            keep_head=args.keep_head,
            timing_cache=args.timing_cache,
        )
        (row,) = convert(models=[copy], options=options).conversions
        if row.engine is not None:
            told = {**row.to_json(), "input": taken, "refused": refused}
            del told["model"], told["engine"]
            return told, row.engine
        refused.append(f"{taken}: {row.reason}")
    raise RuntimeError("; ".join(refused))


def spec_of(path: Path, confidence: float, args: argparse.Namespace) -> Any:
    from scale.models.spec import ModelSpec

    names = {number: f"class {number}" for number in range(args.classes)}
    return ModelSpec(
        name="m", path=path, window_px=args.window, batch=args.batch, confidence=confidence, class_names=names
    )


def opened(path: Path, confidence: float, args: argparse.Namespace, *, cpu: bool = False) -> Any:
    from scale.models.opening import open_model

    on_cpu = cpu or args.backend == "onnxruntime"
    spec = spec_of(path, confidence, args)
    return open_model(spec, device="cpu" if on_cpu else "auto", fallback=on_cpu)


def some_windows(slide: Path, args: argparse.Namespace) -> list[Any]:
    from scale.slides.opening import open_slide

    rng = np.random.default_rng(0)
    with open_slide(slide) as source:
        places = rng.integers(0, max(1, args.side - args.window), (args.windows or args.batch, 2)).tolist()
        return [source.read(x, y, args.window, args.window) for x, y in places]


def raw_scores(model: Any, images: list[Any]) -> Any:
    """The best score at each place of each image."""
    prepared = model.detector.prepare(images[:8])
    (values,) = (array for array in model.detector.run(prepared).values() if array.ndim == 3)
    return values[:, 4:].max(axis=1) if values.shape[1] < values.shape[2] else values[:, :, 4]


def agree(source: Path, files: dict[str, Path], slide: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Detections of the engines against ONNX Runtime's on the CPU, at a confidence with some 50 boxes a window."""
    images = some_windows(slide, args)
    first = opened(source, 0.25, args, cpu=True)
    try:
        scores = raw_scores(first, images)
    finally:
        first.close()
    confidence = float(np.quantile(scores, max(0.0, 1 - BOXES_PER_WINDOW / scores.shape[1])))
    confidence = min(max(confidence, 1e-7), 0.9)
    found: dict[str, Any] = {"windows": len(images), "confidence": confidence}
    answers, ways = {}, {"onnxruntime": source, **files}
    for name, path in ways.items():
        model = opened(path, confidence, args, cpu=name == "onnxruntime")
        try:
            answers[name] = model(images)
        finally:
            model.close()
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
        gpu_agreement.save(args.save / f"{source.stem}.npz", images, confidence, answers)
    for one, other in (("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("fp32", "fp16")):
        if one in answers and other in answers:
            found[f"{other} against {one}"] = gpu_agreement.differences(answers[one], answers[other])
    if "fp32" in answers and "fp16" in answers:
        found["fp16 with fp32 as truth"] = gpu_agreement.mean_precision(answers["fp32"], answers["fp16"])
    return found


def run(path: Path, slide: Path, confidence: float, args: argparse.Namespace) -> dict[str, Any]:
    """The bare engine, then the pipeline, then the bare engine again; each with models of its own opening."""
    before = bare(path, slide, confidence, args)
    whole = pipeline(path, slide, confidence, args)
    after = bare(path, slide, confidence, args)
    best = {key: max(before[key] or 0, after[key] or 0) or None for key in ("calls_per_s", "stream_per_s")}
    device_s = before["device_s_per_batch"]
    span_s = sum(whole["timing"]["models"][0][key] for key in ("infer_s", "waited_s"))
    batches = -(-whole["windows"] // before["batch"])
    return {
        **whole,
        "bare": {"before": before, "after": after},
        "windows_per_s_until_merging": whole["windows"] / span_s,
        "of_bare": whole["windows_per_s"] / max(value for value in best.values() if value),
        "gpu_computed_share": None if device_s is None else device_s * batches / span_s,
    }


def sahi(path: Path, slide: Path, confidence: float, args: argparse.Namespace) -> dict[str, Any]:
    """SAHI over the upper left corner of the slide, by the same engine, one slice a call and a full batch a call."""
    from scale.slides.opening import open_slide

    side = min(args.sahi_side, args.side)
    found: dict[str, Any] = {"side_px": side}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.npy"
        with open_slide(slide) as source:
            np.save(picture, source.read(0, 0, side, side))
        for batch in (1, args.batch):
            words = [sys.executable, str(SAHI), str(picture), str(path), "--by", "scale", "--batch", str(batch)]
            words += ["--window", str(args.window), "--overlap", str(args.overlap), "--confidence", str(confidence)]
            words += ["--classes", str(args.classes)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr.strip()[-400:])
            one = json.loads(done.stdout.strip().splitlines()[-1])
            found[f"batch {batch}"] = {**one, "windows_per_s": one["windows"] / one["seconds"]}
    return found


def bare(path: Path, slide: Path, confidence: float, args: argparse.Namespace) -> dict[str, Any]:
    """Windows a second of the session that the pipeline uses, host to host, on batches of real windows."""
    from scale.pipeline.models import runner_of
    from scale.pipeline.runners import Overlapping

    model = opened(path, confidence, args)
    try:
        runner = runner_of(model)
        size = runner.shape.batch
        images = [runner.fit(image) for image in some_windows(slide, args)]
        picked = [[images[(start + n) % len(images)] for n in range(size)] for start in range(0, 4 * size, size)]
        ready = [runner.seal(windows).inputs for windows in picked]
        calls = 3 if args.backend == "onnxruntime" else 60
        for inputs in ready:
            runner.infer(inputs)
        start = time.perf_counter()
        for number in range(calls):
            runner.infer(ready[number % len(ready)])
        found = {"batch": size, "calls_per_s": calls * size / (time.perf_counter() - start), "stream_per_s": None}
        if isinstance(runner, Overlapping):
            list(runner.stream(ready))
            start = time.perf_counter()
            for _ in runner.stream(ready[number % len(ready)] for number in range(2 * calls)):
                pass
            found["stream_per_s"] = 2 * calls * size / (time.perf_counter() - start)
        session = model.detector.session
        timed = isinstance(session, SupportsDeviceTiming)
        found["device_s_per_batch"] = median(session.device_times(ready[0].inputs, 20)) if timed else None
        found["input"] = str(next(iter(ready[0].inputs.values())).dtype)
        return found
    finally:
        model.close()


def pipeline(path: Path, slide: Path, confidence: float, args: argparse.Namespace) -> dict[str, Any]:
    """From the open slide to written files."""
    from scale.pipeline.detect import detect
    from scale.pipeline.options import DetectOptions
    from scale.pipeline.plan import PlanOptions
    from scale.pipeline.run_options import RunOptions

    run_options = RunOptions(readers=args.readers, decoders=args.decoders, reading=args.reading)
    options = DetectOptions(
        plan=PlanOptions(overlap=args.overlap),
        tissue=False,
        formats=("parquet",) if find_spec("pyarrow") else ("csv",),
        run=run_options,
    )
    on_cpu = args.backend == "onnxruntime"
    device = "cpu" if on_cpu else "auto"
    with tempfile.TemporaryDirectory() as out, busy_samples(not on_cpu) as samples:
        spec = spec_of(path, confidence, args)
        opened_at = time.monotonic()
        report = detect([slide], [spec], out, options=options, device=device, fallback=on_cpu).slides[0]
        ended_at = time.monotonic()
    if report.timing is None or not report.good:
        raise RuntimeError(report.error or f"{len(report.failures)} windows are missing: {report.failures[:1]}")
    timing = report.timing
    within = [busy for at, busy in samples if at >= ended_at - timing.wall_s]
    return {
        "windows": report.windows,
        "windows_per_s": report.windows / timing.wall_s,
        "waited_share": timing.waited_share,
        "detections": report.detections,
        "opening_s": ended_at - opened_at - timing.wall_s,
        "threads": {"readers": run_options.reader_threads, "decoders": run_options.decoder_threads},
        "nvml_utilization_percent": {"mean": float(np.mean(within)) if within else None, "samples": within},
        "timing": timing.to_json(),
    }


@contextmanager
def busy_samples(wanted: bool) -> Iterator[list[tuple[float, int]]]:
    """What NVML says of the GPU, ten times a second; nothing where it cannot be asked."""
    samples: list[tuple[float, int]] = []
    stop = threading.Event()

    def sample() -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(first))
            while not stop.wait(1 / SAMPLES_PER_S):
                samples.append((time.monotonic(), int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)))
        except Exception as error:
            print(f"no NVML: {error}", flush=True)

    thread = threading.Thread(target=sample, daemon=True)
    if wanted:
        thread.start()
    try:
        yield samples
    finally:
        stop.set()
        if wanted:
            thread.join()


def runs_of(model: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for name, found in model.items() if name.startswith("run ") and "error" not in found]


def conclude(document: dict[str, Any]) -> dict[str, Any]:
    """Medians over the runs."""
    found: dict[str, Any] = {}
    for name, model in document["models"].items():
        runs = runs_of(model)
        if runs:
            keys = ("windows_per_s", "windows_per_s_until_merging", "waited_share", "of_bare", "gpu_computed_share")
            known = {key: [run[key] for run in runs if run[key] is not None] for key in keys}
            found[name] = {key: median(values) if values else None for key, values in known.items()}
    passed = bool(found) and all(one["waited_share"] < WANTED_WAITED for one in found.values())
    return {"models": found, "passed": passed}


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def table(document: dict[str, Any]) -> str:
    lines = ["# Slides on a GPU", "", HEAD, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for name, model in document["models"].items():
        for number, one in enumerate(runs_of(model), start=1):
            bares = list(one["bare"].values())
            calls, stream = (max(side[key] or 0 for side in bares) for key in ("calls_per_s", "stream_per_s"))
            nvml = one["nvml_utilization_percent"]["mean"]
            lines.append(
                f"| {name} | {number} | {one['windows']} | {one['windows_per_s']:.0f} | {share(one['waited_share'])} "
                f"| {share(one['gpu_computed_share'])} | {'-' if nvml is None else f'{nvml:.0f} %'} "
                f"| {calls:.0f} | {f'{stream:.0f}' if stream else '-'} | {share(one['of_bare'])} |"
            )
    lines += ["", "Seconds by stage, added up over the threads:", ""]
    for name, model in document["models"].items():
        for number, one in enumerate(runs_of(model), start=1):
            stages = {**one["timing"]["stages_s"], "infer": one["timing"]["models"][0]["infer_s"]}
            told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
            lines.append(f"- {name}, run {number}: wall {one['timing']['wall_s']:.2f}; {told}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
