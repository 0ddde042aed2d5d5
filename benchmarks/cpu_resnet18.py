"""ResNet-18 at 224x224 on this CPU: what Redline recommends, against experts by hand and every peer's one command.

Tunes the model, lets each peer make what it makes of the same file and the same calibration photographs, then measures
all of it at batch 1 and 8 in one interleaved run, each in a fresh process with the same number of threads, and verifies
each against PyTorch on held-out photographs. Prints ratios and writes the result file with its conditions.

    scripts/setup-peers
    python benchmarks/cpu_resnet18.py -o results/cpu/resnet18.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from peers.table import PEERS, run_peer

import redline
from redline.commands.steps import prepare_samples
from redline.core.artifact import Engine
from redline.core.errors import WorkerError
from redline.core.files import write_whole
from redline.core.samples import Samples
from redline.measurement.environment import fingerprint, noise_check
from redline.measurement.interleave import Schedule, Window, interleave
from redline.measurement.stats import percentile, speedup
from redline.measurement.worker import Source, Worker, thread_environment
from redline.tuning.options import TuneOptions
from redline.verification.compare import compare_outputs, outputs_of

HERE = Path(__file__).resolve().parent
BATCHES = (1, 8)
EAGER = "PyTorch eager FP32"
EXPERTS = ("openvino-nncf-int8", "ort-u8s8-per-channel")


@dataclass(frozen=True)
class Entry:
    """One way to run the model: whose it is, how a worker opens it, at which batch sizes."""

    name: str
    owner: str
    how: str
    source: Source
    batches: tuple[int, ...] = BATCHES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--window", type=float, default=0.05)
    parser.add_argument("--only", nargs="*", help="head to head: PyTorch eager and the entries whose names begin so")
    parser.add_argument("--work", type=Path, help="keep what is made here, and reuse it")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        environment = fingerprint(noise=noise_check()).to_json()
        tuned, verification = tune(work, args.threads)
        entries = [*our_entries(work, args.threads), *peer_entries(work, tuned, args.threads)]
        if args.only:
            entries = [entry for entry in entries if entry.name.startswith((EAGER, *args.only))]
        schedule = Schedule(rounds=args.rounds, window_s=args.window)
        rows = measure(entries, verification, schedule)
        document = {
            "benchmark": "cpu_resnet18",
            "command": " ".join(["python", "benchmarks/cpu_resnet18.py", *sys.argv[1:]]),
            "threads": args.threads,
            "schedule": asdict(schedule),
            "redline": redline.__version__,
            "environment": environment,
            "data": {"calibration": tuned["calibration"], "verification": len(verification)},
            "recommended": tuned["recommended"],
            "session_overhead_us": session_overhead(work),
            "claims": claims(rows, tuned["recommended"]),
            "rows": rows,
            "peers": tuned["peers"],
        }
    text = markdown(document)
    print(text)
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
        write_whole(args.out.with_suffix(".md"), text)
    return 0 if all(claim["holds"] for claim in document["claims"]) else 1


def tune(work: Path, threads: int) -> tuple[dict[str, Any], Samples]:
    """Tune for each batch size; what it recommends is what is held against the others."""
    recommended = {}
    for batch in BATCHES:
        folder = work / f"tune-b{batch}"
        options = TuneOptions(
            batches=(batch,),
            threads=threads,
            rounds=40 if batch == 1 else 15,
            resume=(folder / "results.jsonl").exists(),
        )
        result = redline.tune("resnet18", folder, options=options)
        assert result.study.conclusion is not None
        recommended[str(batch)] = result.study.conclusion["recommended"]
        print(f"batch {batch}: " + " ".join(result.study.conclusion["sentences"]), flush=True)
    run = result.study.run
    description = {
        "signature": {"inputs": run["model"]["inputs"], "outputs": run["model"]["outputs"]},
        "preprocess": run["model"]["preprocess"],
        "class_names": run["model"]["class_names"],
        "asset": "photos",
    }
    calibration, verification, _ = prepare_samples(description, None, None, (64, 256), 0)
    np.savez(work / "calibration.npz", x=next(iter(calibration.inputs.values())))
    save_state(work / "state.pt")
    return {"recommended": recommended, "calibration": len(calibration), "peers": []}, verification


def save_state(path: Path) -> None:
    """The weights for peers that start from PyTorch."""
    import torch

    from redline.networks.zoo import build

    torch.save(build("resnet18").state_dict(), path)
    os.environ["REDLINE_BENCHMARK_STATE"] = str(path.resolve())


def our_entries(work: Path, threads: int) -> list[Entry]:
    """PyTorch eager and every engine that the tune compiled."""
    run = json.loads((work / "tune-b1" / "results.jsonl").read_text().splitlines()[0])
    environment = thread_environment(threads)
    torch = Source(
        factory="redline.networks.eager:open_torch",
        arguments={
            "ref": run["model"]["ref"],
            "threads": threads,
            "weights_file": str(work / "tune-b1" / "artifacts" / "weights.safetensors"),
            "mode": "eager",
        },
        environment=environment,
    )
    found = [Entry(EAGER, "PyTorch", "model.eval(), inference mode", torch)]
    for sidecar in sorted((work / "tune-b1" / "engines").glob("*/*.engine.json")):
        engine = Engine.read(sidecar)
        how = f"{engine.layers.describe()}, made by redline tune"
        source = Source(
            factory="redline.backends:open_engine", arguments={"path": str(engine.path)}, environment=environment
        )
        found.append(Entry(sidecar.parent.name, "Redline", how, source))
    return found


def peer_entries(work: Path, tuned: dict[str, Any], threads: int) -> list[Entry]:
    """What every peer made of the exported file; failures are kept in ``tuned["peers"]``."""
    model = work / "tune-b1" / "artifacts" / "resnet18.onnx"
    found: list[Entry] = []
    for peer in PEERS:
        out = work / "peers" / peer.name
        if (out / "result.json").exists():
            document = json.loads((out / "result.json").read_text())
        else:
            print(f"run {peer.name}", flush=True)
            document = run_peer(
                peer,
                model=model,
                torch=f"{HERE / 'photos_model.py'}:resnet18",
                calibration=work / "calibration.npz",
                out=out,
            )
        tuned["peers"].append(
            {k: document.get(k) for k in ("peer", "version", "command", "seconds", "attempts", "failed")}
        )
        found += [product_entry(peer.name, product, out, threads) for product in document["products"]]
    return found


def product_entry(peer: str, product: Mapping[str, Any], folder: Path, threads: int) -> Entry:
    batch = product.get("batch")
    source = Source(
        factory="peer_sessions:open_product",
        arguments={
            "path": str(folder / product["file"]),
            "kind": product["format"],
            "options": product["runtime_options"],
            "threads": threads,
            "shape": [batch or "batch", 3, 224, 224],
        },
        environment={**thread_environment(threads), "PYTHONPATH": str(HERE)},
    )
    return Entry(product["name"], peer, product["how"], source, (batch,) if batch else BATCHES)


def measure(entries: list[Entry], samples: Samples, schedule: Schedule) -> list[dict[str, Any]]:
    """One row per entry and batch size: verified, then timed in rounds with all others."""
    rows: list[dict[str, Any]] = []
    reference: dict[str, Any] | None = None
    for batch in BATCHES:
        workers: dict[str, Worker] = {}
        agreements: dict[str, dict[str, Any]] = {}
        try:
            for entry in entries:
                if batch not in entry.batches:
                    continue
                print(f"batch {batch}: verify {entry.name}", flush=True)
                row = {"name": entry.name, "owner": entry.owner, "how": entry.how, "batch": batch}
                try:
                    worker = workers[entry.name] = Worker(entry.source)
                    starts = range(0, 4 * batch, batch)
                    worker.prepare(batch, [samples.batch(start, batch) for start in starts])
                    outputs = outputs_of(worker, samples, batch)
                except WorkerError as error:
                    if entry.name in workers:
                        workers.pop(entry.name).close()
                    rows.append({**row, "failed": str(error)})
                    continue
                reference = reference or outputs
                found = compare_outputs(reference, outputs, labels=samples.labels, precision="int8")
                agreements[entry.name] = {**row, "top1_agreement": found.top1_agreement, "accuracy": found.accuracy}
            windows: dict[str, list[list[float]]] = {name: [] for name in workers}
            order = replace(schedule, rounds=schedule.rounds if batch == 1 else schedule.rounds // 3)

            def keep(window: Window, windows: dict[str, list[list[float]]] = windows) -> None:
                windows[window.variant].append(window.samples_s)

            def fail(name: str, reason: str) -> None:
                print(f"{name}: {reason}", flush=True)

            print(f"batch {batch}: measure {len(workers)} entries", flush=True)
            interleave(workers, batch, order, on_window=keep, on_failure=fail)
        finally:
            for worker in workers.values():
                worker.close()
        rows += [row_of(agreements[name], windows[name], windows[EAGER]) for name in workers]
    return rows


def row_of(row: dict[str, Any], mine: list[list[float]], eager: list[list[float]]) -> dict[str, Any]:
    samples = [second for window in mine for second in window]
    ratio = speedup(eager, mine)
    fastest = [min(window) for window in mine]
    return {
        **row,
        "p50_ms": percentile(samples, 50) * 1e3,
        "fastest_ms": median(fastest) * 1e3,
        "calls": len(samples),
        "times_eager": asdict(ratio) if ratio else None,
        "windows_s": [[round(second, 7) for second in window] for window in mine],
    }


def claims(rows: list[dict[str, Any]], recommended: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the project wants to be true, with the number that was measured."""
    found = []
    for batch in BATCHES:
        measured = {row["name"]: row for row in rows if row["batch"] == batch and "failed" not in row}
        best = measured[recommended[str(batch)]]
        eager = best["times_eager"]["value"]
        found.append(claim(f"batch {batch}: at least 5 times PyTorch eager FP32", eager, 5.0))
        found.append(claim(f"batch {batch}: top-1 agreement with FP32", best["top1_agreement"], 0.99))
        experts = [row for row in measured.values() if row["owner"] == "experts" and row["name"].startswith(EXPERTS)]
        peers = [row for row in measured.values() if row["owner"] not in ("Redline", "experts", "PyTorch")]
        for title, others, least in (
            ("the fastest expert by hand", experts, 0.98),
            ("the fastest of the peers' one commands", peers, 1.0),
        ):
            passing = [row for row in others if row["top1_agreement"] >= 0.99]
            if not passing:
                continue
            rival = max(passing, key=lambda row: row["times_eager"]["value"])
            against = speedup(rival["windows_s"], best["windows_s"])
            assert against is not None
            name = f"batch {batch}: speed against {title} that keeps 99 % of the answers ({rival['name']})"
            found.append({**claim(name, against.value, least), "interval": [against.low, against.high]})
    return found


