"""A model loaded in ONNX Runtime on a GPU."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from redline.backends.ort_providers import TENSORRT, Provider, placement
from redline.backends.refusals import reason_of
from redline.backends.tensorrt.profiles import Range
from redline.core.errors import DeviceError, InputError, MissingDependencyError, SignatureError
from redline.core.session import Phases
from redline.core.tensor import Array, Signature

if TYPE_CHECKING:
    from redline.backends.cuda import Stream

Placement = Mapping[str, Mapping[str, int]]
_logger = logging.getLogger(__name__)
_WARM_UP = 3


def compute_stream(device: int) -> Stream | None:
    """A stream of ours for the runtime to compute in, so that events can time it.

    None where cuda-bindings is missing, or is for a newer CUDA than the driver's.
    """
    try:
        from redline.backends.cuda import Stream, use_device

        use_device(device)
        return Stream()
    except (MissingDependencyError, DeviceError):
        return None


def elsewhere(provider: str, nodes: Placement | None) -> dict[str, int] | None:
    """How many nodes of which operator run on another provider than this; None where the runtime does not say."""
    if nodes is None:
        return None
    found: Counter[str] = Counter()
    for name, operators in nodes.items():
        if name != provider:
            found.update(operators)
    return dict(found)


def describe_elsewhere(provider: str, nodes: Placement | None) -> str:
    """Where the nodes run that do not run on this provider, in words.

    >>> describe_elsewhere("CUDAExecutionProvider", {"CUDAExecutionProvider": {"Conv": 9}, "CPUExecutionProvider":
    ... {"NonMaxSuppression": 1, "Shape": 2}})
    '3 of 12 nodes on the CPU (Shape 2, NonMaxSuppression 1)'
    """
    if nodes is None:
        return "not known: ONNX Runtime says it since 1.24"
    total = sum(sum(operators.values()) for operators in nodes.values())
    parts = []
    for name, operators in sorted(nodes.items()):
        if name != provider and operators:
            told = ", ".join(f"{kind} {count}" for kind, count in Counter(operators).most_common())
            where = "the CPU" if name.startswith("CPU") else name.removesuffix("ExecutionProvider")
            parts.append(f"{sum(operators.values())} of {total} nodes on {where} ({told})")
    return "; ".join(parts)


class OrtGpuSession:
    """A loaded model; one thread at a time.

    Attributes:
        fallen_back: How many nodes of which operator do not run on the session's own provider; empty where all do,
            None where this ONNX Runtime (before 1.24) does not say.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        signature: Signature,
        provider: Provider,
        *,
        device: int = 0,
        stream: Stream | None = None,
    ) -> None:
        """Take it over.

        Args:
            session: A session that has ``provider``.
            signature: The model's.
            provider: Where the nodes are meant to run.
            device: Index of the GPU.
            stream: The stream that the session was told to compute in, if any; closed with this.
        """
        self.signature = signature
        nodes = placement(session)
        self.fallen_back = elsewhere(provider, nodes)
        if self.fallen_back != {}:
            _logger.warning("%s", describe_elsewhere(provider, nodes))
        self._session: ort.InferenceSession | None = session
        self._device, self._stream = device, stream
        self._names = [spec.name for spec in signature.outputs]

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once; the outputs are fresh arrays."""
        session = self._ready(inputs)
        try:
            return dict(zip(self._names, session.run(self._names, inputs), strict=True))
        except Exception as error:
            raise DeviceError(reason_of(error)) from error

    def run_phases(self, inputs: Mapping[str, Array], /) -> tuple[dict[str, Array], Phases]:
        """Run once with inputs and outputs bound to the GPU, and split the time by the host's clock.

        The runtime copies by itself and waits after each step, so each phase holds the host's part of it too: the
        making of the tensors, and the launching of the work.
        """
        session = self._ready(inputs)
        try:
            marks = [perf_counter()]
            binding = self._bind(session, inputs)
            marks.append(perf_counter())
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            marks.append(perf_counter())
            outputs = dict(zip(self._names, binding.copy_outputs_to_cpu(), strict=True))
            marks.append(perf_counter())
        except Exception as error:
            raise DeviceError(reason_of(error)) from error
        seconds = [after - before for before, after in pairwise(marks)]
        return outputs, Phases(host_to_device_s=seconds[0], compute_s=seconds[1], device_to_host_s=seconds[2])

    def device_times(self, inputs: Mapping[str, Array], calls: int) -> list[float]:
        """Seconds that the GPU computes, of ``calls`` calls on inputs that lie there already.

        With cuda-bindings the calls go into one stream, one behind the other, and CUDA events in that stream time
        them. Without, the host's clock times each call and its wait, so launching counts as computing.
        """
        session = self._ready(inputs)
        try:
            binding = self._bind(session, inputs)
            for _ in range(_WARM_UP):
                session.run_with_iobinding(binding)
            for name, value in zip(self._names, binding.get_outputs(), strict=True):
                binding.bind_ortvalue_output(name, value)
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            if self._stream is None:
                return _times_by_host(session, binding, calls)
            return _times_by_events(session, binding, calls, self._stream)
        except DeviceError:
            raise
        except Exception as error:
            raise DeviceError(reason_of(error)) from error

    def close(self) -> None:
        """Free the model and its stream; again does nothing."""
        self._session = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _ready(self, inputs: Mapping[str, Array]) -> ort.InferenceSession:
        self.signature.check(inputs)
        if self._session is None:
            raise InputError("the session is closed; open it again")
        return self._session

    def _bind(self, session: ort.InferenceSession, inputs: Mapping[str, Array]) -> Any:
        binding = session.io_binding()
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", self._device)
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, "cuda", self._device)
        binding.synchronize_inputs()
        return binding


class OrtTensorRtSession(OrtGpuSession):
    """A loaded model whose engines take the shapes of one profile."""

    def __init__(
        self,
        session: ort.InferenceSession,
        signature: Signature,
        ranges: Mapping[str, Range],
        *,
        device: int = 0,
        stream: Stream | None = None,
    ) -> None:
        """Take it over; ``ranges`` has the shapes that each dynamic input may have."""
        super().__init__(session, signature, TENSORRT, device=device, stream=stream)
        self._ranges = dict(ranges)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The smallest, the usual and the largest that the profile has, rising."""
        found = {
            shape[0] for limits in self._ranges.values() for shape in (limits.smallest, limits.usual, limits.largest)
        }
        return tuple(sorted(found))

    def _ready(self, inputs: Mapping[str, Array]) -> ort.InferenceSession:
        session = super()._ready(inputs)
        for name, limits in self._ranges.items():
            if not limits.holds(inputs[name].shape):
                raise SignatureError(
                    f"input {name!r}: got shape {inputs[name].shape}, expected one that this engine's profile takes "
                    f"({limits}); build it with a wider profile"
                )
        return session


def _times_by_host(session: ort.InferenceSession, binding: Any, calls: int) -> list[float]:
    marks = [perf_counter()]
    for _ in range(calls):
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        marks.append(perf_counter())
    return [after - before for before, after in pairwise(marks)]


def _times_by_events(session: ort.InferenceSession, binding: Any, calls: int, stream: Stream) -> list[float]:
    from redline.backends.cuda import Event

    unwaited = ort.RunOptions()
    unwaited.add_run_config_entry("disable_synchronize_execution_providers", "1")
    marks = [Event(timed=True) for _ in range(calls + 1)]
    marks[0].record(stream)
    for mark in marks[1:]:
        session.run_with_iobinding(binding, unwaited)
        mark.record(stream)
    stream.synchronize()
    return [after.seconds_since(before) for before, after in pairwise(marks)]
