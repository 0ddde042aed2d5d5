"""From a trained PyTorch vision model to a verified, measured, recommended deployment.

Every command of the command line is a function here, loaded when it is first asked for::

    import redline

    result = redline.tune("resnet18", "out")
    redline.quantize("model.onnx", "model_int8.onnx", mode="static", data="images/")

Importing this package loads no runtime (no torch, onnx, onnxruntime, openvino or tensorrt).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redline.commands.bench import bench as bench
    from redline.commands.build import build as build
    from redline.commands.compare import compare as compare
    from redline.commands.doctor import doctor as doctor
    from redline.commands.export import export as export
    from redline.commands.export_triton import export_triton as export_triton
    from redline.commands.loadtest import loadtest as loadtest
    from redline.commands.models import models as models
    from redline.commands.optimize import optimize as optimize
    from redline.commands.quantize import quantize as quantize
    from redline.commands.report import report as report
    from redline.commands.run import run as run
    from redline.commands.serve import serve as serve
    from redline.commands.tune import tune as tune
    from redline.commands.verify import verify as verify
    from redline.core.session import Session as Session

__version__ = "0.2.0"

_PUBLIC = {
    "Session": "redline.core.session",
    "bench": "redline.commands.bench",
    "build": "redline.commands.build",
    "compare": "redline.commands.compare",
    "doctor": "redline.commands.doctor",
    "export": "redline.commands.export",
    "export_triton": "redline.commands.export_triton",
    "loadtest": "redline.commands.loadtest",
    "models": "redline.commands.models",
    "optimize": "redline.commands.optimize",
    "quantize": "redline.commands.quantize",
    "report": "redline.commands.report",
    "run": "redline.commands.run",
    "serve": "redline.commands.serve",
    "tune": "redline.commands.tune",
    "verify": "redline.commands.verify",
}
__all__ = [
    "Session",
    "bench",
    "build",
    "compare",
    "doctor",
    "export",
    "export_triton",
    "loadtest",
    "models",
    "optimize",
    "quantize",
    "report",
    "run",
    "serve",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'redline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
