"""Olive: its one-line command, its documented ResNet recipe, and its static quantizer's defaults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import Job, Product, input_name, main, versions

OLIVE = str(Path(sys.executable).with_name("olive"))


def one_line(job: Job) -> tuple[Product, ...]:
    folder = job.out / "optimize"
    _olive(job, "optimize", "-m", str(job.model), "--provider", "CPUExecutionProvider", "--precision", "int8",
           "--output_path", str(folder))  # fmt: skip
    return (_product(job, folder, "olive-optimize", "the command's own choice of passes"),)


def resnet_recipe(job: Job) -> tuple[Product, ...]:
    quantization = {
        "type": "OnnxQuantization",
        "data_config": "images",
        "precision": "uint8",
        "activation_type": "uint8",
        "calibrate_method": "MinMax",
        "quant_preprocess": True,
    }
    folder = _run(job, "recipe", {"quantization": quantization})
    how = "passes of Olive's ResNet CPU example: unsigned 8-bit activations and weights, min-max, pre-processed"
    return (_product(job, folder, "olive-recipe", how),)


def static_defaults(job: Job) -> tuple[Product, ...]:
    passes = {
        "peephole": {"type": "OnnxPeepholeOptimizer"},
        "quantization": {"type": "OnnxStaticQuantization", "data_config": "images"},
    }
    folder = _run(job, "static", passes)
    return (_product(job, folder, "olive-static", "OnnxPeepholeOptimizer, then OnnxStaticQuantization's defaults"),)


def dynamic_defaults(job: Job) -> tuple[Product, ...]:
    folder = _run(job, "dynamic", {"quantization": {"type": "OnnxDynamicQuantization"}})
    return (_product(job, folder, "olive-dynamic", "OnnxDynamicQuantization's defaults"),)


def _run(job: Job, name: str, passes: dict[str, Any]) -> Path:
    """Run a workflow over the calibration images, given as Olive's `raw_dataset` reads them: one raw file each."""
    tensor = input_name(job.model)
    raw = job.out / "raw" / tensor
    if not raw.exists():
        raw.mkdir(parents=True)
        for index, image in enumerate(job.calibration):
            image.tofile(raw / f"{index:05}.bin")
    images = {
        "name": "images",
        "type": "RawDataContainer",
        "load_dataset_config": {
            "data_dir": str(raw.parent),
            "input_names": [tensor],
            "input_shapes": [[1, *job.calibration.shape[1:]]],
        },
    }
    folder = job.out / name
    config = {
        "input_model": {"type": "ONNXModel", "model_path": str(job.model)},
        "systems": {
            "cpu": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [images],
        "passes": passes,
        "target": "cpu",
        "cache_dir": str(job.out / "cache"),
        "output_dir": str(folder),
    }
    file = job.out / f"{name}.json"
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")
    _olive(job, "run", "--config", str(file))
    return folder


def _olive(job: Job, *arguments: str) -> None:
    """Run `olive`; it ends with 0 when a pass failed, so the callers look for the file."""
    environment = {**os.environ, "OLIVE_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [OLIVE, *arguments],
        cwd=job.out,
        env=environment,
        capture_output=True,
        text=True,
        timeout=job.limit_s,
        check=False,
    )
    sys.stderr.write(done.stdout[-3000:] + done.stderr[-3000:])
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise RuntimeError(f"exit {done.returncode}: {lines[-1] if lines else 'no output'}")


def _product(job: Job, folder: Path, name: str, how: str) -> Product:
    files = sorted(folder.rglob("*.onnx"))
    if len(files) != 1:
        raise FileNotFoundError(f"{len(files)} .onnx files in {folder.name}/, expected one")
    return Product(name=name, file=str(files[0].relative_to(job.out)), format="onnx", how=how, runtime="onnxruntime")


if __name__ == "__main__":
    main(
        "olive",
        lambda: versions("olive-ai", "onnxruntime"),
        {
            "olive optimize -m model.onnx --provider CPUExecutionProvider --precision int8": one_line,
            "olive run --config resnet_ptq_cpu.json (its passes, these images)": resnet_recipe,
            "olive run --config <OnnxPeepholeOptimizer, OnnxStaticQuantization>": static_defaults,
            "olive run --config <OnnxDynamicQuantization>": dynamic_defaults,
        },
    )
