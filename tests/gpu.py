"""Which tests can run on this machine's GPU."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def _gpu() -> bool:
    if find_spec("cuda") is None:
        return False
    from redline.backends.nvidia import device_count

    return device_count() > 0


needs_tensorrt = pytest.mark.skipif(
    find_spec("tensorrt") is None or not _gpu(), reason="needs TensorRT and an NVIDIA GPU"
)
needs_cuda = pytest.mark.skipif(not _gpu(), reason="needs an NVIDIA GPU and cuda-bindings")
