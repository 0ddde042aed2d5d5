"""A session in a fresh process of its own, driven over a private socket.

A crash, an out-of-memory kill or a hang of a variant ends its own process and becomes a :class:`WorkerError` here.
Run as ``python -m redline.measurement.worker ADDRESS`` it is the process itself.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from time import perf_counter
from typing import Any, Self, cast

from redline.core.errors import MissingDependencyError, WorkerError
from redline.core.plain import Json
from redline.core.processes import end_with_parent
from redline.core.session import Session, SupportsAllocatorPeak, SupportsDeviceTiming
from redline.core.shared_arrays import Handle, open_shared
from redline.core.tensor import Array, Signature
from redline.measurement.disturbance import Turn
from redline.measurement.latency import Loader, WarmUp, take_turn, time_calls, time_pipeline, warm_up
from redline.measurement.memory import Memory, MemoryWatch

_KEY_VARIABLE = "REDLINE_WORKER_KEY"
# Nobody's fault and the same for whoever comes next, so that going on would only make a list of failures.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What memory that cannot be had is called by C++, Python, NumPy, PyTorch, ONNX Runtime, CUDA and TensorRT.
_NO_MEMORY = re.compile(
    r"out ?of ?memory|(cannot|can't|failed to|unable to) allocate|not enough memory|memory is full"
    r"|bad_alloc|bad allocation|MemoryError|cudaErrorMemoryAllocation|ALLOC_FAILED",
    re.IGNORECASE,
)
Key = int | str


class WorkerTimeoutError(WorkerError):
    """A worker process took longer than it was given and was stopped."""


class WorkerMemoryError(WorkerError):
    """A worker process wanted more memory than there is, its own or the GPU's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A function that a fresh process calls: to make a session, or to do one step of work.

    Attributes:
        factory: ``"module:function"``, imported in the worker.
        arguments: Keyword arguments of the function, plain JSON values.
        environment: Variables of the worker, set before anything is imported (thread counts are read then).
        interpreter: Another Python to run it with, which finds ``redline`` too; empty is this one. Runtimes that
            cannot live in one environment are measured side by side so.
    """

    factory: str
    arguments: Mapping[str, Json]
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = ""


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables that hold every numeric library of a worker to so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


class Worker:
    """A session in another process; itself a :class:`redline.core.session.Session`."""

    def __init__(
        self,
        source: Source,
        *,
        timeout_s: float = 300.0,
        cuda_device: int | None = None,
        own_files: Sequence[Path] = (),
    ) -> None:
        """Start the process and load the session; with a GPU by CUDA's number, its memory is watched too.

        What it maps of ``own_files``, its model's own, is counted as its own memory.

        Raises:
            WorkerError: it died, hung or could not load; the message has the reason.
        """
        self._child = ChildProcess(source, timeout_s=timeout_s)
        self._on_gpu = cuda_device is not None
        self._watch = MemoryWatch(self._child.pid, cuda_device=cuda_device, own_files=own_files)
        self._noting_peak: Callable[[], AbstractContextManager[None]] = self._watch.noting_peak
        try:
            with self._watch.polling():
                loaded: tuple[Signature, float] = self._child.ask("load", source.factory, dict(source.arguments))
        except BaseException:
            self.close()
            raise
        self.signature, self.load_s = loaded

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once in the worker."""
        return cast("dict[str, Array]", self._child.ask("call", dict(inputs)))

    def attribute(self, name: str, default: object = None) -> Any:
        """An attribute of the worker's session, copied; the default where it has none."""
        return self._child.ask("attribute", name, default)

    @property
    def limit_s(self) -> float:
        """How long each request from now on may take before the worker is stopped; can be set."""
        return self._child.timeout_s

    @limit_s.setter
    def limit_s(self, seconds: float) -> None:
        self._child.timeout_s = seconds

    def prepare(self, key: Key, inputs: Sequence[Mapping[str, Array]], *, limit_s: float = 3.0) -> WarmUp:
        """Send the inputs that :meth:`time` will use under the name ``key``, and warm up on them."""
        self._child.ask("receive", key, [dict(feed) for feed in inputs])
        return self._warm_up(key, limit_s)

    def prepare_shared(self, key: Key, handle: Handle, *, limit_s: float = 3.0, window_s: float = 0.2) -> WarmUp:
        """As :meth:`prepare`, with inputs that the worker maps: a handle of ``SharedBatches``, which stays open."""
        self._child.ask("map", key, handle)
        return self._warm_up(key, limit_s, window_s)

    def call_shared(self, key: Key, index: int) -> dict[str, Array]:
        """Run once on one of the prepared inputs; after the last comes the first again."""
        return cast("dict[str, Array]", self._child.ask("call_prepared", key, index))

    def time(self, key: Key, *, duration_s: float, min_calls: int = 1, max_calls: int | None = None) -> list[float]:
        """Seconds of each call, as :func:`redline.measurement.latency.time_calls`, measured inside the worker."""
        with self._noting_peak():
            return cast("list[float]", self._child.ask("time", key, duration_s, min_calls, max_calls))

    def window(self, key: Key, *, duration_s: float, min_calls: int = 1, max_calls: int | None = None) -> Turn:
        """The same, with what the kernel says disturbed it."""
        with self._noting_peak():
            return cast("Turn", self._child.ask("window", key, duration_s, min_calls, max_calls))

    def device_times(self, key: Key, calls: int) -> list[float]:
        """Seconds that the device computed in each of ``calls`` calls on the first of the prepared inputs.

        Raises:
            WorkerError: the session has no such ability (:class:`redline.core.session.SupportsDeviceTiming`).
        """
        with self._noting_peak():
            return cast("list[float]", self._child.ask("device_times", key, calls))

    def open_loader(self, key: Key, factory: str, arguments: Mapping[str, Json]) -> None:
        """Have the worker make a loader for :meth:`time_pipeline`: call ``"module:function"`` with a JSON object."""
        self._child.ask("open_loader", key, factory, dict(arguments))

    def loader_attribute(self, key: Key, name: str) -> Any:
        """An attribute of a loader in the worker, copied."""
        return self._child.ask("loader_attribute", key, name)

    def time_pipeline(self, key: Key, *, duration_s: float, min_calls: int = 1, prefetch: bool) -> list[float]:
        """Seconds of each batch, loader and session together: :func:`redline.measurement.latency.time_pipeline`.

        What the loader takes and leaves behind is no part of :meth:`memory`, which stays as it is from here on.
        """
        self._noting_peak = contextlib.nullcontext
        return cast("list[float]", self._child.ask("time_pipeline", key, duration_s, min_calls, prefetch))

    def memory(self) -> Memory:
        """What the process has needed so far to load, to warm up and to be timed."""
        found = self._watch.result()
        if not self._on_gpu:
            return found
        with contextlib.suppress(WorkerError):
            return replace(found, allocator_peak_bytes=self._child.ask("allocator_peak_bytes"))
        return found

    def _warm_up(self, key: Key, limit_s: float, window_s: float = 0.2) -> WarmUp:
        with self._watch.polling():
            return cast("WarmUp", self._child.ask("warm_up", key, limit_s, window_s))

    def close(self) -> None:
        """End the process."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call_in_fresh_process(source: Source, *, timeout_s: float) -> Any:
    """Call a function in a process of its own and return what it returned.

    Raises:
        WorkerError: the function raised or crashed; the message has the reason.
        WorkerTimeoutError: it took longer than ``timeout_s``.
        WorkerMemoryError: it wanted more memory than there is.
        OSError: the disk is full.
    """
    with ChildProcess(source, timeout_s=timeout_s) as child:
        return child.invoke(source.factory, **source.arguments)


class ChildProcess:
    """A process that calls functions for this one, one at a time; it ends with the thread that started it.

    Attributes:
        timeout_s: How long a call may take before the process is stopped; can be set.
    """

    def __init__(self, source: Source | None = None, *, timeout_s: float) -> None:
        """Start it, with the environment and interpreter of a source.

        Raises:
            WorkerError: it did not start.
        """
        source = source or Source(factory="", arguments={})
        self.timeout_s = timeout_s
        self._stopped: str | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        try:
            self._process, self._connection = _start(source, self._stderr)
        except BaseException:
            self._stderr.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def invoke(self, function: str, **arguments: object) -> Any:
        """Call ``"module:function"`` in the process, with what can be pickled; its answer likewise.

        Raises:
            WorkerError: the function raised, the process died, or took longer than ``timeout_s``.
        """
        return self.ask("invoke", function, arguments)

    def ask(self, command: str, *arguments: object) -> Any:
        """Have a command of the process's own answered, as :meth:`invoke`."""
        if self._stopped:
            raise WorkerTimeoutError(self._stopped)
        try:
            self._connection.send((command, *arguments))
            if not self._connection.poll(self.timeout_s):
                _kill(self._process)
                self._stopped = f"no answer in {self.timeout_s:g} s; the worker was stopped"
                raise WorkerTimeoutError(self._stopped)
            outcome, value = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error
        return _value(outcome, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._connection.close()
        if self._process.poll() is None:
            # A worker that is in the middle of a call does not see the closed connection: nothing is lost by a kill.
            _kill(self._process)
        self._process.wait()
        self._stderr.close()

    def _death(self) -> WorkerError:
        code = self._process.wait()
        if code == -9:
            return WorkerMemoryError("the worker was killed by signal 9, most often the kernel when memory runs out")
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        kind = WorkerMemoryError if _NO_MEMORY.search(last) else WorkerError
        return kind(f"the worker ended {how}{last}")


def _value(outcome: str, value: Any) -> Any:
    match outcome:
        case "no space":
            raise OSError(*value)
        case "missing":
            package, extra = value
            missing = MissingDependencyError(package, extra=extra)
            raise WorkerError(str(missing), missing=missing)
        case "no memory":
            raise WorkerMemoryError(value)
        case "error":
            raise WorkerError(value)
    return value


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The whole group: a compiler that the worker started must not outlive it.
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _start(source: Source, stderr: Any) -> tuple[subprocess.Popen[bytes], Connection]:
    key = secrets.token_bytes(16)
    variables = {**os.environ, **source.environment, _KEY_VARIABLE: key.hex()}
    with Listener(authkey=key) as listener:
        command = [source.interpreter or sys.executable, "-m", "redline.measurement.worker", str(listener.address)]
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True
        )
        _die_with_process(listener, process)
        try:
            return process, listener.accept()
        except (OSError, EOFError) as error:
            process.kill()
            raise WorkerError("the worker process did not start") from error


