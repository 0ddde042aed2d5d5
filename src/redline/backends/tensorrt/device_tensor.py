"""Tensors on the GPU that pass between libraries without a copy, by DLPack or the CUDA array interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.backends.cuda import Event, Stream, StreamMemory
from redline.core.errors import SignatureError
from redline.core.packages import missing
from redline.core.tensor import Array

try:
    from cuda.core import Buffer
    from cuda.core.utils import StridedMemoryView
except ModuleNotFoundError as error:
    raise missing("cuda-core") from error


@dataclass(frozen=True, slots=True)
class View:
    """Another library's tensor as the engine sees it; keeps it alive."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any


def device_view(name: str, tensor: Any, stream: Stream, device: int) -> View:
    """Look at a tensor on the GPU; work that ``stream`` does later sees what its producer has written.

    Raises:
        SignatureError: it is not on that GPU, not contiguous, or of no library that can share it.
    """
    if isinstance(tensor, np.ndarray):
        raise SignatureError(f"input {name!r}: got a NumPy array, expected one on the GPU; call the session with it")
    try:
        view = StridedMemoryView.from_any_interface(tensor, stream_ptr=stream.handle)
    except (BufferError, TypeError, AttributeError) as error:
        raise SignatureError(f"input {name!r}: got {type(tensor).__name__}, expected DLPack ({error})") from error
    if not view.is_device_accessible or view.device_id != device:
        raise SignatureError(f"input {name!r}: got a tensor on device {view.device_id}, expected GPU {device}")
    if view.strides is not None and tuple(view.strides) != _row_major(view.shape):
        raise SignatureError(f"input {name!r}: got strides {view.strides}, expected a contiguous tensor")
    return View(int(view.ptr), tuple(view.shape), np.dtype(view.dtype), (tensor, view))


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


class DeviceTensor:
    """An answer that stays on the GPU until somebody takes it; its memory goes back to CUDA's pool with it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> None:
        self.shape, self.dtype, self._stream = shape, dtype, stream
        self._memory = StreamMemory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, stream)
        self._event = Event()

    @property
    def pointer(self) -> int:
        """Its address on the GPU."""
        return self._memory.pointer

    def ready(self) -> None:
        """Note that what the stream holds now fills it."""
        self._event.record(self._stream)

    def numpy(self) -> Array:
        """A copy on the host."""
        copy = np.empty(self.shape, self.dtype)
        self._stream.download(copy.ctypes.data, self.pointer, copy.nbytes)
        self._stream.synchronize()
        return copy

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "version": 3,
            "stream": self._stream.handle,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._view().__dlpack_device__()  # type: ignore[no-any-return]

    def __dlpack__(self, *, stream: int | None = None, **arguments: Any) -> Any:
        """A capsule for ``from_dlpack``; the consumer's stream waits for the answer, the host does not."""
        if stream != -1:
            # 1 and None are CUDA's legacy default stream (handle 0 means the same to the runtime).
            self._event.hold_back(0 if stream in (None, 1) else stream)
        return self._view().__dlpack__(stream=-1, **arguments)

    def _view(self) -> Any:
        buffer = Buffer.from_handle(self.pointer, self._memory.size, owner=self._memory)
        return StridedMemoryView.from_buffer(buffer, self.shape, dtype=self.dtype)
