"""One way through an engine: buffers allocated once, and recorded work for each shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from redline.backends.cuda import (
    DeviceMemory,
    Event,
    Graph,
    PinnedMemory,
    Region,
    Stream,
    is_page_locked,
)
from redline.backends.tensorrt.engine import LoadedEngine, Shape, Shapes
from redline.core.errors import DeviceError, InputError
from redline.core.tensor import Array, Signature

_MOST_PLANS = 16
_LARGE_BYTES = 1 << 22
_COPIERS = 8
_PARTS = 16


@dataclass(slots=True, eq=False)
class Plan:
    """What is ready for one set of input shapes: a context, views of the staging memory, the recorded work.

    Attributes:
        graph: The recorded work; None where it was not wanted or cannot be recorded.
        runs: How often it ran; the first run is never recorded, as TensorRT prepares itself in it.
    """

    context: Any
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    graph: Graph | None = None
    recordable: bool = True
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Lines:
    """The streams of a call: one for all of it, or one for each part so that parts of different calls overlap.

    With a stream for each part, calls copy in turn: two copies at once would share the bus, and both come late.
    """

    upload: Stream
    compute: Stream
    download: Stream

    @classmethod
    def one(cls) -> Lines:
        """All in one stream: the least delay for a call alone."""
        stream = Stream()
        return cls(stream, stream, stream)

    @classmethod
    def three(cls) -> Lines:
        """A stream for each part: the most calls in a second."""
        return cls(Stream(), Stream(), Stream())

    def synchronize(self) -> None:
        """Wait until everything in them is done."""
        for stream in (self.upload, self.compute, self.download):
            stream.synchronize()

    def close(self) -> None:
        """Destroy them; again does nothing."""
        for stream in (self.upload, self.compute, self.download):
            stream.close()


class Shared:
    """What the lanes of a session share: the engine, the activations' memory, whose turn it is to compute."""

    def __init__(self, loaded: LoadedEngine, signature: Signature, *, record: bool) -> None:
        self.loaded, self.signature, self.record = loaded, signature, record
        self.alone, self.overlapped = Lines.one(), Lines.three()
        self.scratch = DeviceMemory(loaded.scratch_size)
        self.sizes = loaded.capacities(self.scratch, self.alone.compute)
        self.computed: Event | None = None
        self.copiers: ThreadPoolExecutor | None = None

    def staged(self, name: str, target: Array, source: Array) -> Iterator[Array]:
        """Copy an input into page-locked memory and yield what is done, part by part.

        A large array is copied by several threads, as one alone is slower than the bus, and each part can be on its
        way to the GPU while the next is copied.
        """
        if source.dtype != target.dtype:
            _narrow(name, target, source)
            yield target
            return
        if source.nbytes < _LARGE_BYTES or len(source) < 2:
            np.copyto(target, source)
            yield target
            return
        for part, copied in self._parted(target, source):
            copied.result()
            yield part

    def copied(self, source: Array, dtype: np.dtype[Any]) -> Array:
        """A copy as another type; by several threads where it is large, as fresh memory is slow to write."""
        if source.nbytes < _LARGE_BYTES or len(source) < 2:
            return source.astype(dtype)
        target = np.empty(source.shape, dtype)
        for _, copied in self._parted(target, source):
            copied.result()
        return target

    def _parted(self, target: Array, source: Array) -> list[tuple[Array, Future[None]]]:
        """Parts of a target with the copies into them that are under way."""
        if self.copiers is None:
            self.copiers = ThreadPoolExecutor(_COPIERS, thread_name_prefix="redline-copy")
        bounds = np.linspace(0, len(source), min(_PARTS, len(source)) + 1).astype(int)
        return [
            (target[start:end], self.copiers.submit(np.copyto, target[start:end], source[start:end], "unsafe"))
            for start, end in pairwise(bounds)
        ]

    def close(self) -> None:
        """Free what is shared, the engine excepted."""
        if self.copiers is not None:
            self.copiers.shutdown()
        self.alone.close()
        self.overlapped.close()
        self.scratch.close()