def claim(name: str, value: float, least: float) -> dict[str, Any]:
    return {"claim": name, "measured": value, "wanted_at_least": least, "holds": bool(value >= least)}


def session_overhead(work: Path) -> dict[str, float]:
    """Microseconds that a Redline session adds to the bare runtime's own call, on a model of one Relu."""
    import onnx
    from onnx import TensorProto, helper

    from redline.backends import load_backend
    from redline.formats.onnx_file import read_onnx

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 224, 224]) for name in ("input", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["y"])], "relu", values[:1], values[1:])
    path = work / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return {
        name: _overhead(load_backend(name, {"threads": 1}), read_onnx(path), work, name)
        for name in ("onnxruntime", "openvino")
    }


def _overhead(backend: Any, model: Any, work: Path, name: str) -> float:
    import onnxruntime as ort
    import openvino as ov

    x = np.ones((1, 3, 224, 224), np.float32)[:, :, :2, :2].copy().repeat(112, 2).repeat(112, 3)
    ours = backend.load(backend.compile(model, work / "overhead"))
    if name == "onnxruntime":
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        bare = lambda: session.run(None, {"input": x})  # noqa: E731
    else:
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        request = ov.Core().compile_model(str(model.path), "CPU", config).create_infer_request()
        bare = lambda: request.infer({0: x}, share_inputs=True)  # noqa: E731
    feed = {"input": x}
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(400):
        for key, call in (("ours", lambda: ours(feed)), ("bare", bare)):
            call()
            start = perf_counter()
            for _ in range(5):
                call()
            times[key].append((perf_counter() - start) / 5)
    return (percentile(times["ours"], 25) - percentile(times["bare"], 25)) * 1e6


