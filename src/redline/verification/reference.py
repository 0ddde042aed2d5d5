"""A reference is what others are held to: it must be what it is called."""

from __future__ import annotations

from redline.core.artifact import Layers
from redline.core.errors import InputError

_FULL = ("fp32", "none")
_HOW = (
    "take out autocast and half types, set torch.set_float32_matmul_precision('highest') and unset "
    "ONEDNN_DEFAULT_FPMATH_MODE"
)


def require_fp32(title: str, layers: Layers, *, evidence: str | None = None, doubt: str | None = None) -> None:
    """Refuse a reference that computes in less than FP32, or of which that is not known.

    Args:
        title: Its name in the message.
        layers: By the precision that they compute in.
        evidence: How that is known.
        doubt: Why layers that are FP32 may still round their inputs.

    Raises:
        InputError: it is not FP32; says what it is, how that is known and what to do.
    """
    coarse = [f"{count} in {precision}" for precision, count in layers.counts if precision not in _FULL]
    if coarse:
        total = sum(count for _, count in layers.counts)
        found = f"of its {total} layers {', '.join(coarse)}"
    elif doubt:
        found = f"its float32 layers may round to BF16: {doubt}"
    else:
        return
    known = f" ({evidence})" if evidence and coarse else ""
    raise InputError(f"{title} is the FP32 reference, but {found}{known}; {_HOW}")
