"""Does Redline call equals equal and see a 5 % delay? Prints how often, and writes every interval.

Each run starts fresh worker processes and measures as ``redline tune`` does: the same engine file three times, as it
is (A), as it is once more (A'), and with 5 % artificial delay (D). Wanted in at least 95 of 100 runs: A against A' is
"no difference", A against D is "slower".

    python benchmarks/honesty.py --runs 100 -o results/cpu/honesty.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np

import redline
from redline.backends import load_backend
from redline.core.files import write_whole
from redline.formats.onnx_file import read_onnx
from redline.measurement.environment import fingerprint, noise_check
from redline.measurement.interleave import Schedule, Window, interleave
from redline.measurement.stats import Ratio, speedup
from redline.measurement.worker import Source, Worker, thread_environment

DELAY = 0.05
HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--window", type=float, default=0.05)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    schedule = Schedule(rounds=args.rounds, window_s=args.window)
    environment = fingerprint(noise=noise_check()).to_json()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        engine = build(args.model, args.backend, Path(folder))
        for index in range(args.runs):
            runs.append(one_run(engine, args.batch, schedule, seed=index))
            print(
                f"run {index + 1}: " + "  ".join(f"{k} {v['verdict']}" for k, v in runs[-1].items() if k != "seconds")
            )
            sys.stdout.flush()
            summary = summarize(runs)
            if args.out:
                conditions = {
                    "benchmark": "honesty",
                    "command": " ".join(["python", "benchmarks/honesty.py", *sys.argv[1:]]),
                    "model": args.model,
                    "backend": args.backend,
                    "batch": args.batch,
                    "threads": 1,
                    "schedule": asdict(schedule),
                    "delay": DELAY,
                    "redline": redline.__version__,
                    "environment": environment,
                }
                write_whole(args.out, json.dumps({**conditions, "summary": summary, "runs": runs}, indent=1) + "\n")
    print(json.dumps(summary, indent=2))
    return 0 if summary["same_called_no_difference"] >= 0.95 and summary["delayed_called_slower"] >= 0.95 else 1


def build(model: str, backend: str, folder: Path) -> str:
    exported = redline.export(model, folder / "model.onnx").model
    return str(load_backend(backend, {"threads": 1}).compile(read_onnx(exported.path), folder).path)


def one_run(engine: str, batch: int, schedule: Schedule, *, seed: int) -> dict[str, object]:
    start = perf_counter()
    environment = {**thread_environment(1), "PYTHONPATH": str(HERE)}
    plain = Source(factory="redline.backends:open_engine", arguments={"path": engine}, environment=environment)
    late = Source(factory="delayed:open_delayed", arguments={"path": engine, "share": DELAY}, environment=environment)
    windows: dict[str, list[list[float]]] = {"baseline": [], "same": [], "delayed": []}

    def keep(window: Window) -> None:
        windows[window.variant].append(window.samples_s)

    def fail(name: str, reason: str) -> None:
        raise RuntimeError(f"{name}: {reason}")

    with Worker(plain) as baseline, Worker(plain) as same, Worker(late) as delayed:
        workers = {"baseline": baseline, "same": same, "delayed": delayed}
        shape = baseline.signature.inputs[0].with_batch(batch)
        rng = np.random.default_rng(seed)
        name = baseline.signature.inputs[0].name
        feeds = [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]
        for worker in workers.values():
            worker.prepare(batch, feeds)
        order = Schedule(rounds=schedule.rounds, window_s=schedule.window_s, min_calls=schedule.min_calls, seed=seed)
        interleave(workers, batch, order, on_window=keep, on_failure=fail)
    result: dict[str, object] = {
        name: as_json(speedup(windows["baseline"], windows[name])) for name in ("same", "delayed")
    }
    return {**result, "seconds": perf_counter() - start}


def as_json(ratio: Ratio | None) -> dict[str, object]:
    assert ratio is not None
    return {**asdict(ratio), "verdict": ratio.verdict}


def summarize(runs: list[dict[str, object]]) -> dict[str, object]:
    def share(name: str, verdict: str) -> float:
        return sum(run[name]["verdict"] == verdict for run in runs) / len(runs)  # type: ignore[index]

    def spread(name: str) -> dict[str, float]:
        values = np.array([run[name]["value"] for run in runs])  # type: ignore[index]
        low, middle, high = np.percentile(values, [2.5, 50, 97.5])
        return {"p2.5": float(low), "median": float(middle), "p97.5": float(high)}

    return {
        "runs": len(runs),
        "same_called_no_difference": share("same", "no difference"),
        "delayed_called_slower": share("delayed", "slower"),
        "delayed_verdicts": dict(Counter(run["delayed"]["verdict"] for run in runs)),  # type: ignore[index]
        "same_ratio": spread("same"),
        "delayed_ratio": spread("delayed"),
    }


if __name__ == "__main__":
    sys.exit(main())
