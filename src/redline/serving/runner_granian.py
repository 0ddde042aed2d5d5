"""Granian, a server in Rust, run inside this process.

Its own process model (a parent that forks workers) is left out: models are opened once, in the process that the user
started and signals. So this uses the worker class that granian's own servers are built of (``granian._granian``).

Granian reads a body in the thread that handles the request. There is a thread for every connection it takes, made when
needed, so slow bodies hold up nobody else. It has no time limit for bodies; :class:`_Reaper` is that.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import logging
import os
import socket
import stat
import sys
import termios
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from granian._futures import _new_cbscheduler
from granian._granian import SocketHolder, WorkerSignal, WSGIWorker
from granian.http import HTTP1Settings
from werkzeug.exceptions import ClientDisconnected

from redline.serving.limits import Limits
from redline.serving.ports import BACKLOG, FRESH_S, App, Listening, tcp_info

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["GranianFront"]

_logger = logging.getLogger("redline.serving")
#: After an answer to a body that was not read to its end, so much more of it is taken, so that the answer arrives.
_DISCARD_BYTES, _DISCARD_S = 256 << 20, 5.0
_TOKIO_THREADS, _THREAD_IDLE_S = 512, 30
_TLS_OFF: tuple[Any, ...] = (False, None, None, None, "1.3", None, [], False)
_INTERNAL = b'{"error":"internal error"}'
# Their stubs are of an earlier version.
_Socket: Any = SocketHolder
_Worker: Any = WSGIWorker


class GranianFront:
    """A granian worker on an open port."""

    def __init__(self, app: App, listening: Listening, limits: Limits, connections: int) -> None:
        self._app = app
        self._listening = listening
        self._closing = False
        self._reading: dict[int, float] = {}
        self._done = threading.Event()
        self._signal = WorkerSignal()
        self._signal.add_cb(self._done.set)
        self._reaper = _Reaper(self._reading, listening.port, limits)
        self._started = False
        self._environ: WSGIEnvironment = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "Granian",
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.input_terminated": True,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        self._connections = connections
        self._body_timeout_s = limits.body_timeout_s
        self._http = HTTP1Settings(header_read_timeout=max(1, int(limits.header_timeout_s * 1000)))

    def start(self) -> None:
        """Begin to answer."""
        self._started = True
        # The worker takes this handle over, and closes it when it stops.
        port = (None, _Socket(os.dup(self._listening.socket.fileno()), False, BACKLOG))
        worker = _Worker(
            1, port, None, 1, _TOKIO_THREADS, self._connections, _THREAD_IDLE_S, self._connections,
            "1", self._http, None, None, *_TLS_OFF, (None, None),
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()  # what the scheduler takes; nothing runs on it
        # Not serve_mtr: it waits to be told that it has stopped, which may have been said a moment before.
        worker.serve_str(_new_cbscheduler(self._loop, self._call, impl_asyncio=True), self._loop, self._signal)
        self._reaper.start()

    def close_connections(self) -> None:
        """From now on each answer closes its connection."""
        self._closing = True

    def stop(self) -> None:
        """Take what is connected, then no more."""
        threading.Thread(target=self._stop, name="redline-stop", daemon=True).start()

    def finished(self) -> bool:
        """Whether all that was taken is answered and sent."""
        return self._done.is_set()

    def close(self) -> None:
        """End, without waiting for what is in flight."""
        self._reaper.stop()
        if self._started:
            self._started = False
            self._signal.set()
            self._done.wait(0.1)
            self._loop.close()

    def _stop(self) -> None:
        until = time.monotonic() + FRESH_S
        while self._is_connecting() and time.monotonic() < until:
            time.sleep(0.002)
        self._signal.set()

    def _is_connecting(self) -> bool:
        """Whether a connection has not been heard yet: granian would close it although its request is on its way."""
        if self._listening.waiting():
            return True
        with _connections(self._listening.port) as connections:
            return any(_unheard(sock) for sock in connections)

    def _call(self, protocol: Any, scope: WSGIEnvironment) -> None:
        chunked = "HTTP_TRANSFER_ENCODING" in scope
        body: _Body | None = None
        if chunked or "CONTENT_LENGTH" in scope:
            length = scope.get("CONTENT_LENGTH")
            scope["wsgi.input"] = body = _Body(scope["wsgi.input"], length, self._reading, self._body_timeout_s)
        status, headers, answer = self._answer(scope)
        # A length and chunks together are how requests are smuggled; granian takes the chunks and hides the length.
        if (chunked or self._closing) and not any(name.lower() == "connection" for name, _ in headers):
            headers.append(("connection", "close"))
        protocol.response_bytes(status, headers, answer)
        if body is not None:
            body.discard()

    def _answer(self, scope: WSGIEnvironment) -> tuple[int, list[tuple[str, str]], bytes]:
        status, headers = 500, [("content-type", "application/json")]

        def start(line: str, fields: list[tuple[str, str]], _exception: Any = None) -> None:
            nonlocal status, headers
            status, headers = int(line[:3]), list(fields)

        try:
            parts = self._app(self._environ | scope, start)
            try:
                body = b"".join(parts)
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        except ClientDisconnected:
            return 400, [("content-type", "application/json")], b'{"error":"the body ended early"}'
        except Exception:
            name = uuid.uuid4().hex
            _logger.exception("request %s failed", name)
            return 500, [("content-type", "application/json"), ("x-request-id", name)], _INTERNAL
        return status, headers, body


class _Body:
    """A request's body that knows since when it is read, and does not pass for whole when it was cut off."""

    __slots__ = ("_ended", "_inner", "_length", "_most_s", "_reading", "_taken")

    def __init__(self, inner: Any, length: str | None, reading: dict[int, float], most_s: float) -> None:
        self._inner = inner
        self._length = int(length) if length is not None and length.isdigit() else None
        self._reading = reading
        self._most_s = most_s
        self._taken = 0
        self._ended = self._length == 0

    def read(self, size: int | None = -1) -> bytes:
        """At most ``size`` bytes, fewer only at the end; all of them where it is negative.

        Raises:
            ClientDisconnected: the connection ended before the body did, or the body took longer than allowed.
        """
        if self._ended or size == 0:
            return b""
        everything = size is None or size < 0
        began_s = self._reading.setdefault(id(self), time.monotonic())
        data: bytes = self._inner.read() if everything else self._inner.read(size)
        self._taken += len(data)
        self._ended = everything or len(data) < (size or 0) or self._taken == self._length
        if self._ended:
            self._reading.pop(id(self), None)
            short = self._length is not None and self._taken < self._length
            if (
                short or time.monotonic() - began_s > self._most_s
            ):  # granian shows a chunked body's end or its loss alike
                raise ClientDisconnected
        return data

    def readline(self, _size: int = -1) -> bytes:
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(1 << 16):
            yield block

    def discard(self) -> None:
        """Take what is left for a while: closing a connection that still sends would lose the answer on its way."""
        until, left = time.monotonic() + _DISCARD_S, _DISCARD_BYTES
        try:
            while not self._ended and left > 0 and time.monotonic() < until:
                left -= len(self.read(1 << 20))
        except Exception as error:  # noqa: BLE001 (the answer is sent; what comes now is of no use)
            _logger.debug("the rest of a body: %s", error)
        finally:
            self._reading.pop(id(self), None)


