"""Waitress, a server in pure Python, with a loop of our own around it.

Waitress takes a request whole before a thread has to do with it, so slow clients hold up nobody. What it does not have
is here: time limits for headers and bodies, errors as JSON, the refusal of requests that say their length in two ways,
answers that arrive although the client still sends, and an end that loses nothing. Its own ``channel_timeout`` ends
connections on which nothing at all moves, no more.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask

from redline.serving.limits import Limits
from redline.serving.ports import BACKLOG, CONNECTIONS, FRESH_S, App, Listening

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["WaitressFront"]

_logger = logging.getLogger("redline.serving")
_silent = logging.Logger("redline.serving.silent", logging.CRITICAL + 1)
_IDLE_S = 75
#: How long the rest of a body that is too large is taken, so that the answer to it arrives.
_LINGER_S = 5.0
#: Threads that requests waiting for a model never take, so that health and metrics are answered.
_RESERVE = 8
_TOO_LARGE = 413
_WORDS = {400: "not an HTTP request that this server takes", 413: "the body is larger than this server takes"}


class WaitressFront:
    """A waitress server on an open port, its loop in a thread."""

    def __init__(self, app: App, listening: Listening, limits: Limits, threads: int) -> None:
        # Waitress counts a chunked body with its framing; the application is exact about the limit.
        taken = limits.body_bytes + limits.body_bytes // 8 + (1 << 16)
        settings = Adjustments(
            sockets=[listening.socket],
            threads=threads,
            backlog=BACKLOG,
            connection_limit=CONNECTIONS,
            channel_timeout=_IDLE_S,
            cleanup_interval=1,
            max_request_body_size=taken,
            inbuf_overflow=taken + 1,
            outbuf_overflow=64 << 20,
            recv_bytes=1 << 17,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
            ident="redline",
        )
        self._map: dict[int, Any] = {}
        self._threads = _Threads()
        self._threads.set_thread_count(threads)
        self._server = _Server(_ThreadGuard(app, threads - _RESERVE), self._map, settings, self._threads, limits)
        self._listening = listening
        self._stopping_s: float | None = None
        self._ended = threading.Event()
        self._abandoned = False

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._loop, name="redline-waitress", daemon=True).start()

    def close_connections(self) -> None:
        """From now on each answer closes its connection."""
        self._server.closing = True

    def stop(self) -> None:
        """Take what is connected, then no more."""
        self._server.trigger.pull_trigger(self._stop_listening)

    def finished(self) -> bool:
        """Whether all that was taken is answered and sent."""
        return self._ended.is_set()

    def close(self) -> None:
        """End, without waiting for what is in flight."""
        self._abandoned = True
        if not self._ended.is_set():
            self._server.pull_trigger()
            self._ended.wait(1.0)
        self._threads.shutdown(timeout=0.2)
        wasyncore.close_all(self._map, ignore_all=True)

    def _loop(self) -> None:
        try:
            while not self._abandoned:
                wasyncore.poll2(1.0 if self._stopping_s is None else 0.02, self._map)
                if self._stopping_s is not None:
                    self._server.maintenance(time.time())
                    self._close_idle(fresh_until_s=self._stopping_s + FRESH_S)
                    if not self._server.active_channels:
                        break
        except Exception:
            _logger.exception("the server's loop ended")
        finally:
            self._ended.set()

    def _stop_listening(self) -> None:
        until = time.monotonic() + 1.0
        while self._listening.waiting() and time.monotonic() < until:
            self._server.handle_accept()
        wasyncore.dispatcher.close(self._server)
        self._stopping_s = time.monotonic()

    def _close_idle(self, *, fresh_until_s: float) -> None:
        now = time.monotonic()
        for channel in list(self._server.active_channels.values()):
            if channel.idle() and (channel.used or now > fresh_until_s):
                channel.handle_close()


class _ThreadGuard:
    """Refuses requests that would take the last threads; only those with a body can take one for long."""

    def __init__(self, app: App, most: int) -> None:
        self._app = app
        self._most = max(1, most)
        self._running = 0
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST":
            return self._app(environ, start)  # type: ignore[no-any-return]
        with self._lock:
            full = self._running >= self._most
            self._running += not full
        if full:
            body, fields = _json_error("every thread of this server is busy; try again")
            start("503 Service Unavailable", [*fields, ("Retry-After", "1"), ("Content-Length", str(len(body)))])
            return [body]
        try:
            return self._app(environ, start)  # type: ignore[no-any-return]
        finally:
            with self._lock:
                self._running -= 1


def _json_error(text: str) -> tuple[bytes, list[tuple[str, str]]]:
    fields = [("Content-Type", "application/json"), ("X-Request-Id", uuid.uuid4().hex)]
    return json.dumps({"error": text}).encode(), fields


class _Threads(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Waitress's threads, without a line in the log for each request that has to wait."""

    queue_logger = _silent


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Refuses what says its length in two ways: a proxy before us may believe the other one."""

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Content-Length and Transfer-Encoding together")
        if "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")


class _Answer(WSGITask):  # type: ignore[misc]
    """An answer; closes its connection when the server is about to end."""

    def build_response_header(self) -> Any:
        if self.channel.server.closing:
            self.set_close_on_finish()
        return super().build_response_header()


class _Refusal(ErrorTask):  # type: ignore[misc]
    """An answer to what is no request, as JSON like every other error."""

    def execute(self) -> None:
        error = self.request.error
        body, fields = _json_error(_WORDS.get(error.code, error.reason))
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend(fields)
        self.content_length = len(body)
        self.channel.linger = error.code == _TOO_LARGE
        self.set_close_on_finish()
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows how long its client has been sending a request."""

    parser_class = _Parser
    task_class = _Answer
    error_task_class = _Refusal
    request: Any = None
    linger = False
    used = False
    _partial: Any = None
    _since_s = 0.0
    _in_body = False
    _lingering_until_s: float | None = None

    def received(self, data: bytes) -> bool:
        taken = bool(super().received(data))
        self.used = True
        partial = self.request
        if partial is not None and (partial is not self._partial or partial.headers_finished != self._in_body):
            self._since_s = time.monotonic()
            self._in_body = partial.headers_finished
        self._partial = partial
        return taken

    def idle(self) -> bool:
        """Whether nothing is received, in work or to be sent."""
        if self.requests or self.request is not None or self.total_outbufs_len or self.close_when_flushed:
            return False
        if self._lingering_until_s is not None:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def end_late(self, header_s: float, body_s: float) -> None:
        """Refuse a request that takes too long to arrive."""
        now = time.monotonic()
        if self._lingering_until_s is not None:
            if now > self._lingering_until_s:
                self.handle_close()
            return
        with self.requests_lock:
            if self.request is None or self.requests or now - self._since_s <= (body_s if self._in_body else header_s):
                return
            self.request.close()
            self.request = None
            self.close_when_flushed = True
        body, fields = _json_error("the request took too long to arrive")
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        line = f"HTTP/1.1 408 Request Timeout\r\n{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        with self.outbuf_lock:
            self.outbufs[-1].append(line.encode() + body)
            self.total_outbufs_len += len(line) + len(body)

    def readable(self) -> bool:
        return self._lingering_until_s is not None or bool(super().readable())

    def writable(self) -> bool:
        return self._lingering_until_s is None and bool(super().writable())

    def handle_read(self) -> None:
        if self._lingering_until_s is None:
            super().handle_read()
        else:
            self.recv(self.adj.recv_bytes)  # and forget it; the end of the stream closes the connection

    def handle_close(self) -> None:
        """Close it; where the client still sends, only our direction at first."""
        if self.linger and self.connected:
            self.linger, self.will_close = False, False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                _logger.debug("gone already: %s", error)
            else:
                self._lingering_until_s = time.monotonic() + _LINGER_S
                return
        super().handle_close()


class _Server(TcpWSGIServer):  # type: ignore[misc]
    """A waitress server that looks after its connections."""

    channel_class = _Channel
    closing = False

    def __init__(self, app: App, channels: dict[int, Any], settings: Any, threads: _Threads, limits: Limits) -> None:
        self._header_s = limits.header_timeout_s
        self._body_s = limits.body_timeout_s
        sock = settings.sockets[0]
        kind = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(
            app, channels, True, sock, dispatcher=threads, adj=settings, sockinfo=kind, bind_socket=False
        )  # fmt: skip

    def maintenance(self, now: float) -> None:
        """End connections on which nothing moves, refuse requests that take too long to arrive."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            channel.end_late(self._header_s, self._body_s)