def _die_with_process(listener: Listener, process: subprocess.Popen[bytes]) -> None:
    # accept() has no timeout of its own; without one, a worker that dies at once would hang its parent.
    socket = getattr(getattr(listener, "_listener", None), "_socket", None)
    if socket is not None:
        socket.settimeout(60)
    if process.poll() is not None:  # pragma: no cover
        raise WorkerError(f"the worker process ended with exit code {process.returncode}")


class _Server:
    """The worker's side: answers commands until its parent goes away."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._inputs: dict[Key, Sequence[Mapping[str, Array]]] = {}
        self._loaders: dict[Key, Loader] = {}

    @property
    def session(self) -> Session:
        if self._session is None:
            raise WorkerError("no session is loaded")
        return self._session

    def inputs(self, key: Key) -> Sequence[Mapping[str, Array]]:
        if key not in self._inputs:
            raise WorkerError(f"no inputs were prepared under the name {key!r}")
        return self._inputs[key]

    def loader(self, key: Key) -> Loader:
        if key not in self._loaders:
            raise WorkerError(f"no loader was opened under the name {key!r}")
        return self._loaders[key]

    def invoke(self, factory: str, arguments: Mapping[str, Any]) -> Any:
        return _function(factory)(**arguments)

    def load(self, factory: str, arguments: Mapping[str, Json]) -> tuple[Signature, float]:
        before = perf_counter()
        self._session = self.invoke(factory, arguments)
        return self.session.signature, perf_counter() - before

    def attribute(self, name: str, default: object) -> Any:
        return getattr(self.session, name, default)

    def call(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.session(inputs)

    def receive(self, key: Key, inputs: list[Mapping[str, Array]]) -> None:
        self._inputs[key] = inputs

    def map(self, key: Key, handle: Handle) -> None:
        self._inputs[key] = open_shared(handle)

    def warm_up(self, key: Key, limit_s: float, window_s: float) -> WarmUp:
        found = warm_up(self.session, self.inputs(key), limit_s=limit_s, window_s=window_s)
        gc.collect()
        gc.freeze()  # else each turn begins with 75 ms of looking through all of torch's modules
        return found

    def call_prepared(self, key: Key, index: int) -> dict[str, Array]:
        inputs = self.inputs(key)
        return self.session(inputs[index % len(inputs)])

    def time(self, key: Key, duration_s: float, min_calls: int, max_calls: int | None) -> list[float]:
        return time_calls(
            self.session, self.inputs(key), duration_s=duration_s, min_calls=min_calls, max_calls=max_calls
        )

    def window(self, key: Key, duration_s: float, min_calls: int, max_calls: int | None) -> Turn:
        return take_turn(
            self.session, self.inputs(key), duration_s=duration_s, min_calls=min_calls, max_calls=max_calls
        )

    def device_times(self, key: Key, calls: int) -> list[float]:
        if not isinstance(self.session, SupportsDeviceTiming):
            raise WorkerError("this session cannot say how long its device computes")
        return self.session.device_times(self.inputs(key)[0], calls)

    def open_loader(self, key: Key, factory: str, arguments: Mapping[str, Json]) -> None:
        self._loaders[key] = _function(factory)(arguments)

    def loader_attribute(self, key: Key, name: str) -> Any:
        return getattr(self.loader(key), name)

    def time_pipeline(self, key: Key, duration_s: float, min_calls: int, prefetch: bool) -> list[float]:
        return time_pipeline(
            self.session, self.loader(key), duration_s=duration_s, min_calls=min_calls, prefetch=prefetch
        )

    def allocator_peak_bytes(self) -> int | None:
        return self.session.allocator_peak_bytes() if isinstance(self.session, SupportsAllocatorPeak) else None


def _function(factory: str) -> Callable[..., Any]:
    module, _, name = factory.partition(":")
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))


def serve(address: str) -> None:
    """Answer the parent's commands; returns when the parent closes the connection or dies."""
    end_with_parent()
    key = bytes.fromhex(os.environ.pop(_KEY_VARIABLE))
    server = _Server()
    with Client(address, authkey=key) as connection:
        while True:
            try:
                command, *arguments = connection.recv()
            except EOFError:
                return
            try:
                answer: tuple[str, Any] = ("ok", getattr(server, command)(*arguments))
            except MissingDependencyError as error:
                answer = ("missing", (error.package, error.extra))
            except Exception as error:  # noqa: BLE001 (an edge: the error becomes the parent's value)
                answer = _told(error)
            connection.send(answer)


def _told(error: Exception) -> tuple[str, Any]:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
            return "no space", (cause.errno, cause.strerror, cause.filename)
        if isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)):
            return "no memory", first
        cause = cause.__cause__ or cause.__context__
    return "error", first


if __name__ == "__main__":
    serve(sys.argv[1])
