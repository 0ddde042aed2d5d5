"""A torch module on an NVIDIA GPU as a session: host arrays in, host arrays out."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redline.core.artifact import Layers
from redline.core.errors import BuildError, DeviceError, InputError, UnsupportedError
from redline.core.session import Phases
from redline.core.tensor import Array, Signature
from redline.formats.torch_values import named_tensors

_MOST_SHAPES = 8
_WARM_UPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaOptions:
    """How a session computes.

    Attributes:
        device: The GPU.
        dtype: What floating-point inputs become; None leaves them as they are.
        channels_last: Whether images lie in memory with their channels last.
        tf32: Whether float32 convolutions and matrix products may round their inputs to TF32.
        cuda_graph: Whether the work of each input shape is recorded once and replayed.
    """

    device: torch.device
    dtype: torch.dtype | None = None
    channels_last: bool = False
    tf32: bool = False
    cuda_graph: bool = False


@dataclass(slots=True, eq=False)
class _Place:
    """Memory for one set of input shapes, with the recorded work where there is any."""

    staging: list[Tensor]
    inputs: list[Tensor]
    results: list[Tensor]
    graph: torch.cuda.CUDAGraph | None = None
    outputs: Sequence[Tensor] = ()


class CudaSession:
    """A function of GPU tensors that answers host arrays with host arrays; one thread at a time.

    Arrays go through page-locked memory that is allocated once for each input shape, in a stream of the session's own.
    The answers are fresh arrays. Whether TF32 is allowed is set anew at each call, as it is a switch of the process.
    """

    def __init__(self, run: Callable[..., Any], signature: Signature, layers: Layers, options: CudaOptions) -> None:
        """Wait until the module lies on the GPU, and make the stream."""
        self.signature = signature
        self.layers = layers
        self.precision_evidence: str | None = None
        self.versions = {"torch": str(torch.__version__)}
        self.notes: tuple[str, ...] = ()
        self._run: Callable[..., Any] | None = run
        self._options = options
        self._input_names = tuple(spec.name for spec in signature.inputs)
        self._output_types = tuple(_torch_type(spec.numpy_dtype) for spec in signature.outputs)
        self._places: OrderedDict[tuple[tuple[int, ...], ...], _Place] = OrderedDict()
        allow_tf32(allowed=False)
        torch.cuda.synchronize(options.device)
        self._stream = torch.cuda.Stream(options.device)  # type: ignore[no-untyped-call]

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once.

        Raises:
            DeviceError: the GPU's memory is full.
        """
        with self._in_stream(inputs):
            place = self._place(inputs)
            _upload(place, self._sources(place, inputs))
            _download(place, self._compute(place))
            self._stream.synchronize()
            return self._answer(place)

    def run_phases(self, inputs: Mapping[str, Array], /) -> tuple[dict[str, Array], Phases]:
        """Run once and say how long the GPU copied and computed, by its own clock.

        Copying into page-locked memory, which the host does before, is in none of them.
        """
        with self._in_stream(inputs):
            place = self._place(inputs)
            sources = self._sources(place, inputs)
            marks = _events(4)
            marks[0].record(self._stream)
            _upload(place, sources)
            marks[1].record(self._stream)
            outputs = self._compute(place)
            marks[2].record(self._stream)
            _download(place, outputs)
            marks[3].record(self._stream)
            self._stream.synchronize()
            seconds = _between(marks)
            answer = self._answer(place)
        return answer, Phases(host_to_device_s=seconds[0], compute_s=seconds[1], device_to_host_s=seconds[2])

    def device_times(self, inputs: Mapping[str, Array], calls: int) -> list[float]:
        """Seconds of each of ``calls`` calls one behind the other, on inputs that lie on the GPU already.

        Where the host launches more slowly than the GPU computes, the GPU's waiting is in them.
        """
        with self._in_stream(inputs):
            place = self._place(inputs)
            _upload(place, self._sources(place, inputs))
            for _ in range(_WARM_UPS):
                self._compute(place)
            marks = _events(calls + 1)
            marks[0].record(self._stream)
            for mark in marks[1:]:
                self._compute(place)
                mark.record(self._stream)
            self._stream.synchronize()
            return _between(marks)

    def allocator_peak_bytes(self) -> int:
        """The most of the GPU's memory that PyTorch gave out in this process, without what it held in reserve."""
        return torch.cuda.max_memory_allocated(self._options.device)

    def allocate_inputs(self, batch: int) -> dict[str, Array]:
        """Page-locked arrays for one batch, uninitialized: what is written into them needs no staging copy."""
        return {
            spec.name: torch.empty(spec.with_batch(batch), dtype=_torch_type(spec.numpy_dtype), pin_memory=True).numpy()
            for spec in self.signature.inputs
        }

    def lock_pages(self, array: Array) -> Callable[[], None] | None:
        """Page-lock an array that others made, as one shared with another process; None where CUDA refuses."""
        cudart: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        pointer = array.ctypes.data
        if int(cudart.cudaHostRegister(pointer, array.nbytes, 0)) != 0:
            return None

        def unlock() -> None:
            cudart.cudaHostUnregister(pointer)

        return unlock

    def close(self) -> None:
        """Free the module and the GPU's memory; again does nothing."""
        if self._run is None:
            return
        self._stream.synchronize()
        self._run = None
        self._places.clear()
        gc.collect()
        _drop_workspaces()
        with torch.cuda.device(self._options.device):
            torch.cuda.empty_cache()

    @contextmanager
    def _in_stream(self, inputs: Mapping[str, Array]) -> Iterator[None]:
        self.signature.check(inputs)
        if self._run is None:
            raise InputError("the session is closed; open it again")
        rounding = tf32(allowed=self._options.tf32)
        with gpu_errors(), torch.inference_mode(), torch.cuda.stream(self._stream), rounding:
            yield

    def _place(self, inputs: Mapping[str, Array]) -> _Place:
        key = tuple(inputs[name].shape for name in self._input_names)
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = self._prepare(inputs)
            while len(self._places) > _MOST_SHAPES:
                self._places.popitem(last=False)
        else:
            self._places.move_to_end(key)
        return found

    def _prepare(self, inputs: Mapping[str, Array]) -> _Place:
        """Make the memory, and let everything that happens at a first run happen now."""
        specs = self.signature.inputs
        shapes = [(inputs[spec.name].shape, _torch_type(spec.numpy_dtype)) for spec in specs]
        place = _Place(
            staging=[torch.empty(shape, dtype=dtype, pin_memory=True) for shape, dtype in shapes],
            inputs=[torch.empty(shape, dtype=dtype, device=self._options.device) for shape, dtype in shapes],
            results=[],
        )
        _upload(place, self._sources(place, inputs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._forward(place.inputs)
            if self._options.cuda_graph:
                self._record(place)
        self._stream.synchronize()
        return place

    def _record(self, place: _Place) -> None:
        """Record the work; cuBLAS gets a workspace of the recording's own, which nobody else can take back."""
        for _ in range(_WARM_UPS):
            self._forward(place.inputs)
        self._stream.synchronize()
        _drop_workspaces()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                place.outputs = self._forward(place.inputs)
        except RuntimeError as error:
            _leave_pool(self._options.device, pool)
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise BuildError(f"the model cannot be recorded as a CUDA graph ({reason}); open it without") from error
        finally:
            _drop_workspaces()
        place.graph = graph

    def _compute(self, place: _Place) -> Sequence[Tensor]:
        if place.graph is None:
            return self._forward(place.inputs)
        place.graph.replay()
        return place.outputs

    def _forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        if self._run is None:  # pragma: no cover
            raise InputError("the session is closed; open it again")
        value = self._run(*[self._converted(tensor) for tensor in tensors])
        found = [value] if isinstance(value, Tensor) else list(named_tensors(value, self._input_names).values())
        if len(found) != len(self._output_types):
            names = ", ".join(spec.name for spec in self.signature.outputs)
            raise InputError(f"the model answered with {len(found)} tensors, expected {names}")
        return [
            (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
            for tensor, dtype in zip(found, self._output_types, strict=True)
        ]

    def _converted(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        last = self._options.channels_last and tensor.ndim == 4
        layout = torch.channels_last if last else torch.preserve_format
        return tensor.to(dtype=self._options.dtype or tensor.dtype, memory_format=layout)

    def _sources(self, place: _Place, inputs: Mapping[str, Array]) -> list[Tensor]:
        """Page-locked tensors with the inputs: the caller's own where they are page-locked already."""
        sources = []
        for name, staging in zip(self._input_names, place.staging, strict=True):
            array = inputs[name]
            source = staging
            if not array.flags.writeable or not array.flags.c_contiguous:
                np.copyto(staging.numpy(), array)
            elif (tensor := torch.from_numpy(array)).is_pinned():
                source = tensor
            else:
                staging.copy_(tensor)  # by several threads, unlike NumPy
            sources.append(source)
        return sources

    def _answer(self, place: _Place) -> dict[str, Array]:
        return {
            spec.name: result.clone().numpy()
            for spec, result in zip(self.signature.outputs, place.results, strict=True)
        }


def require_gpu(device: torch.device) -> None:
    """Make sure that there is such a GPU.

    Raises:
        DeviceError: there is none that this PyTorch can use; says why.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        raise DeviceError(f"PyTorch {torch.__version__} is built without CUDA; install a build of PyTorch with CUDA")
    if not count:
        reason = f" ({str(told[0].message).partition('.')[0]})" if told else ""
        raise DeviceError(f"PyTorch {torch.__version__} finds no GPU that it can use{reason}; try nvidia-smi")
    if (device.index or 0) >= count:
        raise DeviceError(f"got device {device}, expected cuda:0{f' to cuda:{count - 1}' if count > 1 else ''}")


@contextmanager
def gpu_errors() -> Iterator[None]:
    """Say what to do where the GPU's memory is full.

    Raises:
        DeviceError: it is.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError("the GPU's memory is full; take a smaller batch, or close other sessions") from error


def require_ampere(device: torch.device, what: str) -> None:
    """Make sure that the GPU has the arithmetic that came with compute capability 8.0.

    Raises:
        UnsupportedError: it is older.
    """
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        name = torch.cuda.get_device_name(device)
        raise UnsupportedError(f"{name} has compute capability {major}.{minor}; {what} needs 8.0; take fp32 or fp16")


def gpu_platform(device: torch.device) -> dict[str, str]:
    """What the speed of a torch session on this GPU depends on."""
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "device": "cuda",
        "gpu": torch.cuda.get_device_name(device),
        "compute_capability": f"{major}.{minor}",
    }


def allow_tf32(*, allowed: bool) -> None:
    """Allow or forbid TF32 in this process, by the old switches and the new ones alike.

    PyTorch 2.9 brought ``fp32_precision`` beside ``allow_tf32``, and refuses to read the old switches where the two
    disagree; torch.compile reads them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 2.9 tells users of the old switches of the new ones, once
        _set_tf32(allowed=allowed)


def _set_tf32(*, allowed: bool) -> None:
    if allowed:
        torch.backends.cuda.matmul.allow_tf32 = True
    else:
        torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = allowed
    if hasattr(torch.backends.cudnn, "conv"):
        precision = "tf32" if allowed else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision
        torch.backends.cudnn.rnn.fp32_precision = precision  # type: ignore[attr-defined]


@contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Allow TF32 within a block, and forbid it after; forbidden, within it too."""
    _set_tf32(allowed=allowed)
    try:
        yield
    finally:
        if allowed:
            _set_tf32(allowed=False)


def _upload(place: _Place, sources: Sequence[Tensor]) -> None:
    for tensor, source in zip(place.inputs, sources, strict=True):
        tensor.copy_(source, non_blocking=True)


def _download(place: _Place, outputs: Sequence[Tensor]) -> None:
    if [result.shape for result in place.results] != [output.shape for output in outputs]:
        place.results = [torch.empty(output.shape, dtype=output.dtype, pin_memory=True) for output in outputs]
    for result, output in zip(place.results, outputs, strict=True):
        result.copy_(output, non_blocking=True)


def _events(count: int) -> list[torch.cuda.Event]:
    return [torch.cuda.Event(enable_timing=True) for _ in range(count)]  # type: ignore[no-untyped-call]


def _between(marks: Sequence[torch.cuda.Event]) -> list[float]:
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _leave_pool(device: torch.device, pool: tuple[int, int]) -> None:
    """Take the allocator out of a recording that failed, in which PyTorch leaves it; there is no public way."""
    with contextlib.suppress(Exception):
        if hasattr(torch._C, "_cuda_endAllocateToPool"):  # noqa: SLF001
            torch._C._cuda_endAllocateToPool(device.index, pool)  # noqa: SLF001
        else:  # before PyTorch 2.3
            torch._C._cuda_endAllocateCurrentStreamToPool(device.index)  # type: ignore[attr-defined]  # noqa: SLF001


def _drop_workspaces() -> None:
    """Let go of the memory that cuBLAS keeps for each stream; there is no public way."""
    torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001
