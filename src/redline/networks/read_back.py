"""In which precision a PyTorch module really computes: what it dispatches, and what products of that type keep.

The type of the weights says nothing: autocast within ``forward`` converts them, and oneDNN or cuBLAS may round float32
inputs, by a variable (``ONEDNN_DEFAULT_FPMATH_MODE``) of which no flag of PyTorch tells.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from redline.core.artifact import Layers, Precision
from redline.networks.modes import layers_of

_NAMES: Mapping[torch.dtype, Precision] = {
    torch.float32: "fp32",
    torch.float64: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.qint8: "int8",
    torch.quint8: "int8",
}
_CONVOLUTIONS = ("conv", "_conv", "mkldnn_conv", "slow_conv", "thnn_conv", "quantized::conv")
_PRODUCTS = (
    "addmm", "bmm", "baddbmm", "addbmm", "matmul", "linear", "addmv", "einsum", "scaled_dot_product",
    "_scaled_dot_product", "lstm", "gru", "rnn_", "mkldnn_rnn", "mkldnn_linear", "quantized::linear",
    "_native_multi_head", "tensordot", "inner", "linalg_multi_dot", "chain_matmul", "bilinear", "_trilinear",
)  # fmt: skip
# Of a small convolution oneDNN may take an exact kernel where it rounds in one of the usual size.
_SIZE, _CHANNELS, _PIXELS = 256, 64, 56
#: A significand of so many bits and more is that of FP32; of TF32 and FP16 it is 11 bits, of BF16 8.
_FULL_BITS, _HALF_BITS = 20, 10
_KINDS = ("conv", "matmul", "rnn")
_ONEDNN = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


@dataclass(frozen=True, slots=True)
class ReadBack:
    """In which precision a module computes.

    Attributes:
        layers: Its compute layers, by the precision of their products.
        evidence: How that is known, in a line.
        doubt: Why a module whose layers are FP32 may still round them; None where nothing lets it.
    """

    layers: Layers
    evidence: str
    doubt: str | None = None


def read_back(module: nn.Module, examples: Sequence[Tensor], device: torch.device) -> ReadBack:
    """What the module dispatches, and how many bits products of that type keep, on the device.

    Args:
        module: Called once, without autograd.
        examples: What it is called with, on the device.
        device: Where it computes.
    """
    by_weights = layers_of(module)
    seen = _dispatched(module, examples)
    # After the call: a model may set flags in its forward.
    bits = {"conv": _conv_bits(device), "product": _product_bits(device)}
    permitted = _permitted() if device.type == "cpu" else []
    counts: Counter[Precision] = Counter()
    for (kind, name), count in (seen or {}).items():
        counts[_rounded(bits[kind]) if name == "fp32" else name] += count
    told = Layers.of(counts)
    same = {precision for precision, _ in told.counts} == {precision for precision, _ in by_weights.counts}
    layers = by_weights if same or not told.counts else told
    kinds = ", ".join(f"{layer} {count}" for layer, count in told.counts) or "no layer that computes"
    known = f"dispatched {kinds}" if seen is not None else "by the weights alone, as a recorded call failed"
    evidence = f"{known}; products of float32 keep {bits['product']} bits, convolutions {bits['conv']}"
    return ReadBack(layers, "; ".join([evidence, *permitted]), "; ".join(permitted) or None)


def _rounded(bits: int) -> Precision:
    if bits >= _FULL_BITS:
        return "fp32"
    return "tf32" if bits >= _HALF_BITS else "bf16"


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what computes, by kind and by the coarsest type of what it is given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[tuple[str, Precision]] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled beneath it, and importing the compiler would take a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kind = _kind(str(func))
        given = [_NAMES[tensor.dtype] for tensor in _tensors(args) if tensor.dtype in _NAMES][:2]
        if kind is not None and str(func).startswith("quantized."):  # its weights are packed, and are no tensor
            self.seen[kind, "fp16" if "fp16" in str(func) else "int8"] += 1
        elif kind is not None and given:
            self.seen[kind, max(given, key=("fp32", "tf32", "fp16", "bf16", "int8").index)] += 1
        return func(*args, **(kwargs or {}))


def _kind(operation: str) -> str | None:
    """``aten.conv2d.default`` is a convolution; a copy or a sum is nothing."""
    name = operation.partition("aten.")[2].partition(".")[0] or operation.replace(".", "::", 1).partition(".")[0]
    if name.startswith(_CONVOLUTIONS):
        return "conv"
    return "product" if name in ("mm", "mv") or name.startswith(_PRODUCTS) else None


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    """Tensors among the arguments; einsum and its like are given a list of them."""
    flat = (one for arg in args for one in (arg if isinstance(arg, list | tuple) else [arg]))
    return [one for one in flat if isinstance(one, Tensor)]


def _dispatched(module: nn.Module, examples: Sequence[Tensor]) -> Counter[tuple[str, Precision]] | None:
    """What a call computes, None where it does not run; attention and encoder layers step by step, not as one."""
    recorder, fused = _Recorder(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), warnings.catch_warnings(), recorder:
            warnings.simplefilter("ignore")
            module(*[tensor.clone() for tensor in examples])
    except Exception:  # noqa: BLE001 (the session's own first call says what is wrong with it)
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return recorder.seen


def _product_bits(device: torch.device) -> int:
    """How many bits of a significand survive a product with the identity."""
    values = _full_significands((_SIZE, _SIZE), device)
    with torch.inference_mode():
        return _kept(values, values @ torch.eye(_SIZE, device=device))


def _conv_bits(device: torch.device) -> int:
    """The same of a 3x3 convolution whose kernel is the identity."""
    values = _full_significands((1, _CHANNELS, _PIXELS, _PIXELS), device)
    kernel = torch.zeros(_CHANNELS, _CHANNELS, 3, 3, device=device)
    kernel[range(_CHANNELS), range(_CHANNELS), 1, 1] = 1.0
    with torch.inference_mode():
        return _kept(values, nn.functional.conv2d(values, kernel, padding=1))


def _full_significands(shape: Sequence[int], device: torch.device) -> Tensor:
    """Numbers in [1, 2) of which every bit of the significand is in use somewhere."""
    generator = torch.Generator().manual_seed(0)
    return (1 + torch.rand(tuple(shape), generator=generator)).to(device)


def _kept(right: Tensor, given: Tensor) -> int:
    error = float(((given - right).abs() / right).max())
    return 24 if error == 0 else max(1, min(24, round(-math.log2(error))))


def _permitted() -> list[str]:
    """What lets oneDNN round float32 on a CPU, by this process's state; whether it does is the processor's matter."""
    told = [f"{name}={value}" for name in _ONEDNN if (value := os.environ.get(name, "")).upper() not in ("", "STRICT")]
    asked = {kind: getattr(getattr(torch.backends.mkldnn, kind, None), "fp32_precision", None) for kind in _KINDS}
    return told + [f"torch.backends.mkldnn.{kind}.fp32_precision is bf16" for kind in asked if asked[kind] == "bf16"]
