"""The CUDA runtime: memory, streams, events and graphs, through NVIDIA's own bindings and without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.core.errors import DeviceError
from redline.core.packages import missing
from redline.core.tensor import Array

try:
    from cuda.bindings import runtime
except ModuleNotFoundError as error:
    raise missing("cuda-bindings") from error

_FIXES = {
    35: "the NVIDIA driver is missing or older than this CUDA; install one (nvidia-smi shows the version)",
    100: "no NVIDIA GPU was found",
    2: "the GPU's memory is full; take a smaller batch, or close other sessions",
}


def check(result: tuple[Any, ...]) -> Any:
    """The values of a CUDA call, or its error as an exception.

    Raises:
        DeviceError: the call failed; says which error and, for the common ones, what to do.
    """
    code, *values = result
    if int(code) != 0:
        fix = _FIXES.get(int(code))
        told = runtime.cudaGetErrorString(code)[1]
        text = told.decode() if isinstance(told, bytes) else str(told)
        raise DeviceError(f"CUDA error {int(code)} ({text}){f': {fix}' if fix else ''}")
    return values[0] if len(values) == 1 else values


def memory_info() -> tuple[int, int]:
    """Free and total bytes of the current GPU."""
    free, total = check(runtime.cudaMemGetInfo())
    return int(free), int(total)


def use_device(index: int) -> None:
    """Make a GPU the current one of this thread."""
    check(runtime.cudaSetDevice(index))


def is_page_locked(array: Array) -> bool:
    """Whether the GPU can copy from this array by itself, without a staging copy."""
    code, attributes = runtime.cudaPointerGetAttributes(array.ctypes.data)
    if int(code) != 0:
        runtime.cudaGetLastError()
        return False
    return int(attributes.type) == int(runtime.cudaMemoryType.cudaMemoryTypeHost)


class DeviceMemory:
    """Bytes on the GPU, freed by :meth:`close` or with the object."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = int(check(runtime.cudaMalloc(max(size, 1))))

    def fill(self, array: Array) -> None:
        """Copy a host array into it, and wait until it is there."""
        contiguous = np.ascontiguousarray(array)
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(runtime.cudaMemcpy(self.pointer, contiguous.ctypes.data, contiguous.nbytes, kind))

    def close(self) -> None:
        """Give it back; again does nothing."""
        if self.pointer:
            runtime.cudaFree(self.pointer)
            self.pointer = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class StreamMemory:
    """Bytes on the GPU out of CUDA's pool, given and taken back in the order of a stream."""

    def __init__(self, size: int, stream: Stream) -> None:
        self.size, self._stream = size, stream
        self.pointer = int(check(runtime.cudaMallocAsync(max(size, 1), stream.handle)))

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            runtime.cudaFreeAsync(self.pointer, self._stream.handle)


