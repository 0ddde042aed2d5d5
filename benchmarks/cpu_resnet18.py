"""ResNet-18 at 224x224 on this CPU: what Redline recommends, against experts by hand and every peer's one command.

Tunes the model, lets each peer make what it makes of the same file and the same calibration photographs, then measures
all of it at batch 1 and 8 in one interleaved run, each in fresh processes with the same number of threads, and verifies
each against PyTorch on held-out crops of 11 photographs. Prints ratios and writes the result file with its conditions.
A claim holds where the whole interval of its ratio does.

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
from time import perf_counter
from typing import Any

import numpy as np
from field import Times, speedup
from field import measure as measure_field
from peers.table import PEERS, run_peer

import redline
from redline.commands.tune import TUNE
from redline.core.artifact import Engine
from redline.core.errors import WorkerError
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.core.samples import Samples
from redline.measurement.environment import fingerprint, noise_check
from redline.measurement.stats import percentile
from redline.measurement.worker import Source, Worker, thread_environment
from redline.study.journal import read_study
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
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--window", type=float, default=0.2, help="seconds of a turn at batch 1")
    parser.add_argument("--only", nargs="*", help="head to head: PyTorch eager and the entries whose names begin so")
    parser.add_argument("--work", type=Path, help="keep what is made here, and reuse it")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        environment = to_plain(fingerprint(noise=noise_check()))
        tuned, verification = tune(work, args.threads)
        entries = [*our_entries(work, args.threads), *peer_entries(work, tuned, args.threads)]
        if args.only:
            entries = [entry for entry in entries if entry.name.startswith((EAGER, *args.only))]
        schedule = {"processes": args.processes, "rounds": args.rounds, "window_s": args.window}
        rows, times = measure(entries, verification, schedule)
        document = {
            "benchmark": "cpu_resnet18",
            "command": " ".join(["python", "benchmarks/cpu_resnet18.py", *sys.argv[1:]]),
            "threads": args.threads,
            "schedule": schedule,
            "redline": redline.__version__,
            "environment": environment,
            "data": {"calibration": tuned["calibration"], "verification": len(verification)},
            "recommended": tuned["recommended"],
            "session_overhead_us": session_overhead(work),
            "claims": claims(rows, times, tuned["recommended"]),
            "rows": rows,
            "peers": tuned["peers"],
        }
    text = markdown(document)
    print(text)
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
        write_whole(args.out.with_suffix(".md"), text)
    return 0 if all(claim["holds"] == "yes" for claim in document["claims"]) else 1


def tune(work: Path, threads: int) -> tuple[dict[str, Any], Samples]:
    """Tune for each batch size; what it recommends is what is held against the others."""
    recommended = {}
    for batch in BATCHES:
        folder = work / f"tune-b{batch}"
        config = replace(TUNE, batches=(batch,), threads=threads)
        study = redline.tune("resnet18", folder, config=config, resume=(folder / "results.jsonl").exists()).study
        recommended[str(batch)] = next((row.variant for row in study.rows if row.recommended), None)
        print(f"batch {batch}: " + " ".join(study.conclusion.sentences if study.conclusion else ()), flush=True)
    calibration, verification = photographs(work / "tune-b1" / "results.jsonl")
    np.savez(work / "calibration.npz", x=next(iter(calibration.inputs.values())))
    save_state(work / "state.pt")
    return {"recommended": recommended, "calibration": len(calibration), "peers": []}, verification


def photographs(results: Path) -> tuple[Samples, Samples]:
    """To calibrate on and, others, to verify on."""
    from redline.data.choose import Needs, choose_samples

    model = read_study(results).run.models[0]
    needs = Needs(signature=model.signature, preprocess=model.preprocess, asset="photos", class_names=model.class_names)
    chosen = choose_samples(needs, None, counts=(64, 256), seed=0)
    return chosen.calibration, chosen.verification


def save_state(path: Path) -> None:
    """The weights for peers that start from PyTorch."""
    import torch

    from redline.networks.zoo import build

    torch.save(build("resnet18").state_dict(), path)
    os.environ["REDLINE_BENCHMARK_STATE"] = str(path.resolve())


def our_entries(work: Path, threads: int) -> list[Entry]:
    """PyTorch eager and every engine that the tunes compiled."""
    environment = thread_environment(threads)
    torch = Source(
        factory="redline.networks.eager:open_torch",
        arguments={
            "ref": to_plain(read_study(work / "tune-b1" / "results.jsonl").run.models[0].ref),
            "threads": threads,
            "weights_file": str(work / "tune-b1" / "artifacts" / "weights.safetensors"),
            "mode": "eager",
        },
        environment=environment,
    )
    found = [Entry(EAGER, "PyTorch", "model.eval(), inference mode", torch)]
    for batch in BATCHES:
        engines = work / f"tune-b{batch}" / "engines"
        for sidecar in sorted(engines.rglob("*.engine.json")):
            name = sidecar.relative_to(engines).parts[0]
            fixed = name.endswith("-fixed")
            if batch != BATCHES[0] and not fixed:
                continue  # the same file as of the first tune
            engine = Engine.read(sidecar)
            source = Source(
                factory="redline.backends:open_engine", arguments={"path": str(engine.path)}, environment=environment
            )
            how = f"{engine.layers.describe()}, made by redline tune"
            found.append(Entry(name, "Redline", how, source, (batch,) if fixed else BATCHES))
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


def measure(
    entries: list[Entry], samples: Samples, schedule: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Times]]]:
    """One row per entry and batch size: verified, then timed in rounds with all others, in fresh processes each."""
    rows: list[dict[str, Any]] = []
    times: dict[int, dict[str, Times]] = {}
    reference: dict[str, Any] | None = None
    for batch in BATCHES:
        sources, agreements = {}, {}
        for entry in (entry for entry in entries if batch in entry.batches):
            print(f"batch {batch}: verify {entry.name}", flush=True)
            row = {"name": entry.name, "owner": entry.owner, "how": entry.how, "batch": batch}
            try:
                with Worker(entry.source) as worker:
                    outputs = outputs_of(worker, samples, batch)
            except WorkerError as error:
                rows.append({**row, "failed": str(error)})
                continue
            reference = reference or outputs
            found = compare_outputs(reference, outputs, labels=samples.labels, precision="int8")
            agreements[entry.name] = {**row, "top1_agreement": found.top1_agreement, "accuracy": found.accuracy}
            sources[entry.name] = entry.source
        feeds = [samples.batch(start, batch) for start in range(0, 4 * batch, batch)]
        print(f"batch {batch}: measure {len(sources)} entries", flush=True)
        times[batch] = measure_field(
            sources,
            lambda _, feeds=feeds: feeds,
            processes=schedule["processes"],
            rounds=schedule["rounds"],
            window_s=schedule["window_s"] * (1 if batch == 1 else 4),
        )
        rows += [row_of(agreements[name], found, times[batch][EAGER]) for name, found in times[batch].items()]
    return rows, times


def row_of(row: dict[str, Any], mine: Times, eager: Times) -> dict[str, Any]:
    ratio = speedup(eager, mine)
    if mine.failed or ratio is None:
        return {**row, "failed": mine.failed or "no round without other work"}
    return {
        **row,
        "p50_ms": percentile(mine.calls_s, 50) * 1e3,
        "calls": len(mine.calls_s),
        "times_eager": asdict(ratio),
        "means_s": mine.means_s(),
    }


def claims(
    rows: list[dict[str, Any]], times: Mapping[int, Mapping[str, Times]], recommended: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What the project wants to be true, with the number that was measured."""
    found = []
    for batch in BATCHES:
        measured = {row["name"]: row for row in rows if row["batch"] == batch and "failed" not in row}
        best = measured.get(recommended[str(batch)])
        if best is None:
            continue
        found.append(claim(f"batch {batch}: at least 5 times PyTorch eager FP32", best["times_eager"], 5.0))
        agreed = best["top1_agreement"]
        found.append(
            claim(f"batch {batch}: top-1 agreement with FP32", dict.fromkeys(("value", "low", "high"), agreed), 0.99)
        )
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
            against = speedup(times[batch][rival["name"]], times[batch][best["name"]])
            assert against is not None
            name = f"batch {batch}: speed against {title} that keeps 99 % of the answers ({rival['name']})"
            found.append(claim(name, asdict(against), least))
    return found


def claim(name: str, ratio: Mapping[str, float], least: float) -> dict[str, Any]:
    """Holds where the whole interval does; missed where none of it does."""
    verdict = "yes" if ratio["low"] >= least else "no" if ratio["high"] < least else "not decided"
    interval = [ratio["low"], ratio["high"]]
    return {"claim": name, "measured": ratio["value"], "interval": interval, "wanted_at_least": least, "holds": verdict}


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
        f"{env['cpu']}, {document['threads']} thread(s) each, {document['data']['verification']} held-out crops of 11",
        "photographs.",
        "Speed is the ratio to PyTorch eager FP32 of mean times in interleaved rounds, by the host's clock, with its",
        f"99 % interval over {document['schedule']['processes']} generations of fresh processes.",
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
    lines += ["## Wanted and measured", "", "| claim | wanted | measured | 99 % interval | holds |"]
    lines += ["|---|---:|---:|---|---|"]
    lines += [
        f"| {c['claim']} | {c['wanted_at_least']:g} | {c['measured']:.3f} "
        f"| {c['interval'][0]:.3f} to {c['interval'][1]:.3f} | {c['holds']} |"
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
