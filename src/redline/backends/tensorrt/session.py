"""An engine that is loaded and answers: from host arrays, from GPU tensors, or from a stream of batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from redline.backends.cuda import Event, lay_out, lock_pages, pinned_array, use_device
from redline.backends.tensorrt.device_tensor import DeviceTensor, device_view
from redline.backends.tensorrt.engine import LoadedEngine, Shapes
from redline.backends.tensorrt.lane import Lane, Plan, Shared
from redline.core.errors import DeviceError, InputError, SignatureError
from redline.core.session import Phases
from redline.core.tensor import Array, Signature

_LANES = 3
_MOST_SHAPES = 16


class EngineSession:
    """A TensorRT engine ready to run; one thread at a time (see :class:`redline.backends.tensorrt.pool.SessionPool`).

    Every buffer is allocated once, for the largest shapes of any profile. The second call at a shape records the
    engine's work as a CUDA graph, which later calls at that shape replay.
    """

    def __init__(
        self, loaded: LoadedEngine, signature: Signature, *, record: bool = True, device: int = 0, owner: bool = True
    ) -> None:
        """Make the buffers.

        Args:
            loaded: The engine.
            signature: The model's names and types; an engine may compute in int32 what the model calls int64.
            record: Whether to record and replay CUDA graphs.
            device: Index of the GPU.
            owner: Whether closing this closes the engine too.
        """
        self.signature = signature
        self._loaded: LoadedEngine | None = loaded
        self._owner, self._device_index = owner, device
        self._shared = Shared(loaded, signature, record=record)
        self._regions, self._size = lay_out(self._shared.sizes)
        self._lanes = [Lane(self._shared, self._regions, self._size)]
        self._on_device: dict[Shapes, Any] = {}
        self._turn = threading.Lock()

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once; the outputs are fresh arrays."""
        self.signature.check(inputs)
        with self._in_turn():
            lane = self._lanes[0]
            return lane.collect(lane.begin(inputs, self._shared.alone))

    def run_phases(self, inputs: Mapping[str, Array], /) -> tuple[dict[str, Array], Phases]:
        """Run once and say how long the GPU copied and computed, by its own clock.

        Copying into page-locked memory, which the host does before, is in none of them.
        """
        self.signature.check(inputs)
        with self._in_turn():
            lane, stream = self._lanes[0], self._shared.alone.compute
            marks = [Event(timed=True) for _ in range(4)]
            plan = lane.plan(inputs)
            marks[0].record(stream)
            lane.upload(plan, inputs, stream)
            marks[1].record(stream)
            lane.compute(plan, stream)
            marks[2].record(stream)
            lane.download(plan, stream)
            marks[3].record(stream)
            stream.synchronize()
            outputs = lane.collect(plan)
            seconds = [after.seconds_since(before) for before, after in pairwise(marks)]
        return outputs, Phases(host_to_device_s=seconds[0], compute_s=seconds[1], device_to_host_s=seconds[2])

    def device_times(self, inputs: Mapping[str, Array], calls: int) -> list[float]:
        """Seconds that the GPU computes, of ``calls`` calls one behind the other on inputs that lie there already."""
        self.signature.check(inputs)
        with self._in_turn():
            lane, stream = self._lanes[0], self._shared.alone.compute
            plan = lane.plan(inputs)
            lane.upload(plan, inputs, stream)
            for _ in range(3):
                lane.compute(plan, stream)
            marks = [Event(timed=True) for _ in range(calls + 1)]
            marks[0].record(stream)
            for mark in marks[1:]:
                lane.enqueue(plan, stream)
                mark.record(stream)
            lane.download(plan, stream)
            lane.collect(plan)
            return [after.seconds_since(before) for before, after in pairwise(marks)]

    def stream(self, batches: Iterable[Mapping[str, Array]], /) -> Iterator[dict[str, Array]]:
        """Run many batches, copying one in and one out while another computes; answers come in order.

        A batch must stay as it is until its answer has come. Page-locked arrays (:meth:`allocate_inputs`) are copied
        by the GPU alone.
        """
        with self._in_turn():
            while len(self._lanes) < _LANES:
                self._lanes.append(Lane(self._shared, self._regions, self._size))
            under_way: deque[tuple[Lane, Plan]] = deque()
            try:
                for index, inputs in enumerate(batches):
                    self.signature.check(inputs)
                    if len(under_way) == _LANES:
                        lane, plan = under_way.popleft()
                        yield lane.collect(plan)
                    lane = self._lanes[index % _LANES]
                    under_way.append((lane, lane.begin(inputs, self._shared.overlapped)))
                while under_way:
                    lane, plan = under_way.popleft()
                    yield lane.collect(plan)
            finally:
                self._shared.overlapped.synchronize()

    def run_on_device(self, inputs: Mapping[str, Any], /) -> dict[str, DeviceTensor]:
        """Run on tensors that lie on the GPU, with no copy; the answers lie there too.

        Args:
            inputs: Anything with DLPack or the CUDA array interface (torch, CuPy, an earlier answer), contiguous, of
                the engine's own types.

        Raises:
            SignatureError: a name, type or shape does not fit, or a tensor is not on this GPU or not contiguous.
        """
        with self._in_turn():
            stream = self._shared.alone.compute
            views = {name: device_view(name, tensor, stream, self._device_index) for name, tensor in inputs.items()}
            self.signature.check(views)
            loaded = self._shared.loaded
            for tensor in loaded.inputs:
                if views[tensor.name].dtype != tensor.dtype:
                    raise SignatureError(
                        f"input {tensor.name!r}: got {views[tensor.name].dtype} on the GPU, expected the engine's own "
                        f"{tensor.dtype}"
                    )
            context = self._device_context(views)
            for name, view in views.items():
                context.set_tensor_address(name, view.pointer)
            shapes = loaded.output_shapes(context)
            outputs = {t.name: DeviceTensor(shapes[t.name], t.dtype, stream) for t in loaded.outputs}
            for name, answer in outputs.items():
                context.set_tensor_address(name, answer.pointer)
            if self._shared.computed is not None:
                stream.wait(self._shared.computed)
            if not context.execute_async_v3(stream.handle):
                raise DeviceError(f"{loaded.name}: {loaded.library.told.reason('TensorRT could not run it')}")
            self._shared.computed = Event()
            self._shared.computed.record(stream)
            for answer in outputs.values():
                answer.ready()
            return outputs

    def _device_context(self, views: Mapping[str, Any]) -> Any:
        loaded = self._shared.loaded
        shapes = {tensor.name: tuple(views[tensor.name].shape) for tensor in loaded.inputs}
        key = tuple(shapes.values())
        if key not in self._on_device:
            profile = loaded.profile_for(shapes) if loaded.profiles else 0
            self._on_device[key] = loaded.context(profile, shapes, self._shared.scratch, self._shared.alone.compute)
            if len(self._on_device) > _MOST_SHAPES:
                self._on_device.pop(next(iter(self._on_device)))
        return self._on_device[key]

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The smallest, the usual and the largest batch of each profile, rising."""
        first = self._shared.loaded.inputs[0] if self._shared.loaded.inputs else None
        if first is None or not first.shape:
            return (1,)
        named = [profile[first.name] for profile in self._shared.loaded.profiles]
        shapes = [shape for one in named for shape in (one.smallest, one.usual, one.largest)]
        return tuple(sorted({shape[0] for shape in shapes})) or (first.shape[0],)

    def allocate_inputs(self, batch: int) -> dict[str, Array]:
        """Page-locked arrays for one batch, uninitialized: what is written into them needs no staging copy.

        Any thread may ask for them, whatever the session is doing.
        """
        use_device(self._device_index)
        return {spec.name: pinned_array(spec.with_batch(batch), spec.numpy_dtype) for spec in self.signature.inputs}

    def lock_pages(self, array: Array) -> Callable[[], None] | None:
        """Page-lock an array that others made, as one shared with another process; what unlocks it.

        None where CUDA refuses: inputs in it then go through the staging memory.
        """
        use_device(self._device_index)
        return lock_pages(array)

    def warm(self, inputs: Mapping[str, Array]) -> None:
        """Run at these shapes until nothing more is to be prepared."""
        for _ in range(3):
            self(inputs)

    def close(self) -> None:
        """Free its memory, and the engine where it is the owner; again does nothing."""
        if self._loaded is None:
            return
        with self._in_turn():
            self._shared.alone.synchronize()
            self._shared.overlapped.synchronize()
            self._on_device.clear()
            for lane in self._lanes:
                lane.close()
            self._lanes.clear()
            self._shared.close()
            if self._owner:
                self._loaded.close()
            self._loaded = None

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            raise InputError("the session is in use by another thread or an unfinished stream; take a pool of sessions")
        try:
            if self._loaded is None:
                raise InputError("the session is closed; open it again")
            use_device(self._device_index)
            yield
        finally:
            self._turn.release()
