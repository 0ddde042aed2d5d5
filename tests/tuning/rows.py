"""Rows and studies made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from redline.measurement.summary import Row, Study


def row(variant: str, p50_s: float | None = 1e-3, **fields: Any) -> Row:
    """A row that ran and passed; its samples scatter by 1 % around ``p50_s``."""
    rng = np.random.default_rng(len(variant))
    windows = () if p50_s is None else tuple(tuple(p50_s * (1 + 0.01 * rng.random(5))) for _ in range(12))
    values: dict[str, Any] = {
        "title": variant.upper(),
        "backend": "onnxruntime",
        "requested": "fp32",
        "precision": "fp32",
        "layers_text": "fp32",
        "batch": 1,
        "p50_s": p50_s,
        "windows_s": windows,
        "passed": True,
        "max_abs": 1e-6,
        "cosine": 1.0,
        "top1_agreement": 1.0,
        "size_bytes": 1_000_000,
        "private_peak_bytes": 50_000_000,
    }
    return Row(variant=variant, **(values | fields))


def study(rows: Sequence[Row], *, depends: bool | None = True) -> Study:
    return Study(
        run={"data": {"verification": 100, "depends_on_input": depends}},
        rows=tuple(rows),
        artifacts=(),
        ceilings={},
        bandwidth=None,
        conclusion=None,
        warnings=(),
    )
