"""The protocols that join everything: a loaded model that answers, and a runtime that makes one.

Protocols and not base classes, so that a backend, a remote worker, a torch module and a test's fake share a shape
and no code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from redline.core.artifact import Engine, OnnxModel
from redline.core.tensor import Array, Signature


@runtime_checkable
class Session(Protocol):
    """A model that is loaded and answers; used by one thread at a time, its outputs are the caller's to keep."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        ...

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once.

        Raises:
            SignatureError: the inputs do not match :attr:`signature`.
        """
        ...

    def close(self) -> None:
        """Free what it holds; calling it again does nothing."""
        ...


class Backend(Protocol):
    """A runtime: compiles a model for this machine and loads what it compiled."""

    @property
    def name(self) -> str:
        """Its key in the table of backends."""
        ...

    def platform(self) -> dict[str, str]:
        """What an engine of this backend depends on: library version, device, driver."""
        ...

    def compile(self, model: OnnxModel, directory: Path) -> Engine:
        """Make an engine in ``directory``.

        Raises:
            BuildError: the runtime refused the model.
            UnsupportedError: this backend or machine cannot run it at all.
        """
        ...

    def load(self, engine: Engine) -> Session:
        """Load an engine.

        Raises:
            EngineMismatchError: the engine was made for another platform.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Where one call's time went, in seconds."""

    host_to_device_s: float
    compute_s: float
    device_to_host_s: float


@runtime_checkable
class SupportsConcurrentCalls(Protocol):
    """A session that several threads may call at once."""

    @property
    def concurrent_calls(self) -> bool:
        """Whether that is so for the way it was opened."""
        ...


@runtime_checkable
class SupportsPhases(Protocol):
    """A session that can say where its time went."""

    def run_phases(self, inputs: Mapping[str, Array], /) -> tuple[dict[str, Array], Phases]:
        """Run once and split the time."""
        ...


@runtime_checkable
class SupportsDeviceTiming(Protocol):
    """A session that can say how long its device computes, by the device's own clock."""

    def device_times(self, inputs: Mapping[str, Array], calls: int) -> list[float]:
        """Seconds of each of ``calls`` calls one behind the other, on inputs that lie on the device already."""
        ...


@runtime_checkable
class SupportsAllocatorPeak(Protocol):
    """A session that can say how much memory of the device its own allocator gave out at most."""

    def allocator_peak_bytes(self) -> int:
        """Bytes, since the process began."""
        ...


@runtime_checkable
class SupportsProfiles(Protocol):
    """A session that was prepared for certain batch sizes."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The smallest, the usual and the largest of each profile, rising."""
        ...


@runtime_checkable
class SupportsStream(Protocol):
    """A session that copies batches in and out while it computes another."""

    def stream(self, batches: Iterable[Mapping[str, Array]], /) -> Iterator[dict[str, Array]]:
        """Answers in the order of the batches, the caller's to keep; a batch stays as it is until its answer has come.

        Several batches are asked for before the first answer comes.
        """
        ...


@runtime_checkable
class SupportsInputBuffers(Protocol):
    """A session that takes inputs fastest from arrays of its own making."""

    def allocate_inputs(self, batch: int) -> dict[str, Array]:
        """Arrays for one batch, uninitialized; from any thread."""
        ...


@runtime_checkable
class SupportsPageLocking(Protocol):
    """A session that takes inputs fastest from page-locked memory, and can lock memory of others' making."""

    def lock_pages(self, array: Array) -> Callable[[], None] | None:
        """Lock the pages of an array where they are; from any thread.

        Returns:
            What unlocks them, to be called before the memory goes; None where the system refuses, so that inputs in it
            are copied once more.
        """
        ...
