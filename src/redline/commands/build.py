"""Build TensorRT engines of a model in several precisions, and say what each really is."""

from __future__ import annotations

import json
from pathlib import Path

from redline.building.onnx_file import build_file
from redline.building.records import PRECISIONS, BuildOptions, BuildRequest, BuildResult, Progress
from redline.core.errors import InputError
from redline.core.files import write_whole

__all__ = ["BuildOptions", "BuildResult", "build"]

RESULT = "build.json"


def build(
    model: str | Path,
    out: str | Path,
    *,
    precisions: tuple[str, ...] = ("fp32", "fp16"),
    data: str | Path | None = None,
    labels: str | Path | None = None,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build an engine of each precision, read its layers' precision from it, and verify and measure it.

    Args:
        model: An FP32 ONNX file, which is left as it is; for Torch-TensorRT a PyTorch model as ``redline export
            --help`` lists them.
        out: Folder for ``<model>_<precision>.plan``, what was made on the way, and ``build.json``.
        precisions: Of ``fp32`` (TF32 off), ``tf32``, ``fp16``, ``bf16`` and ``int8``.
        data: Real samples, a folder of images or ``.npz``; INT8 is calibrated on a part, all are verified on the rest.
        labels: A CSV file of labels for a folder of images.
        options: Typing, profiles, limits.
        progress: Called with what is being done, steps done, steps in all.

    Raises:
        InputError: a file or option that is not usable. A variant that cannot be built is a row that says why.
        MissingDependencyError: TensorRT is not installed.
    """
    options = options or BuildOptions()
    for precision in precisions:
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    request = BuildRequest(
        precisions=precisions,
        data=Path(data) if data else None,
        labels=Path(labels) if labels else None,
        options=options,
        progress=progress,
    )
    if options.backend == "torch-tensorrt":
        from redline.building.torch_model import build_torch

        result = build_torch(str(model), Path(out), request)
    else:
        result = build_file(Path(model), Path(out), request)
    write_whole(Path(out) / RESULT, json.dumps(result.to_json(), indent=2) + "\n")
    return result
