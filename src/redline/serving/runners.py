"""An HTTP server around the application: opens the port, runs until it is told to stop, then drains.

What the runners share is here; each server itself is a leaf of its own (``runner_granian``, ``runner_waitress``),
loaded late. Both run in this process, so that there is one copy of a model, one queue and one set of metrics.

Told to stop (SIGTERM, SIGINT or :meth:`Stop.set`), a runner says that it is not ready, keeps answering for
``drain_delay_s`` so that a load balancer can notice, takes no new connections, finishes what it took. Told again, it
hurries. Answers that are sent in that time close their connection, so that no client sends its next request into a
closing one.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from redline.serving.limits import Limits
from redline.serving.ports import CONNECTIONS, App, Listening

__all__ = ["Drainable", "Listening", "RunnerName", "Stop", "choose", "serve_on"]

if TYPE_CHECKING:
    from redline.serving.runner_granian import GranianFront
    from redline.serving.runner_waitress import WaitressFront

    Front = GranianFront | WaitressFront

RunnerName = Literal["auto", "granian", "waitress"]
_logger = logging.getLogger("redline.serving")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BY_HAND = b"\xff"
_TELLING = {_BY_HAND, *(bytes([number]) for number in _SIGNALS)}  # a signal writes its number


class Drainable(Protocol):
    """What answers the requests, as far as a runner knows it."""

    def begin_drain(self) -> None:
        """From now on not ready."""
        ...

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; whether that came true in time."""
        ...


class Stop:
    """Tells a runner to stop, from a signal or from another thread.

    A signal may come at any moment and to any thread, also to one that is not Python's, and the handler that Python
    would run waits for the main thread. So the signal itself writes into a pipe, which the runner waits at.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        os.set_blocking(self._reader, False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def set(self) -> None:
        """Tell it once more."""
        os.write(self._writer, _BY_HAND)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is told, and forget that; False where the time is over before."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
            if not self._poll.poll(left_ms):
                return False
            if os.read(self._reader, 1) in _TELLING:
                return True

    def close(self) -> None:
        """Free the pipe."""
        os.close(self._reader)
        os.close(self._writer)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Be told by SIGTERM and SIGINT for a while; where this is not the main thread, only by :meth:`set`."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        woken = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)


def choose(name: RunnerName) -> Literal["granian", "waitress"]:
    """Granian where it is installed and runs, else waitress, which is pure Python.

    >>> choose("waitress")
    'waitress'
    """
    if name != "auto":
        return name
    return "granian" if sys.platform != "win32" and importlib.util.find_spec("granian") else "waitress"


def serve_on(
    runner: Literal["granian", "waitress"],
    app: App,
    server: Drainable,
    listening: Listening,
    *,
    limits: Limits,
    threads: int | None = None,
    drain_delay_s: float = 0.0,
    drain_timeout_s: float = 30.0,
    on_ready: Callable[[str], None] | None = None,
    stop: Stop | None = None,
) -> bool:
    """Serve on a port that is open until told to stop, and close it.

    Args:
        runner: What serves.
        app: The WSGI application.
        server: What it answers with.
        listening: The port.
        limits: What a request may be.
        threads: How many requests may be in the application at once; None for as many as may wait and some more.
        drain_delay_s: How long to keep answering after being told to stop.
        drain_timeout_s: The longest to wait for what is in flight after that.
        on_ready: Told the address when it answers.
        stop: Stops it from another thread.

    Returns:
        Whether everything that was taken was answered.
    """
    told = stop or Stop()
    front: Front | None = None
    try:
        front = _front(runner, app, listening, limits, threads)
        with told.on_signals():
            front.start()
            if on_ready is not None:
                on_ready(listening.url)
            told.wait()
            server.begin_drain()
            front.close_connections()
            told.wait(drain_delay_s)
            return _finish(front, server, listening, told, drain_timeout_s)
    finally:
        if front is not None:
            front.close()
        listening.close()
        if stop is None:
            told.close()


def _front(runner: str, app: App, listening: Listening, limits: Limits, threads: int | None) -> Front:
    if runner == "granian":
        from redline.serving.runner_granian import GranianFront

        return GranianFront(app, listening, limits, threads or CONNECTIONS)
    from redline.serving.runner_waitress import WaitressFront

    return WaitressFront(app, listening, limits, threads or limits.queue + 64)


def _finish(front: Front, server: Drainable, listening: Listening, told: Stop, timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    listening.refuse()
    front.stop()
    while not front.finished():
        if told.wait(0.02) or time.monotonic() > until:
            _logger.warning("stopped with requests in flight, after %.0f s of waiting at most", timeout_s)
            return False
    return server.drain(max(0.0, until - time.monotonic()))
