"""What a tune is for, and what it compares with."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from redline.variants import Variant

Objective = Literal["latency", "throughput", "memory", "size"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput", "memory", "size")
BASELINE, BASELINE_WITHOUT_TORCH = "torch-eager-fp32", "onnxruntime-fp32"


def with_control(variants: tuple[Variant, ...], baseline: str) -> tuple[Variant, ...]:
    """The variants and, after the baseline, the baseline once more."""
    found: list[Variant] = []
    for variant in variants:
        found.append(variant)
        if variant.name == baseline:
            found.append(replace(variant, name=f"{baseline}-control", title=f"{variant.title}, again", control=True))
    return tuple(found)
