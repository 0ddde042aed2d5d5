"""Importing does nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "nncf", "vl_convert")


@pytest.mark.parametrize(
    "module",
    [
        "redline",
        "redline.cli",
        "redline.measurement.worker",
        "redline.verification.compare",
        "redline.study.plan",
        "redline.variants",
    ],
)
def test_import_leaves_the_runtimes_alone(module: str) -> None:
    code = f"import sys, {module}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    import redline

    for name in redline.__all__:
        assert getattr(redline, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = redline.nonsense
