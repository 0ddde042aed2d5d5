"""Processes that read: many at once, where threads of one interpreter would wait for each other.

A process of this kind is given a batch to fill that it shares with this one; between the two go places and no pixels.
One that dies, as by a file that breaks a decoder, is started anew, and the window that it died of is told of.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, cast, runtime_checkable

from redline.core.errors import InputError, WorkerError
from redline.core.host import available_cores
from redline.core.shared_arrays import SharedBatches
from redline.measurement.worker import ChildProcess, Source, thread_environment
from scale.pipeline.reading_process import Filled, FillOrder
from scale.pipeline.retrying import reason_of
from scale.pipeline.run_options import RunOptions
from scale.pipeline.runners import Overlapping, Runner, Shareable
from scale.slides.opening import Reader

_FILL = "scale.pipeline.reading_process:fill"
# A batch on a slow network drive may take its time; a process that hangs is not waited for all night.
_PATIENCE_S = 600.0
# A file that breaks its decoder at so many places is not worth going on with.
_MOST_DEATHS = 20
# Readers that open a file again for themselves; a plain image would be held whole in each process.
_OPENED_AGAIN: tuple[Reader, ...] = ("tiled", "openslide", "cucim")
# One core calls the models, others make detections of their answers.
_OTHER_CORES = 2
_LEAST_CORES = 4


@runtime_checkable
class Named(Protocol):
    """A slide that other processes can open for themselves."""

    @property
    def path(self) -> os.PathLike[str]:
        """The file."""
        ...

    @property
    def reader(self) -> str:
        """Which of the readers opened it."""
        ...


class Buffer:
    """A batch that is shared with the readers."""

    def __init__(self, runner: Shareable, rows: int) -> None:
        """Raises OSError where there is no memory."""
        self._shared = SharedBatches.like([runner.preparer.allocate(rows)])
        (self.arrays,) = self._shared.batches
        self.handle = self._shared.handle
        self._unlocks = [unlock for array in self.arrays.values() if (unlock := runner.lock_pages(array)) is not None]

    def close(self) -> None:
        """Let go of the memory."""
        for unlock in self._unlocks:
            unlock()
        self._unlocks.clear()
        self.arrays = {}
        self._shared.close()


class ReaderPool:
    """A number of processes; each is used by one thread at a time."""

    def __init__(self, count: int) -> None:
        """Start them; what they load is loaded while this process goes on."""
        self._readers = [_Reader(self._died) for _ in range(count)]
        self._buffers: list[Buffer] = []
        self._free: dict[tuple[str, int], deque[Buffer]] = {}
        self._lock = threading.Lock()
        self._deaths = 0

    def __len__(self) -> int:
        return len(self._readers)

    def reads(self, slide: object) -> bool:
        """Whether the processes can open a slide for themselves."""
        return isinstance(slide, Named) and slide.reader in _OPENED_AGAIN

    def take(self, runner: Shareable, form: str, rows: int) -> Buffer:
        """A batch that nobody uses, for models of that form; :meth:`give` it back."""
        with self._lock:
            free = self._free.setdefault((form, rows), deque())
            if free:
                return free.pop()
        buffer = Buffer(runner, rows)
        with self._lock:
            self._buffers.append(buffer)
        return buffer

    def give(self, form: str, rows: int, buffer: Buffer) -> None:
        """Take a batch back."""
        with self._lock:
            self._free[form, rows].append(buffer)

    def fill(self, reader: int, order: FillOrder) -> Filled:
        """Have one of the processes fill a batch.

        Raises:
            WorkerError: the processes keep dying.
            OSError: there is no memory.
        """
        return self._readers[reader].fill(order)

    def close(self) -> None:
        """End the processes and let go of the batches."""
        for reader in self._readers:
            reader.close()
        for buffer in self._buffers:
            buffer.close()
        self._buffers.clear()
        self._free.clear()

    def _died(self, error: WorkerError) -> None:
        with self._lock:
            self._deaths += 1
            often = self._deaths > _MOST_DEATHS
        if often:
            raise WorkerError(
                f"processes that read died {_MOST_DEATHS} times, lastly: {error}; --reading threads reads without them"
            ) from error


class _Reader:
    """One process. A thread of its own starts it and speaks to it, since it ends with the thread that started it."""

    def __init__(self, died: Callable[[WorkerError], None]) -> None:
        self._died = died
        self._child: ChildProcess | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scale reader")
        self._thread.submit(self._start)

    def fill(self, order: FillOrder) -> Filled:
        return self._thread.submit(self._fill, order).result()

    def close(self) -> None:
        self._thread.submit(self._stop)
        self._thread.shutdown()

    def _start(self) -> ChildProcess:
        if self._child is None:
            source = Source(factory="", arguments={}, environment=thread_environment(1))
            self._child = ChildProcess(source, timeout_s=_PATIENCE_S)
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _fill(self, order: FillOrder) -> Filled:
        try:
            return cast("Filled", self._start().invoke(_FILL, order=order))
        except WorkerError as error:
            self._stop()
            self._died(error)
            if not order.windows:
                raise
            if len(order.windows) > 1:
                return self._one_by_one(order)
            ((row, _, _),) = order.windows
            self._fill(replace(order, windows=(), blank=(*order.blank, row)))
            return Filled(failures=((row, "read", reason_of(error)),))

    def _one_by_one(self, order: FillOrder) -> Filled:
        """Find the window that a process died of."""
        parts = [self._fill(replace(order, windows=()))]
        parts += [self._fill(replace(order, windows=(window,), blank=())) for window in order.windows]
        return Filled(
            failures=tuple(failure for part in parts for failure in part.failures),
            read_s=sum(part.read_s for part in parts),
            decode_s=sum(part.decode_s for part in parts),
            prepare_s=sum(part.prepare_s for part in parts),
            tiles=sum(part.tiles for part in parts),
        )


def processes_for(options: RunOptions, runners: Sequence[Runner], *, cores: int) -> int:
    """How many processes are to read; 0 where threads do.

    Raises:
        InputError: processes are asked for where they cannot be had.
    """
    possible = sys.platform == "linux" and all(isinstance(runner, Shareable) for runner in runners)
    if options.reading == "processes" and not possible:
        raise InputError("windows are read by processes on Linux only, for models of the YOLO family; take threads")
    if options.reading == "threads" or not possible:
        return 0
    on_gpu = any(isinstance(runner, Overlapping) for runner in runners)
    if options.reading == "auto" and not (on_gpu and cores >= _LEAST_CORES):
        return 0
    return options.readers or max(1, min(options.reader_threads, cores - _OTHER_CORES))


@contextmanager
def reader_pool(options: RunOptions, runners: Sequence[Runner]) -> Iterator[ReaderPool | None]:
    """Processes that read for as long as the block lasts; None where threads are to read."""
    count = processes_for(options, runners, cores=available_cores())
    if not count:
        yield None
        return
    pool = ReaderPool(count)
    try:
        yield pool
    finally:
        pool.close()
