"""Writes sample.jsonl beside itself: a made-up run with one row of every kind that a report has to show."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, PER_ROUND = 6, 20
VERSIONS = {"torch": "2.13.0+cpu", "onnx": "1.23.2", "onnxruntime": "1.31.1", "openvino": "2026.4.1", "nncf": "3.2.0"}

# name, backend, title, artifact, requested, layers, size MB, p50 ms (batch 1, 8), spread, peak MB, max error, cosine,
# agreement, accuracy
MEASURED: list[tuple[Any, ...]] = [
    ("torch-eager-fp32", "torch", "PyTorch eager FP32", None, "fp32", [["fp32", 21]],
     46.8, (34.1, 241.0), 0.02, 212, 0.0, 1.0, 1.0, 0.944),
    ("torchscript-fp32", "torch", "TorchScript FP32", None, "fp32", [["fp32", 21]],
     46.9, (34.0, 240.6), 0.02, 219, 0.0, 1.0, 1.0, 0.944),
    ("onnxruntime-fp32", "onnxruntime", "ONNX Runtime FP32", "resnet18.onnx", "fp32", [["fp32", 21]],
     46.7, (20.6, 166.0), 0.015, 148, 3.8e-6, 1.0, 1.0, 0.944),
    ("onnxruntime-fp16", "onnxruntime", "ONNX Runtime FP16", "resnet18_fp16.onnx", "fp16", [["fp32", 21]],
     23.4, (37.9, 262.0), 0.03, 196, 2.1e-3, 0.999998, 0.9938, 0.944),
    ("onnxruntime-int8-dynamic", "onnxruntime", "ONNX Runtime INT8, dynamic", "resnet18_int8_dynamic.onnx", "int8",
     [["int8", 21]], 11.8, (71.5, 548.0), 0.02, 121, 0.31, 0.9981, 0.9812, 0.938),
    ("onnxruntime-int8-static", "onnxruntime", "ONNX Runtime INT8, static U8S8", "resnet18_int8_u8s8.onnx", "int8",
     [["int8", 21]], 11.9, (6.92, 54.3), 0.02, 92, 0.42, 0.9968, 0.9937, 0.9437),
    ("onnxruntime-int8-entropy", "onnxruntime", "ONNX Runtime INT8, entropy", "resnet18_int8_entropy.onnx", "int8",
     [["int8", 21]], 11.9, (6.95, 54.4), 0.02, 93, 2.9, 0.9712, 0.9062, 0.881),
    ("openvino-fp32", "openvino", "OpenVINO FP32", "resnet18.onnx", "fp32", [["fp32", 21]],
     46.7, (19.2, 158.0), 0.015, 171, 4.1e-6, 1.0, 1.0, 0.944),
    ("openvino-default", "openvino", "OpenVINO, its default", "resnet18.onnx", "fp32", [["bf16", 20], ["fp32", 1]],
     46.7, (8.71, 65.9), 0.02, 188, 0.037, 0.99994, 1.0, 0.944),
    ("openvino-int8", "openvino", "OpenVINO INT8 (NNCF)", "resnet18_nncf.onnx", "int8", [["int8", 20], ["fp32", 1]],
     12.0, (5.38, 41.2), 0.02, 104, 0.39, 0.9974, 0.9938, 0.9417),
]  # fmt: skip
ARTIFACTS = {
    "resnet18.onnx": ([["fp32", 21]], 46_700_000, []),
    "resnet18_fp16.onnx": ([["fp16", 21]], 23_400_000, [("half", {"keep_io_types": True})]),
    "resnet18_int8_dynamic.onnx": ([["int8", 21]], 11_800_000, [("quantize", {"mode": "dynamic", "weights": "QInt8"})]),
    "resnet18_int8_u8s8.onnx": (
        [["int8", 21]],
        11_900_000,
        [("quantize", {"mode": "static", "method": "minmax", "weights": "QInt8", "per_channel": True, "samples": 128})],
    ),
    "resnet18_int8_entropy.onnx": (
        [["int8", 21]],
        11_900_000,
        [("quantize", {"mode": "static", "method": "entropy", "per_channel": True, "samples": 128})],
    ),
    "resnet18_nncf.onnx": ([["int8", 20], ["fp32", 1]], 12_000_000, [("nncf", {"preset": "mixed", "samples": 128})]),
}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def run_record() -> dict[str, Any]:
    return {
        "kind": "run", "format": 1, "run_id": "2026-11-22T100000Z-resnet18-4f1c", "redline": "0.1.0",
        "command": "redline tune resnet18 -o out --data photos --labels labels.csv --batch 1,8 --threads 2",
        "created": "2026-11-22T10:00:00Z",
        "model": {
            "name": "resnet18", "sha256": sha("resnet18"), "parameters": 11_689_512, "macs_per_sample": 1_814_073_344,
            "inputs": [{"name": "image", "shape": ["batch", 3, 224, 224], "dtype": "float32"}],
            "outputs": [{"name": "logits", "shape": ["batch", 1000], "dtype": "float32"}],
        },
        "settings": {
            "batches": [1, 8], "threads": 2, "objective": "latency", "max_accuracy_drop": 0.01,
            "min_agreement": 0.99, "baseline": "torch-eager-fp32", "seed": 0, "rounds": ROUNDS,
        },
        "data": {
            "source": "photos", "calibration": 128, "verification": 160, "labelled": True,
            "skipped": [
                {"name": "broken.jpg", "reason": "truncated: 812 of 40,113 bytes"},
                {"name": "notes.txt", "reason": "not an image"},
            ],
            "depends_on_input": True, "warning": None,
        },
        "environment": {
            "cpu": "AMD EPYC 9R14", "flags": ["avx2", "avx512f", "avx512_bf16", "avx512_vnni"],
            "cores_logical": 2, "cores_available": 2, "memory_bytes": 16_500_000_000, "container_cpu_limit": 2.0,
            "container_memory_bytes": 17_179_869_184, "governor": None, "os": "Linux 6.8", "python": "3.11.11",
            "versions": VERSIONS, "load_average": [0.4, 0.3, 0.2],
            "noise": {"spread": 0.09, "noisy": True, "warning":
                      "This machine was noisy: the same loop varied by 9 % between rounds; doubt small differences."},
        },
    }  # fmt: skip


def step(name: str, arguments: dict[str, Any], parent: str | None) -> dict[str, Any]:
    versions = {key: VERSIONS[key] for key in ("torch", "onnx")}
    return {"step": name, "arguments": arguments, "parent_sha256": parent, "versions": versions}


def artifact_records() -> list[dict[str, Any]]:
    records = []
    for name, (layers, size, more) in ARTIFACTS.items():
        chain = [
            step("export", {"exporter": "dynamo", "opset": 20, "batch": "dynamic"}, sha("resnet18")),
            step("optimize", {"passes": "onnxslim", "nodes_before": 69, "nodes_after": 49}, sha("exported")),
            *(step(verb, arguments, sha("resnet18.onnx")) for verb, arguments in more),
        ]
        records.append(
            {"kind": "artifact", "name": name, "path": f"artifacts/{name}", "sha256": sha(name), "size_bytes": size,
             "layers": layers, "opset": 20, "provenance": chain}
        )  # fmt: skip
    return records


def variant_records() -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for name, backend, title, artifact, requested, layers, size, *_ in MEASURED:
        note = "OpenVINO runs in bf16 by default on this CPU" if name == "openvino-default" else None
        records.append(
            {"kind": "variant", "name": name, "backend": backend, "title": title, "artifact": artifact,
             "requested": requested, "precision": layers[0][0], "layers": layers, "size_bytes": int(size * 1e6),
             "note": note}
        )  # fmt: skip
    return records


def agreement_records() -> list[dict[str, Any]]:
    records = []
    for name, _, _, _, requested, *_, max_abs, cosine, agreement, accuracy in MEASURED:
        reason = None
        if agreement < 0.99:
            reason = f"top-1 agreement {agreement:.1%} is below the gate of 99.0 %".replace("%", " %", 1)
        absolute = 1.0 if requested == "int8" else 1e-2
        output = {"name": "logits", "max_abs": max_abs, "max_rel": max_abs / 20, "cosine": cosine, "snr_db": None,
                  "tolerance": {"absolute": absolute, "relative": absolute / 10, "why": f"usual for {requested}"},
                  "within": max_abs <= absolute}  # fmt: skip
        records.append(
            {"kind": "agreement", "variant": name, "outputs": [output], "samples": 160, "top1_agreement": agreement,
             "accuracy": accuracy, "reference_accuracy": 0.944, "passed": reason is None, "reason": reason}
        )  # fmt: skip
    return records


def measured_records(rng: np.random.Generator) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for entry in MEASURED:
        records.append(
            {"kind": "load", "variant": entry[0], "load_s": 0.2 + entry[6] / 300, "first_call_s": entry[7][0] / 400}
        )
        for batch, factor in ((1, 1.0), (8, 1.35)):
            peak = int(entry[9] * 1e6 * factor)
            records.append(
                {"kind": "memory", "variant": entry[0], "batch": batch, "private_peak_bytes": peak,
                 "private_before_bytes": 38_000_000, "rss_peak_bytes": peak + 160_000_000}
            )  # fmt: skip
    for number in range(ROUNDS):
        drift = 1 + 0.01 * np.sin(number)
        for entry in MEASURED:
            for batch, p50_ms in zip((1, 8), entry[7], strict=True):
                # Fewer samples at the large batch, as a real run has: too few for a p99.
                count = PER_ROUND if batch == 1 else 7
                jitter = np.abs(rng.normal(0, entry[8], count)) + (rng.random(count) > 0.97) * rng.exponential(
                    0.25, count
                )
                samples = p50_ms / 1e3 * drift * (1 - 0.65 * entry[8] + jitter)
                records.append(
                    {"kind": "samples", "variant": entry[0], "batch": batch, "round": number,
                     "samples_s": [round(float(s), 7) for s in samples]}
                )  # fmt: skip
    return records


def main() -> None:
    failed = {"name": "torch-compile-fp32", "backend": "torch", "title": "torch.compile FP32", "requested": "fp32"}
    skipped = {"name": "openvino-fp16", "backend": "openvino", "title": "OpenVINO FP16", "requested": "fp16"}
    rest = {"artifact": None, "precision": "none", "layers": [], "size_bytes": 0, "note": None}
    records = [
        run_record(),
        {"kind": "macs", "macs_per_sample": 1_814_073_344},
        {"kind": "ceiling", "precision": "fp32", "gflops": 201.4, "how": "best of GEMM 1024 to 2048 by ORT, NumPy"},
        {"kind": "ceiling", "precision": "bf16", "gflops": 598.0, "how": "best of GEMM 1024 to 2048 by OpenVINO"},
        {"kind": "ceiling", "precision": "int8", "gflops": 861.2, "how": "best of GEMM 1024 to 2048 by ORT, OpenVINO"},
        {"kind": "bandwidth", "gbytes_per_s": 21.7, "how": "best of 5 copies of 256 MB"},
        *artifact_records(),
        *variant_records(),
        {"kind": "variant", **failed, **rest},
        {"kind": "variant", **skipped, **rest},
        *agreement_records(),
        {"kind": "failed", "variant": "torch-compile-fp32", "stage": "build",
         "reason": "torch.compile needs a C++ compiler and found none; install g++"},
        {"kind": "skipped", "variant": "openvino-fp16", "reason": "this CPU has no FP16 arithmetic (no avx512_fp16)"},
        *measured_records(np.random.default_rng(0)),
        {"kind": "conclusion", "recommended": "openvino-int8", "batch": 1,
         "headline": "OpenVINO INT8 (NNCF) is 6.3 times faster than PyTorch eager FP32",
         "sentences": [
             "Deploy openvino-int8: 5.4 ms a call at batch 1 against 34.1 ms, in half the memory.",
             "It costs 0.2 points of accuracy (94.2 % against 94.4 % on 160 images), within the gate of 1 point.",
             "If the accuracy must not move at all, OpenVINO's bf16 default is the next best, 3.9 times faster."],
         "losers": [
             {"variant": "onnxruntime-int8-static", "why": "1.29 times slower than the recommended one"},
             {"variant": "onnxruntime-int8-entropy", "why": "fails the gate: top-1 agreement is 90.6 %"},
             {"variant": "openvino-default", "why": "1.62 times slower; answers are closer to the original's"},
             {"variant": "onnxruntime-int8-dynamic", "why": "slower than the baseline: scales found at run time"},
             {"variant": "torch-compile-fp32", "why": "could not be built"}],
         "pareto": ["openvino-int8", "openvino-default", "onnxruntime-int8-static"], "gate_passed": True},
    ]  # fmt: skip
    text = "".join(json.dumps(record) + "\n" for record in records)
    Path(__file__).with_name("sample.jsonl").write_text(text)


if __name__ == "__main__":
    main()
