r"""ResNet-18 at 224x224 on an NVIDIA GPU: TensorRT's engines against PyTorch in every form, in one interleaved run.

Builds the engines with ``redline build``, verifies all on held-out photographs, measures device time and end-to-end
latency in rounds that take turns, and holds each against the chip's own limit. TensorRT and PyTorch may live in two
Python environments: ``--tensorrt-python`` names the other one (it must find ``redline``).

    python benchmarks/gpu_resnet18.py --model resnet18.onnx --tensorrt-python PYTHON --commit $(git rev-parse HEAD) \
        -o results/gpu/resnet18.json
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import redline
from redline.core.artifact import Engine
from redline.core.errors import WorkerError
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.sources import load_samples
from redline.formats.onnx_file import read_onnx
from redline.measurement.environment import fingerprint
from redline.measurement.stats import Ratio, percentile, ratio_of_processes
from redline.measurement.worker import Source, Worker, call_in_fresh_process
from redline.opening.sessions import open_onnx
from redline.transforms.macs import count_macs
from redline.verification.compare import compare_outputs, outputs_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PHOTOS = ROOT / "src" / "redline" / "data" / "assets" / "photos"
EAGER16 = "torch-eager-fp16"
OPEN_TORCH = "redline.networks.eager:open_torch"
TORCH: Mapping[str, dict[str, Any]] = {
    "torch-eager-fp32": {"dtype": "fp32"},
    "torch-eager-tf32": {"dtype": "tf32"},
    EAGER16: {"dtype": "fp16"},
    "torch-fp16-channels-last": {"dtype": "fp16", "layout": "channels_last"},
    "torch-fp16-channels-last-graph": {"dtype": "fp16", "layout": "channels_last", "cuda_graph": True},
    "torch-compile-fp16": {"dtype": "fp16", "layout": "channels_last", "mode": "compile"},
    "torch-compile-fp16-graph": {"dtype": "fp16", "layout": "channels_last", "mode": "compile", "cuda_graph": True},
}


@dataclass(frozen=True)
class Entry:
    """One way to run the model."""

    name: str
    precision: str
    source: Source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="ONNX export of resnet18 (opset 17 for TensorRT 8.6)")
    parser.add_argument("--plans", type=Path, help="keep the engines here, and use those that are there")
    parser.add_argument("--tensorrt-python", default="")
    parser.add_argument("--onnxruntime-path", default="", help="folder of onnxruntime-gpu, before any other")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 32, 64])
    parser.add_argument("--processes", type=int, default=3, help="generations of fresh processes")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--skip", nargs="*", default=[], help="names of entries to leave out")
    parser.add_argument("--commit", required=True, help="of this checkout; the machine may have no git")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "gpu_resnet18",
        "commit": args.commit,
        "command": "python benchmarks/gpu_resnet18.py --model resnet18.onnx --tensorrt-python PYTHON",
        "redline": redline.__version__,
        "gpu": gpu_state(),
        "environment": to_plain(fingerprint()),
        "versions": versions(args.tensorrt_python),
        "rounds": args.rounds,
        "processes": args.processes,
        "matrix_rates": matrix_rates(),
        "macs": count_macs(read_onnx(args.model)).total,
        "rows": [],
    }

    def keep() -> None:
        add_shares(document["rows"], document["macs"], document["matrix_rates"])
        document["claims"] = claims(document["rows"])
        if args.out:
            write_whole(args.out, json.dumps(document, indent=1) + "\n")
            write_whole(args.out.with_suffix(".md"), markdown(document))

    samples, right = reference(args.model)
    document["verified_on"] = len(samples)
    with tempfile.TemporaryDirectory() as scratch:
        plans = args.plans or Path(scratch)
        document["build"] = build(args.model, plans, args.tensorrt_python)
        entries = [
            *all_entries(plans, args.tensorrt_python),
            *(onnxruntime_entries(args.model, plans, args.onnxruntime_path) if args.onnxruntime_path else []),
        ]
        chosen = [entry for entry in entries if entry.name not in args.skip]
        heard: dict[tuple[int, str], Heard] = {}
        for _ in range(args.processes):
            opened = Field(chosen)
            try:
                for batch in sorted(args.batches, reverse=True):
                    opened.measure(batch, samples, right, args.rounds, heard)
            finally:
                opened.close()
            document["rows"] = [row_of(one, heard.get((one.row["batch"], EAGER16))) for one in heard.values()]
            keep()
    print(markdown(document))
    return 0 if all(claim["holds"] for claim in document["claims"]) else 1


def mine(factory: str, arguments: dict[str, Any], interpreter: str = "") -> Source:
    path = f"{HERE}:{ROOT / 'src'}"
    return Source(factory=factory, arguments=arguments, environment={"PYTHONPATH": path}, interpreter=interpreter)


def matrix_rates() -> dict[str, float]:
    """Operations per second of one large matrix product in each type (two for each multiply-add)."""
    found = call_in_fresh_process(mine("redline.networks.ceilings:gpu_ceilings", {}), timeout_s=300)
    return {name: rate * 1e9 for name, rate in found["gflops"].items()}


def build(model: Path, plans: Path, interpreter: str) -> dict[str, Any]:
    """Every engine: by the builder's flags and calibrator, and INT8 from Q/DQ nodes too."""
    told = {}
    photos = plans / "calibration"
    photos.mkdir(parents=True, exist_ok=True)
    for path in PHOTOS.glob("calibration_*.jpg"):
        (photos / path.name).write_bytes(path.read_bytes())
    for folder, words in (
        ("", ["--precision", "fp32", "--precision", "tf32", "--precision", "fp16", "--precision", "int8"]),
        ("qdq", ["--precision", "int8", "--calibrator", "qdq"]),
    ):
        out = plans / folder
        command = [interpreter or sys.executable, "-m", "redline", "build", str(model), "-o", str(out)]
        command += [*words, "--data", str(photos), "--profile", "1,32,64"]
        command += ["--timing-cache", str(plans / "timing.cache"), "--no-measure", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(done.stdout, done.stderr[-2000:], flush=True)
        told[folder or "flags"] = json.loads((out / "build.json").read_text())
    return told


def all_entries(plans: Path, interpreter: str) -> list[Entry]:
    ref = {"name": "resnet18", "weights": None}
    found = [
        Entry(
            name, options["dtype"], mine("redline.networks.eager:open_torch", {"ref": ref, "device": "cuda", **options})
        )
        for name, options in TORCH.items()
    ]
    for sidecar in sorted(plans.glob("**/*.plan.engine.json")):
        engine = Engine.read(sidecar)
        name = f"tensorrt-{engine.path.stem.rpartition('_')[2]}" + ("-qdq" if sidecar.parent.name == "qdq" else "")
        arguments = {"path": str(engine.path)}
        found.append(Entry(name, engine.precision, mine("redline.backends:open_engine", arguments, interpreter)))
        if name in ("tensorrt-fp16", "tensorrt-int8"):
            found.append(
                Entry(f"{name}-bare", engine.precision, mine("gpu_sessions:open_bare", arguments, interpreter))
            )
    return found


def onnxruntime_entries(model: Path, plans: Path, path: str) -> list[Entry]:
    """ONNX Runtime's CUDA provider, which lives beside PyTorch's CUDA libraries."""
    found = []
    for precision in ("fp32", "tf32", "fp16"):
        arguments = {"model": str(model), "folder": str(plans / "onnxruntime" / precision), "precision": precision}
        source = mine("gpu_sessions:open_onnxruntime_cuda", arguments)
        environment = {"PYTHONPATH": f"{path}:{source.environment['PYTHONPATH']}"}
        found.append(Entry(f"onnxruntime-cuda-{precision}", precision, replace(source, environment=environment)))
    return found


def reference(model: Path) -> tuple[Samples, dict[str, Array]]:
    read = read_onnx(model)
    test = sorted(PHOTOS.glob("test_*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        for path in test:
            (Path(folder) / path.name).write_bytes(path.read_bytes())
        samples = load_samples(Path(folder), read.signature, read.usage.preprocess, limit=len(test))
    session = open_onnx(read, options={"graph_optimization": "disabled"})
    right = outputs_of(session, samples, 8)
    session.close()
    return samples, right


@dataclass
class Heard:
    """Of one entry at one batch size: what is known, and its seconds by process and round."""

    row: dict[str, Any]
    device: list[list[list[float]]] = field(default_factory=list)
    whole: list[list[list[float]]] = field(default_factory=list)


class Field:
    """Every entry in a process of its own, opened once, measured at one batch size after the other."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.failed: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}
        # Kept: a worker ends with the thread that started it.
        self._pool = ThreadPoolExecutor(len(entries))
        started = {name: self._pool.submit(Worker, entry.source) for name, entry in self.entries.items()}
        for name, worker in started.items():
            try:
                self.workers[name] = worker.result()
            except WorkerError as error:
                self.failed[name] = str(error)
        print(f"{len(self.workers)} of {len(entries)} entries are open; failed: {self.failed}", flush=True)

    def measure(
        self,
        batch: int,
        samples: Samples,
        right: dict[str, Array],
        rounds: int,
        heard: dict[tuple[int, str], Heard],
    ) -> None:
        for name, entry in self.entries.items():
            one = heard.setdefault((batch, name), Heard({"name": name, "precision": entry.precision, "batch": batch}))
            if name in self.failed:
                one.row["failed"] = self.failed[name]
        feeds = [samples.batch(start, batch) for start in range(0, 3 * batch, batch)]
        ready: dict[str, Heard] = {}
        for name, worker in self.workers.items():
            one = heard[batch, name]
            try:
                worker.prepare(batch, feeds, limit_s=1.0)
                worker.device_times(batch, 5)
                if not name.endswith("-bare"):
                    one.row |= agreement(right, outputs_of(worker, samples, batch))
                ready[name] = one
            except WorkerError as error:
                one.row["failed"] = str(error)
        for one in ready.values():
            one.device.append([])
            one.whole.append([])
        order = np.random.default_rng(batch)
        for _ in range(rounds):
            for name in order.permutation(list(ready)):
                ready[name].device[-1].append(self.workers[name].device_times(batch, 20))
                if not name.endswith("-bare"):
                    ready[name].whole[-1].append(self.workers[name].time(batch, duration_s=0.02, min_calls=3))
        print(f"batch {batch}: measured {len(ready)} entries", flush=True)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self._pool.shutdown()


def agreement(right: dict[str, Array], given: dict[str, Array]) -> dict[str, Any]:
    found = compare_outputs(right, given, precision="int8")
    errors = [output.errors.relative for output in found.outputs if output.errors]
    return {"top1_agreement": found.top1_agreement, "relative_error": max(errors)}


def row_of(one: Heard, eager: Heard | None) -> dict[str, Any]:
    device = [second for process in one.device for window in process for second in window]
    if "failed" in one.row or not device:
        return one.row
    ratio = ratio_of_processes(means(eager.device), means(one.device), shrink=True) if eager else None
    found: dict[str, Any] = {
        **one.row,
        "device_ms": median(device) * 1e3,
        "times_eager_fp16": asdict(ratio) if ratio else None,
        "device_means_ms": [[round(mean * 1e3, 5) for mean in process] for process in means(one.device)],
    }
    if whole := [second for process in one.whole for window in process for second in window]:
        found["end_to_end_ms"] = {f"p{q}": percentile(whole, q) * 1e3 for q in (50, 99)}
    return found


def means(processes: list[list[list[float]]]) -> list[list[float]]:
    return [[sum(window) / len(window) for window in rounds] for rounds in processes]


def add_shares(rows: list[dict[str, Any]], macs: int, rates: Mapping[str, float]) -> None:
    """How much of what one large matrix product reaches in the same type."""
    for row in rows:
        rate = rates.get({"bf16": "fp16"}.get(row["precision"], row["precision"]))
        if "device_ms" in row and rate:
            row["share_of_matrix_rate"] = 2 * macs * row["batch"] / (row["device_ms"] / 1e3) / rate


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was wanted beside what was measured; a claim on a ratio holds where its whole 99 % interval does."""

    def row(name: str, batch: int = 64) -> dict[str, Any]:
        return next((r for r in rows if r["name"] == name and r["batch"] == batch and "failed" not in r), {})

    found = []
    for name, least in (("tensorrt-fp16", 3.0), ("tensorrt-int8", 4.0)):
        told = row(name).get("times_eager_fp16") or {}
        ratio = Ratio(**told) if told else None
        found.append(claim(f"batch 64: {name} against PyTorch eager FP16, device time", ratio, least=least))
    for name in ("tensorrt-fp16", "tensorrt-int8"):
        for batch in sorted({r["batch"] for r in rows}):
            ours, bare = row(name, batch), row(f"{name}-bare", batch)
            if ours and bare:
                ratio = ratio_of_processes(ours["device_means_ms"], bare["device_means_ms"], shrink=True)
                what = f"batch {batch}: {name}, our device time over a bare enqueue loop"
                found.append(claim(what, ratio, most=1.02))
    found += [
        claim(f"{name}: relative error", row(name).get("relative_error"), most=most)
        for name, most in (("tensorrt-fp32", 1e-4), ("tensorrt-fp16", 5e-3))
    ]
    return found + [
        claim(f"{name}: top-1 agreement on the photographs", row(name).get("top1_agreement"), least=0.99)
        for name in ("tensorrt-int8", "tensorrt-int8-qdq")
    ]


def claim(
    name: str, value: Ratio | float | None, *, least: float = -math.inf, most: float = math.inf
) -> dict[str, Any]:
    """One claim; what is counted or computed, no time, has no interval."""
    low, middle, high = (value.low, value.value, value.high) if isinstance(value, Ratio) else (value, value, value)
    holds = low is not None and high is not None and low >= least and high <= most
    wanted = f"at least {least:g}" if most == math.inf else f"at most {most:g}"
    interval = [low, high] if isinstance(value, Ratio) else None
    return {"claim": name, "measured": middle, "interval": interval, "wanted": wanted, "holds": holds}


def gpu_state() -> dict[str, str]:
    names = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
    told = subprocess.run(
        ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    ).stdout
    return dict(zip(names.split(","), (value.strip() for value in told.split(",")), strict=False))


def versions(interpreter: str) -> dict[str, str]:
    found = call_in_fresh_process(mine("gpu_sessions:torch_versions", {}), timeout_s=120)
    told = subprocess.run(
        [
            interpreter or sys.executable,
            "-c",
            "import tensorrt, sys; print(tensorrt.__version__, sys.version.split()[0])",
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return {**found, "python": sys.version.split()[0], "tensorrt": told[0], "tensorrt_python": told[1]}


def markdown(document: Mapping[str, Any]) -> str:
    told = document["versions"]
    rates = ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in document["matrix_rates"].items())
    lines = [
        "# ResNet-18, 224x224, NVIDIA GPU",
        "",
        f"{document['gpu'].get('name')}, driver {document['gpu'].get('driver_version')}, TensorRT {told['tensorrt']},",
        f"PyTorch {told['torch']} (CUDA {told['cuda']}), {document['verified_on']} held-out photographs (crops of 11).",
        f"Commit {document['commit'][:7]}; {document['processes']} generations of fresh processes,",
        f"{document['rounds']} rounds each.",
        "Device time is by CUDA events, inputs on the GPU, medians of interleaved rounds; end to end is host arrays in",
        "to host arrays out. The limit is what one 8192x8192x8192 matrix product reached in the same type here:",
        f"{rates}.",
        "",
    ]
    for batch in sorted({row["batch"] for row in document["rows"]}):
        lines += [
            f"## Batch {batch}",
            "",
            "| what | precision | device ms | × eager FP16 | 99 % interval | end-to-end | of limit | error | top-1 |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        rows = [row for row in document["rows"] if row["batch"] == batch]
        for row in sorted((r for r in rows if "failed" not in r), key=lambda r: r["device_ms"]):
            ratio = row["times_eager_fp16"]  # None of a single generation: nothing tells how the next would differ
            told = f"{ratio['value']:.2f} | {ratio['low']:.2f} to {ratio['high']:.2f}" if ratio else " | "
            whole = f"{row['end_to_end_ms']['p50']:.3f}" if "end_to_end_ms" in row else ""
            share = f"{row.get('share_of_matrix_rate', 0):.0%}"
            agree = f"{row['relative_error']:.1e} | {row['top1_agreement']:.1%}" if "relative_error" in row else " | "
            lines.append(
                f"| {row['name']} | {row['precision']} | {row['device_ms']:.3f} "
                f"| {told} | {whole} | {share} | {agree} |"
            )
        lines += [
            f"| {r['name']} | {r['precision']} | failed: {r['failed']} | | | | | | |" for r in rows if "failed" in r
        ]
        lines.append("")
    lines += [
        "## Wanted and measured",
        "",
        "A claim on a ratio holds where its whole interval does.",
        "",
        "| claim | wanted | measured | 99 % interval | holds |",
        "|---|---:|---:|---:|---|",
    ]
    for c in document["claims"]:
        measured = "not measured" if c["measured"] is None else f"{c['measured']:.4g}"
        interval = f"{c['interval'][0]:.4g} to {c['interval'][1]:.4g}" if c["interval"] else ""
        lines.append(f"| {c['claim']} | {c['wanted']} | {measured} | {interval} | {'yes' if c['holds'] else 'no'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
