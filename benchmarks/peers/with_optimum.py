"""Optimum: `optimum-cli onnxruntime quantize --avx512_vnni` on a folder with the ONNX file; it is dynamic only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from common import Job, Product, main, versions

COMMAND = "optimum-cli onnxruntime quantize --avx512_vnni --onnx_model model/ -o quantized/"


def command_line(job: Job) -> tuple[Product, ...]:
    return _quantize(job, job.model, "optimum-avx512-vnni", "preset avx512_vnni: dynamic, signed 8-bit weights")


def prepared(job: Job) -> tuple[Product, ...]:
    """The same after ONNX Runtime's pre-processing, without which it fails on a file of PyTorch's own exporter."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = job.out / "prepared.onnx"
    quant_pre_process(str(job.model), str(model))
    how = "pre-processed, then preset avx512_vnni: dynamic, signed 8-bit weights"
    return _quantize(job, model, "optimum-avx512-vnni-prepared", how)


def _quantize(job: Job, model: Path, name: str, how: str) -> tuple[Product, ...]:
    source, target = job.out / "model", job.out / name
    source.mkdir(exist_ok=True)
    shutil.copyfile(model, source / "model.onnx")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("optimum-cli")), "onnxruntime", "quantize", "--avx512_vnni",
         "--onnx_model", str(source), "-o", str(target)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=job.limit_s, check=False,
    )  # fmt: skip
    sys.stderr.write(done.stdout[-3000:] + done.stderr[-3000:])
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise RuntimeError(f"exit {done.returncode}: {lines[-1] if lines else 'no output'}")
    (file,) = target.glob("*.onnx")
    return (Product(name=name, file=str(file.relative_to(job.out)), format="onnx", how=how, runtime="onnxruntime"),)


if __name__ == "__main__":
    main(
        "optimum",
        lambda: versions("optimum", "optimum-onnx", "onnxruntime"),
        {COMMAND: command_line, f"quant_pre_process ; {COMMAND}": prepared},
    )
