"""Where ``REDLINE_GPU_RESULTS`` names a file, the outcome of every test that needs a GPU is kept there as it comes.

    REDLINE_GPU_RESULTS=results/gpu/tests.jsonl pytest -m gpu

The first line has the conditions, each further one a test. A run that is stopped keeps what it has shown.
"""

from __future__ import annotations

import json
import os
import platform
import signal
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

# Where tests run in several processes, the one that hands them out is told every outcome.
_RESULTS = "" if "PYTEST_XDIST_WORKER" in os.environ else os.environ.get("REDLINE_GPU_RESULTS")
_PACKAGES = ("redline", "tensorrt", "tensorrt-bindings", "torch", "torch-tensorrt", "onnxruntime", "onnxruntime-gpu")


def pytest_sessionstart() -> None:
    # A shell that runs this in its background lets it ignore Ctrl-C, with each process that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _RESULTS:
        return
    from redline.backends.nvidia import find_gpus

    found: dict[str, Any] = {"kind": "conditions", "when": datetime.now(UTC).isoformat(timespec="seconds")}
    found["gpus"] = [
        {"name": gpu.name, "compute_capability": gpu.compute_capability, "driver": gpu.driver, "cuda": gpu.cuda}
        for gpu in find_gpus().gpus
    ]
    found["python"] = platform.python_version()
    found["versions"] = {name: version for name in _PACKAGES if (version := _version(name))}
    _keep(found)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not _RESULTS or "gpu" not in report.keywords:
        return
    if report.when == "call" or report.outcome != "passed":
        line: dict[str, Any] = {"kind": "test", "test": report.nodeid, "outcome": report.outcome}
        line["seconds"] = round(report.duration, 3)
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            line["reason"] = report.longrepr[2]
        elif report.outcome == "failed":
            line["reason"] = str(report.longrepr)[-2000:]
        _keep(line)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        module = {"tensorrt-bindings": "tensorrt"}.get(name)
        return str(__import__(module).__version__) if module and _importable(module) else None


def _importable(module: str) -> bool:
    try:
        __import__(module)
    except Exception:  # noqa: BLE001 (a broken wheel must not stop the tests)
        return False
    return True


def _keep(line: dict[str, Any]) -> None:
    path = Path(_RESULTS or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
