"""Model Navigator: `nav.torch.optimize` for a CPU, its profiling limited to the batch sizes that we compare."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import Job, Product, UnfinishedError, main, torch_module, versions

BATCHES = [1, 8]
SAMPLES = 8
CHILD = "--call"


def optimize(job: Job) -> tuple[Product, ...]:
    """Run it in a process group of its own: it starts processes, which outlive it when it is ended."""
    if job.torch is None:
        raise ValueError("Model Navigator starts from a PyTorch module: give --torch FILE.py:FACTORY")
    folder, images = job.out / "workspace", job.out / "images.npy"
    shutil.rmtree(folder, ignore_errors=True)
    np.save(images, job.calibration[:SAMPLES])
    call = [sys.executable, __file__, CHILD, job.torch, str(images), str(folder)]
    with (job.out / "log.txt").open("wb") as log:
        process = subprocess.Popen(call, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)
        try:
            code: int | None = process.wait(job.limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    images.unlink()
    products = _collect(job, folder)
    if code is None:
        message = f"did not end in {job.limit_s:.0f} s ({_last_line(job)}); what it had exported by then is compared"
        raise UnfinishedError(message, products)
    if code != 0 or not products:
        raise UnfinishedError(f"exit {code}, {len(products)} files made: {_last_line(job)}", products)
    return products


def call(source: str, images: Path, folder: Path) -> None:
    """The documented call."""
    import torch

    # Its PyTorch runners call this without asking whether there is a GPU: on a CPU-only build every one would fail.
    torch.cuda.synchronize = lambda *_: None
    import model_navigator as nav

    package = nav.torch.optimize(
        model=torch_module(source),
        dataloader=[torch.from_numpy(image[None]) for image in np.load(images)],
        target_device=nav.DeviceKind.CPU,
        optimization_profile=nav.OptimizationProfile(batch_sizes=BATCHES),
        workspace=folder,
    )
    sys.stdout.write(f"{package}\n")


def _last_line(job: Job) -> str:
    lines = [line for line in (job.out / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
    return f"its last line: {lines[-1][-160:].strip()}" if lines else "it printed nothing"


def _collect(job: Job, folder: Path) -> tuple[Product, ...]:
    """Copy what its exports left: its workspace has a folder for each format."""
    products: list[Product] = []
    for found in sorted([*folder.glob("*/model.onnx"), *folder.glob("*/model.pt"), *folder.glob("*/model.pt2")]):
        kind = found.parent.name
        target = job.out / f"{kind}{found.suffix}"
        shutil.copyfile(found, target)
        onnx = found.suffix == ".onnx"
        products.append(
            Product(
                name=f"model-navigator-{kind}",
                file=target.name,
                format="onnx" if onnx else "torchscript" if found.suffix == ".pt" else "torch-export",
                how=f"its {kind} export, fp32; on a CPU it makes no other precision",
                runtime="onnxruntime" if onnx else "torch",
                # Its exported program keeps the batch of the sample that it was exported with.
                batch=1 if found.suffix == ".pt2" else None,
            )
        )
    return tuple(products)


if __name__ == "__main__" and sys.argv[1:2] == [CHILD]:
    call(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
elif __name__ == "__main__":
    main(
        "model-navigator",
        lambda: versions("triton-model-navigator", "torch", "onnxruntime"),
        {
            "nav.torch.optimize(model=model, dataloader=dataloader, target_device=nav.DeviceKind.CPU, "
            "optimization_profile=nav.OptimizationProfile(batch_sizes=[1, 8]))": optimize,
        },
    )