class Lane:
    """The buffers of one call at a time; several lanes overlap their copies with each other's computing."""

    def __init__(self, shared: Shared, regions: Mapping[str, Region], size: int) -> None:
        self._shared, self._regions = shared, regions
        self._device = DeviceMemory(size)
        self._host = PinnedMemory(size)
        self._plans: OrderedDict[Shapes, Plan] = OrderedDict()
        self._uploaded, self._computed, self._downloaded = Event(), Event(), Event()
        self._held: list[Array] = []

    def begin(self, inputs: Mapping[str, Array], lines: Lines) -> Plan:
        """Upload, compute and download, each in its stream; :meth:`collect` waits for the answer."""
        plan = self.plan(inputs)
        self.upload(plan, inputs, lines.upload)
        if lines.compute is not lines.upload:
            self._uploaded.record(lines.upload)
            lines.compute.wait(self._uploaded)
        self.compute(plan, lines.compute)
        if lines.download is not lines.compute:
            lines.download.wait(self._computed)
        self.download(plan, lines.download)
        return plan

    def plan(self, inputs: Mapping[str, Array]) -> Plan:
        """What is ready for the shapes of these inputs, made where it is not."""
        key = tuple(inputs[tensor.name].shape for tensor in self._shared.loaded.inputs)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._make({t.name: inputs[t.name].shape for t in self._shared.loaded.inputs})
            while len(self._plans) > _MOST_PLANS:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        return found

    def _make(self, shapes: dict[str, Shape]) -> Plan:
        loaded = self._shared.loaded
        profile = loaded.profile_for(shapes) if loaded.profiles else 0
        context = loaded.context(profile, shapes, self._shared.scratch, self._shared.alone.compute)
        all_shapes = {**shapes, **loaded.output_shapes(context)}
        views = {}
        for tensor in loaded.tensors:
            region = self._regions[tensor.name]
            context.set_tensor_address(tensor.name, self._device.pointer + region.offset)
            views[tensor.name] = self._host.view(region.offset, all_shapes[tensor.name], tensor.dtype)
        return Plan(
            context=context,
            inputs={tensor.name: views[tensor.name] for tensor in loaded.inputs},
            outputs={tensor.name: views[tensor.name] for tensor in loaded.outputs},
        )

    def upload(self, plan: Plan, inputs: Mapping[str, Array], stream: Stream) -> None:
        """Put the inputs on the GPU: straight from page-locked arrays, others through the staging memory."""
        for name, staging in plan.inputs.items():
            array = inputs[name]
            device = self._device.pointer + self._regions[name].offset
            if self._straight(array, staging):
                self._held.append(array)
                stream.upload(device, array.ctypes.data, staging.nbytes)
                continue
            for part in self._shared.staged(name, staging, array):
                stream.upload(device + part.ctypes.data - staging.ctypes.data, part.ctypes.data, part.nbytes)

    @staticmethod
    def _straight(array: Array, staging: Array) -> bool:
        large = staging.nbytes >= 1 << 16
        return large and array.dtype == staging.dtype and array.flags.c_contiguous and is_page_locked(array)

    def compute(self, plan: Plan, stream: Stream) -> None:
        """Run the engine after whoever else uses the activations' memory."""
        shared = self._shared
        if shared.computed is not None and shared.computed is not self._computed:
            stream.wait(shared.computed)
        self.enqueue(plan, stream)
        self._computed.record(stream)
        shared.computed = self._computed

    def enqueue(self, plan: Plan, stream: Stream) -> None:
        """Launch the engine's work and nothing else."""
        if plan.runs and plan.recordable and self._shared.record:
            plan.recordable = False
            plan.graph = self._record(plan, stream)
        if plan.graph is not None:
            plan.graph.launch(stream)
        else:
            self._execute(plan, stream)
        plan.runs += 1

    def _execute(self, plan: Plan, stream: Stream) -> None:
        if not plan.context.execute_async_v3(stream.handle):
            loaded = self._shared.loaded
            raise DeviceError(f"{loaded.name}: {loaded.library.told.reason('TensorRT could not run it')}")

    def _record(self, plan: Plan, stream: Stream) -> Graph | None:
        """Record the work once: replaying it costs one launch instead of one for each layer.

        None where something in the engine cannot be recorded.
        """
        if not getattr(plan.context, "is_stream_capturable", lambda _: True)(stream.handle):
            return None
        stream.synchronize()
        stream.begin_capture()
        try:
            self._execute(plan, stream)
            return stream.end_capture()
        except DeviceError:
            stream.abandon_capture()
            return None

    def download(self, plan: Plan, stream: Stream) -> None:
        """Start copying the outputs into the staging memory."""
        for name, staging in plan.outputs.items():
            stream.download(staging.ctypes.data, self._device.pointer + self._regions[name].offset, staging.nbytes)
        self._downloaded.record(stream)

    def collect(self, plan: Plan) -> dict[str, Array]:
        """Wait, and copy the outputs out: they are the caller's to keep."""
        self._downloaded.synchronize()
        self._held.clear()
        return {
            spec.name: self._shared.copied(plan.outputs[spec.name], spec.numpy_dtype)
            for spec in self._shared.signature.outputs
        }

    def close(self) -> None:
        """Free everything; nothing may be under way in any stream."""
        if self._shared.computed is self._computed:
            self._shared.computed = None
        self._plans.clear()
        self._device.close()


def _narrow(name: str, target: Array, source: Array) -> None:
    """Write int64 into an engine's int32, where the values fit."""
    if source.dtype.kind in "iu" and target.dtype.kind in "iu" and source.size:
        limits = np.iinfo(target.dtype)
        if source.min() < limits.min or source.max() > limits.max:
            raise InputError(f"input {name!r}: got values beyond {target.dtype}, which this TensorRT computes in")
    np.copyto(target, source, casting="unsafe")
