"""Which INT8 file is fast on a CPU: ResNet-18's static and dynamic forms on ONNX Runtime and OpenVINO.

The choices of ``src/redline/transforms/quantize_presets.py`` rest on this. Every file is measured in a fresh process,
three times over, all in interleaved rounds, against ONNX Runtime's FP32.

    python benchmarks/cpu_int8_files.py -o results/cpu/int8_files.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from field import measure as measure_field
from field import speedup

import redline
from redline.backends import load_backend
from redline.commands.quantize import QuantizeOptions
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.data.choose import Needs, choose_samples
from redline.formats.onnx_file import read_onnx
from redline.measurement.environment import fingerprint, noise_check
from redline.measurement.stats import percentile
from redline.measurement.worker import Source, Worker, thread_environment

BASELINE, PROCESSES, WINDOW_S = "fp32", 3, 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    environment = to_plain(fingerprint(noise=noise_check()))
    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder))
        engines = compile_all(files, Path(folder), args.threads)
        rows = [row for batch in args.batches for row in measure(engines, batch, args.rounds, args.threads)]
    document = {
        "benchmark": "cpu_int8_files",
        "command": " ".join(["python", "benchmarks/cpu_int8_files.py", *sys.argv[1:]]),
        "model": "resnet18, 224x224",
        "threads": args.threads,
        "redline": redline.__version__,
        "environment": environment,
        "rows": rows,
    }
    for row in (row for row in rows if "failed" not in row):
        ratio = row["times_fp32"]
        print(
            f"batch {row['batch']}  {row['backend']:12}{row['file']:24}{row['p50_ms']:9.2f} ms  {ratio['value']:.2f}x"
        )
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0


def make(folder: Path) -> dict[str, Path]:
    """The FP32 file and every INT8 form of it, calibrated on the shipped photographs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exported = redline.export("resnet18", folder / "fp32.onnx").model
    usage = exported.usage
    needs = Needs(
        signature=exported.signature, preprocess=usage.preprocess, asset="photos", class_names=usage.class_names
    )
    calibration = choose_samples(needs, None, counts=(64, 8), seed=0).calibration
    np.savez(folder / "calibration.npz", **calibration.inputs)
    redline.quantize(folder / "fp32.onnx", folder / "dynamic_uint8.onnx", mode="dynamic")
    for target, name in (("onnxruntime", "static_uint8"), ("tensorrt", "static_int8")):
        options = QuantizeOptions(target=target)
        data = folder / "calibration.npz"
        redline.quantize(folder / "fp32.onnx", folder / f"{name}.onnx", mode="static", data=data, options=options)
    # ONNX Runtime's own default, which Redline does not make; shape inference in its file trips over the exporter's.
    import onnx

    proto = onnx.load(str(folder / "fp32.onnx"))
    del proto.graph.value_info[:]
    onnx.save(proto, str(folder / "plain.onnx"))
    quantize_dynamic(folder / "plain.onnx", folder / "dynamic_int8.onnx", weight_type=QuantType.QInt8)
    names = ("fp32", "static_uint8", "static_int8", "dynamic_uint8", "dynamic_int8")
    return {name: folder / f"{name}.onnx" for name in names}


def compile_all(files: dict[str, Path], folder: Path, threads: int) -> dict[tuple[str, str], str]:
    found = {}
    for name, path in files.items():
        for backend in ("onnxruntime", "openvino"):
            if backend == "openvino" and name.startswith("dynamic"):
                continue
            options = {"threads": threads, **({"precision": "f32"} if backend == "openvino" else {})}
            engine = load_backend(backend, options).compile(read_onnx(path), folder / backend)
            found[backend, name] = str(engine.path)
    return found


def measure(engines: dict[tuple[str, str], str], batch: int, rounds: int, threads: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((batch, 3, 224, 224)).astype(np.float32) for _ in range(4)]
    sources = {
        f"{backend}/{name}": Source(
            factory="redline.backends:open_engine", arguments={"path": path}, environment=thread_environment(threads)
        )
        for (backend, name), path in engines.items()
    }

    def feeds(worker: Worker) -> list[dict[str, np.ndarray]]:
        return [{worker.signature.inputs[0].name: image} for image in images]

    times = measure_field(sources, feeds, processes=PROCESSES, rounds=rounds, window_s=WINDOW_S * batch)
    rows = []
    for backend, name in engines:
        mine = times[f"{backend}/{name}"]
        ratio = speedup(times[f"onnxruntime/{BASELINE}"], mine)
        if mine.failed or ratio is None:
            rows.append({"batch": batch, "backend": backend, "file": name, "failed": mine.failed or "no sound round"})
            continue
        rows.append(
            {
                "batch": batch,
                "backend": backend,
                "file": name,
                "p50_ms": percentile(mine.calls_s, 50) * 1e3,
                "times_fp32": asdict(ratio),
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
