"""A plan that came without Redline's description: what it takes and gives is read from the plan itself."""

from __future__ import annotations

from collections.abc import Iterable

from redline.backends.cuda import use_device
from redline.backends.nvidia import identity
from redline.backends.tensorrt.engine import LoadedEngine, Tensor
from redline.backends.tensorrt.library import Flavour, load_library
from redline.backends.tensorrt.session import EngineSession
from redline.core.tensor import Dim, Signature, TensorSpec


def open_plan(plan: bytes, *, name: str, flavour: Flavour = "tensorrt", device: int = 0) -> EngineSession:
    """Load a plan that another tool built; for which GPU and version only TensorRT itself can say.

    Args:
        plan: What TensorRT reads, without any header of the tool.
        name: Of the file, for messages.
        flavour: Which TensorRT built it.
        device: Index of the GPU.

    Raises:
        MissingDependencyError: TensorRT is not installed.
        DeviceError: there is no such GPU.
        EngineMismatchError: TensorRT refused it.
    """
    library = load_library(flavour)
    identity(device)  # says why where there is no GPU
    use_device(device)
    loaded = LoadedEngine(library, plan, name=name)
    return EngineSession(loaded, signature_of(loaded.tensors), device=device)


def signature_of(tensors: Iterable[Tensor]) -> Signature:
    """What an engine takes and gives; a first size that is dynamic is the batch."""
    tensors = tuple(tensors)
    return Signature(
        tuple(_spec(tensor) for tensor in tensors if tensor.is_input),
        tuple(_spec(tensor) for tensor in tensors if not tensor.is_input),
    )


def _spec(tensor: Tensor) -> TensorSpec:
    sizes: list[Dim] = [
        size if size >= 0 else ("batch" if axis == 0 else f"{tensor.name}_{axis}")
        for axis, size in enumerate(tensor.shape)
    ]
    return TensorSpec(tensor.name, tuple(sizes), tensor.dtype.name)