def markdown(document: Mapping[str, Any]) -> str:
    env = document["environment"]
    lines = [
        "# ResNet-18, 224x224, CPU",
        "",
        f"{env['cpu']}, {document['threads']} thread(s) each, {document['data']['verification']} held-out photographs.",
        "Speed is the ratio to PyTorch eager FP32 of the fastest calls of interleaved rounds, with its 99 % interval.",
        "",
    ]
    for batch in BATCHES:
        lines += [
            f"## Batch {batch}",
            "",
            "| who | what | p50 ms | times eager | 99 % interval | same top-1 | accuracy |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        rows = [row for row in document["rows"] if row["batch"] == batch]
        good = sorted((r for r in rows if "failed" not in r), key=lambda r: -r["times_eager"]["value"])
        for row in good:
            ratio = row["times_eager"]
            star = " **(recommended)**" if document["recommended"][str(batch)] == row["name"] else ""
            lines.append(
                f"| {row['owner']} | {row['name']}{star} | {row['p50_ms']:.2f} | {ratio['value']:.2f} "
                f"| {ratio['low']:.2f} to {ratio['high']:.2f} | {row['top1_agreement']:.1%} | {row['accuracy']:.1%} |"
            )
        lines += [f"| {r['owner']} | {r['name']} | failed: {r['failed']} | | | | |" for r in rows if "failed" in r]
        lines.append("")
    lines += ["## Wanted and measured", "", "| claim | wanted | measured | holds |", "|---|---:|---:|---|"]
    lines += [
        f"| {c['claim']} | {c['wanted_at_least']:g} | {c['measured']:.3f} | {'yes' if c['holds'] else 'no'} |"
        for c in document["claims"]
    ]
    overhead = ", ".join(f"{name} {value:.1f} µs" for name, value in document["session_overhead_us"].items())
    lines += ["", f"A Session call costs over the bare runtime's own call: {overhead}.", ""]
    failed = [peer for peer in document["peers"] if peer["failed"]]
    lines += [f"- {peer['peer']} made nothing: {peer['failed']}" for peer in failed]
    lines += [
        f"- {peer['peer']}, `{attempt['command']}`: {attempt['failed']}"
        for peer in document["peers"]
        for attempt in peer["attempts"] or []
        if attempt["failed"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
