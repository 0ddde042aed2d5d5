"""A torch module as a function of tensors: on a device, in a type and layout, as it is, compiled or as TorchScript."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from redline.core.artifact import Layers
from redline.core.errors import BuildError, InputError, UnsupportedError
from redline.formats.torch_values import FlatOutputs
from redline.networks.load import TorchModel
from redline.networks.sources import first_line

Mode = Literal["eager", "compile", "torchscript"]
_COMPUTE_TARGETS = ("conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm", "matmul", "mm.", "bmm")
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.qint8: "int8"}


def device_of(name: str) -> torch.device:
    """A device by its name, a GPU with its index.

    Raises:
        InputError: it is neither the CPU nor a GPU of NVIDIA's.

    >>> device_of("cuda")
    device(type='cuda', index=0)
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"got device {name!r}, expected cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"got device {name!r}, expected cpu, cuda or cuda:1")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def prepared(module: nn.Module, device: torch.device, dtype: torch.dtype | None, *, channels_last: bool) -> nn.Module:
    """The module on a device, in a type and layout: a copy, but itself where nothing changes.

    Raises:
        UnsupportedError: a saved program was to get another type or layout.
    """
    saved = isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule)
    if saved and (dtype is not None or channels_last):
        wanted = _PRECISIONS[dtype] if dtype is not None else "channels_last"
        raise UnsupportedError(
            f"a saved program keeps its own types and layout; {wanted} needs the module that it was made from"
        )
    if device.type == "cpu" and dtype is None and not channels_last:
        return module
    moved = _saved_on(module, device) if saved else copy.deepcopy(module).to(device)
    if dtype is not None:
        moved = moved.to(dtype)
    if channels_last:
        moved = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def as_tf32(layers: Layers) -> Layers:
    """The same layers where float32 ones may round their inputs to TF32."""
    return Layers.of({"tf32" if precision == "fp32" else precision: count for precision, count in layers.counts})


def layers_of(module: nn.Module) -> Layers:
    """Count convolutions, linear, recurrent and attention layers by the type of their weights."""
    counts: Counter[str] = Counter()
    for layer in module.modules():
        kind = getattr(layer, "original_name", type(layer).__name__)
        compute = isinstance(layer, nn.Linear | nn.RNNBase | nn.MultiheadAttention | nn.modules.conv._ConvNd)  # noqa: SLF001
        if not compute and not (isinstance(layer, torch.jit.ScriptModule) and kind.startswith(("Conv", "Linear"))):
            continue
        weight = next(layer.parameters(recurse=False), None)
        if weight is not None:
            counts[_PRECISIONS.get(weight.dtype, "fp32")] += 1
    if not counts and isinstance(module, torch.fx.GraphModule):
        dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
        calls = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
        counts[_PRECISIONS.get(dtype, "fp32")] = sum(any(t in call for t in _COMPUTE_TARGETS) for call in calls)
    return Layers.of(counts)


def runner(
    mode: Mode, module: nn.Module, examples: Sequence[Tensor], model: TorchModel, device: torch.device
) -> Callable[..., Any]:
    """What the session is to call with tensors.

    Raises:
        BuildError: TorchScript cannot take it; torch.compile says so at its first call.
        UnsupportedError: this machine lacks what the mode needs.
    """
    match mode:
        case "compile":
            return _compiled(module, device)
        case "torchscript":
            return _torchscript(module, examples, model)
        case "eager":
            return module


def example_on(tensor: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """An example input on a device; only floating-point ones change their type."""
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def _saved_on(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a saved program on another device, with the tensors and devices that are written into it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript's end, and of copy's ways with a graph's parts
        if isinstance(module, torch.jit.ScriptModule):
            buffer = io.BytesIO()
            torch.jit.save(module, buffer)
            buffer.seek(0)
            return cast("nn.Module", torch.jit.load(buffer, map_location=device))  # type: ignore[no-untyped-call]
        moved = copy.deepcopy(module).to(device)
        for part in moved.modules():
            if isinstance(part, torch.fx.GraphModule):
                for node in part.graph.nodes:
                    if node.kwargs.get("device") is not None:
                        node.update_kwarg("device", device)
                part.recompile()
        return moved


def _compiled(module: nn.Module, device: torch.device) -> Callable[..., Any]:
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError("torch.compile does not compile TorchScript; give the module or a .pt2 file")
    # Importing these takes seconds and memory that the other modes should not be charged with.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config

    if device.type == "cuda":
        _require_triton()
    else:
        _require_cpp_compiler()
    # In this process: a pool of compilers would outlive the session and share its processor.
    config.compile_threads = 1
    compiled = torch.compile(module, dynamic=False, options={"freezing": True})

    def run(*tensors: Tensor) -> Any:
        try:
            return compiled(*tensors)
        except TorchDynamoException as error:
            cause = error.__cause__ or getattr(error, "inner_exception", None) or error
            raise BuildError(f"torch.compile failed: {type(cause).__name__}: {first_line(cause)}") from error

    return run


def _require_cpp_compiler() -> None:
    from torch._inductor import exc

    try:
        from torch._inductor.cpp_builder import get_cpp_compiler as find
    except ImportError:  # before PyTorch 2.5
        from torch._inductor.codecache import cpp_compiler as find  # type: ignore[attr-defined, no-redef]
    try:
        find()
    except (exc.InvalidCxxCompiler, OSError) as error:
        raise UnsupportedError("torch.compile needs a C++ compiler (g++ or clang++), and there is none") from error


def _require_triton() -> None:
    if importlib.util.find_spec("triton") is not None:
        return
    try:
        needs = importlib.metadata.requires("torch") or []
    except importlib.metadata.PackageNotFoundError:
        needs = []
    wanted = next((line.partition(";")[0].strip() for line in needs if line.startswith("triton")), "triton")
    raise UnsupportedError(f"torch.compile on a GPU needs Triton, and there is none; type: pip install '{wanted}'")


def _torchscript(module: nn.Module, examples: Sequence[Tensor], model: TorchModel) -> Callable[..., Any]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        scripted = module if isinstance(module, torch.jit.ScriptModule) else _scripted(module, examples, model)
        try:
            frozen = torch.jit.freeze(scripted.eval())
        except RuntimeError:
            frozen = scripted  # it was frozen before it was saved
        try:
            return cast("Callable[..., Any]", torch.jit.optimize_for_inference(frozen))
        except RuntimeError:
            return cast("Callable[..., Any]", frozen)


def _scripted(module: nn.Module, examples: Sequence[Tensor], model: TorchModel) -> Any:
    flat = FlatOutputs(module, model.input_names)
    try:
        return torch.jit.trace(flat, tuple(examples), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    except Exception as traced:  # noqa: BLE001 (whatever the user's code raises under the tracer)
        try:
            return torch.jit.script(module)
        except Exception as error:
            raise BuildError(
                f"TorchScript can neither trace it ({first_line(traced)}) nor script it ({first_line(error)})"
            ) from error