class _Reaper:
    """Ends connections whose body takes longer than allowed (Linux only).

    Granian does not say which connection a request came by. The kernel says of each how long ago it was last written
    to: where as many have waited so long for an answer as there are late bodies, they are the ones (idle ones are ended
    sooner, by the time limit for headers). Where requests that wait for a model look the same, only those go that are
    older than headers, body and deadline together allow.
    """

    def __init__(self, reading: dict[int, float], port: int, limits: Limits) -> None:
        self._reading = reading
        self._port = port
        self._body_s = limits.body_timeout_s
        self._whole_s = limits.header_timeout_s + limits.body_timeout_s + limits.deadline_s
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="redline-bodies", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        pause_s = min(1.0, max(0.05, self._body_s / 4))
        while not self._stopped.wait(pause_s):
            now = time.monotonic()
            late = sum(now - began > self._body_s for began in list(self._reading.values()))
            if late:
                self._end(late)

    def _end(self, late: int) -> None:
        with _connections(self._port) as connections:
            ages = [(sock, info.last_sent_s) for sock in connections if (info := tcp_info(sock)) is not None]
            slow = [(sock, age_s) for sock, age_s in ages if age_s > self._body_s]
            for sock, age_s in slow:
                if len(slow) <= late or age_s > self._whole_s:
                    _shut(sock)


def _unheard(sock: socket.socket) -> bool:
    """Whether nothing has come, or something that nobody has read."""
    info = tcp_info(sock)
    if info is None:
        return False
    unread = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, unread)
    return not info.received_bytes or bool(unread[0])


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        _logger.debug("a late connection: %s", error)


@contextmanager
def _connections(port: int) -> Iterator[list[socket.socket]]:
    """The connections to a port that this process holds, by second handles that are closed at the end."""
    try:
        names = os.listdir("/proc/self/fd")  # noqa: PTH208 (names are all that is needed)
    except OSError:
        names = []
    found = [handle for name in names if (handle := _connection(int(name), port)) is not None]
    try:
        yield found
    finally:
        for handle in found:
            handle.close()


def _connection(descriptor: int, port: int) -> socket.socket | None:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        handle = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None
    try:
        if handle.family in (socket.AF_INET, socket.AF_INET6) and handle.getsockname()[1] == port:
            handle.getpeername()
            return handle
    except OSError as error:
        _logger.debug("not a connection: %s", error)
    handle.close()
    return None