class PinnedMemory:
    """Page-locked bytes on the host, from which the GPU copies by itself.

    An array of it keeps it alive, so that no view outlives its memory.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = int(check(runtime.cudaHostAlloc(max(size, 1), runtime.cudaHostAllocDefault)))

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (max(self.size, 1),), "typestr": "|u1", "data": (self.pointer, False), "version": 3}

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array over a part of it."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        flat: Array = np.asarray(self)[offset : offset + size]
        return flat.view(dtype).reshape(shape)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            runtime.cudaFreeHost(self.pointer)


def pinned_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A page-locked array, uninitialized, that frees itself."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return PinnedMemory(size).view(0, shape, dtype)


def lock_pages(array: Array) -> Callable[[], None] | None:
    """Page-lock the memory of a contiguous array where it is; what unlocks it, or None where CUDA refuses."""
    pointer = array.ctypes.data
    (code,) = runtime.cudaHostRegister(pointer, array.nbytes, runtime.cudaHostRegisterPortable)
    if int(code) != 0:
        runtime.cudaGetLastError()
        return None

    def unlock() -> None:
        runtime.cudaHostUnregister(pointer)

    return unlock


class Stream:
    """A queue of work on the GPU; ``handle`` is what other libraries take."""

    def __init__(self) -> None:
        self._stream = check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.handle = int(self._stream)

    def synchronize(self) -> None:
        """Wait until everything in it is done."""
        check(runtime.cudaStreamSynchronize(self.handle))

    def wait(self, event: Event) -> None:
        """Let what comes next in it wait for ``event``; the host does not wait."""
        check(runtime.cudaStreamWaitEvent(self.handle, event.handle, 0))

    def upload(self, device: int, host: int, size: int) -> None:
        """Copy from the host; asynchronous where the memory is page-locked."""
        check(runtime.cudaMemcpyAsync(device, host, size, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, self.handle))

    def download(self, host: int, device: int, size: int) -> None:
        """Copy to the host; asynchronous where the memory is page-locked."""
        check(runtime.cudaMemcpyAsync(host, device, size, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost, self.handle))

    def begin_capture(self) -> None:
        """Record what comes next instead of running it; calls of other threads go on as ever."""
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(runtime.cudaStreamBeginCapture(self.handle, mode))

    def end_capture(self) -> Graph:
        """What was recorded.

        Raises:
            DeviceError: something in it cannot be recorded.
        """
        return Graph(check(runtime.cudaStreamEndCapture(self.handle)))

    def abandon_capture(self) -> None:
        """Stop recording and forget what was recorded and the error that came of it."""
        code, graph = runtime.cudaStreamEndCapture(self.handle)
        if int(code) == 0 and int(graph):
            runtime.cudaGraphDestroy(graph)
        runtime.cudaGetLastError()

    def close(self) -> None:
        """Destroy it; again does nothing."""
        if self.handle:
            runtime.cudaStreamDestroy(self.handle)
            self.handle = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class Event:
    """A moment in a stream."""

    def __init__(self, *, timed: bool = False) -> None:
        flags = runtime.cudaEventDefault if timed else runtime.cudaEventDisableTiming
        self._event = check(runtime.cudaEventCreateWithFlags(flags))
        self.handle = int(self._event)

    def record(self, stream: Stream) -> None:
        """Let it be this moment of the stream."""
        check(runtime.cudaEventRecord(self.handle, stream.handle))

    def synchronize(self) -> None:
        """Wait until it has happened."""
        check(runtime.cudaEventSynchronize(self.handle))

    def hold_back(self, stream_handle: int) -> None:
        """Let another library's stream wait for it."""
        check(runtime.cudaStreamWaitEvent(stream_handle, self.handle, 0))

    def seconds_since(self, earlier: Event) -> float:
        """Device time between two timed events that have both happened; resolution 0.5 microseconds."""
        return float(check(runtime.cudaEventElapsedTime(earlier.handle, self.handle))) / 1e3

    def close(self) -> None:
        """Destroy it; again does nothing."""
        if self.handle:
            runtime.cudaEventDestroy(self.handle)
            self.handle = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class Graph:
    """Recorded work that is launched with one call."""

    def __init__(self, recorded: Any) -> None:
        try:
            self._graph = check(runtime.cudaGraphInstantiate(recorded, 0))
        finally:
            runtime.cudaGraphDestroy(recorded)

    def launch(self, stream: Stream) -> None:
        """Run all of it in ``stream``."""
        check(runtime.cudaGraphLaunch(self._graph, stream.handle))

    def close(self) -> None:
        """Destroy it; again does nothing."""
        if self._graph is not None:
            runtime.cudaGraphExecDestroy(self._graph)
            self._graph = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of a block of memory."""

    offset: int
    size: int


def lay_out(sizes: dict[str, int], *, alignment: int = 256) -> tuple[dict[str, Region], int]:
    """Regions one behind the other, and the size of all.

    >>> lay_out({"a": 5, "b": 300})
    ({'a': Region(offset=0, size=5), 'b': Region(offset=256, size=300)}, 768)
    """
    regions, end = {}, 0
    for name, size in sizes.items():
        regions[name] = Region(offset=end, size=size)
        end += -(-max(size, 1) // alignment) * alignment
    return regions, end
