"""What an NVIDIA GPU reaches at best, measured by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import torch

_SIZE = 8192
_COPY_BYTES = 1 << 30
_CALLS = 10


def gpu_ceilings(size: int = _SIZE) -> dict[str, Any]:
    """Rates of one large product of random matrices in each type, and of copying the GPU's memory.

    Returns:
        ``gflops`` by precision, in 1e9 operations a second (two for each multiply-add); ``gbytes_per_s``, reads and
        writes counted; ``size`` of the matrices.
    """
    found = {}
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("fp16", torch.float16, False),
        ("int8", torch.int8, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            found[name] = 2 * size**3 / _seconds(_product(size, dtype)) / 1e9
        except RuntimeError:  # a GPU without such arithmetic
            continue
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * _COPY_BYTES / _seconds(lambda: target.copy_(source)) / 1e9
    return {"gflops": found, "gbytes_per_s": copied, "size": size}


def _product(size: int, dtype: torch.dtype) -> Callable[[], Any]:
    if dtype == torch.int8:
        left, right = (torch.randint(-128, 127, (size, size), dtype=dtype, device="cuda") for _ in range(2))
        return lambda: torch._int_mm(left, right.t())  # noqa: SLF001 (the only INT8 product that PyTorch has)
    left, right = (torch.randn(size, size, dtype=dtype, device="cuda") for _ in range(2))
    return lambda: torch.mm(left, right)


def _seconds(run: Callable[[], Any]) -> float:
    for _ in range(3):
        run()
    marks: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(_CALLS + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return median(float(before.elapsed_time(after)) / 1e3 for before, after in pairwise(marks))
