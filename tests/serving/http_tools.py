"""Clients that misbehave on purpose, for tests of the servers."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redline.serving.limits import Limits
from redline.serving.runners import Stop, serve_granian, serve_waitress

RUNNERS = ("granian", "waitress")
SERVE = {"granian": serve_granian, "waitress": serve_waitress}
TIMEOUT_S = 20.0


class Answering:
    """What a runner knows of the server behind its application."""

    def __init__(self) -> None:
        self.is_ready = True
        self.drained = threading.Event()

    def begin_drain(self) -> None:
        self.is_ready = False

    def drain(self, timeout_s: float) -> bool:
        self.drained.set()
        return True


class Running:
    """A runner in a thread of this process."""

    def __init__(self, port: int, server: Answering, stop: Stop) -> None:
        self.port = port
        self.server = server
        self.told = False
        self._stop = stop

    def stop(self) -> None:
        self.told = True
        self._stop.set()

    def connect(self) -> socket.socket:
        return connect(self.port)

    def request(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
        return request(self.port, method, path, **more)


@contextmanager
def running(
    runner: str, app: Callable[..., Any], *, limits: Limits | None = None, threads: int | None = None, **more: Any
) -> Iterator[Running]:
    """Serve ``app`` while the block runs; afterwards the runner must have ended in time, and of its own accord."""
    server, stop, ready = more.pop("server", None) or Answering(), Stop(), threading.Event()
    urls: list[str] = []
    ended: list[Any] = []

    def told(url: str) -> None:
        urls.append(url)
        ready.set()

    def serve() -> None:
        try:
            ended.append(
                SERVE[runner](
                    app, server, "127.0.0.1", 0, limits=limits or Limits(), threads=threads, on_ready=told, stop=stop,
                    **more,
                )
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 (shown below)
            ended.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    served: Running | None = None
    try:
        assert ready.wait(TIMEOUT_S)
        assert urls, ended
        served = Running(int(urls[0].rpartition(":")[2]), server, stop)
        yield served
    finally:
        if served is None or not served.told:
            stop.set()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        stop.close()
    assert ended == [True]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)


def request(port: int, method: str, path: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own; header names in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=more.pop("timeout_s", TIMEOUT_S))
    try:
        connection.request(method, path, **more)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def until_closed(sock: socket.socket) -> bytes:
    """Everything that comes until the other side closes."""
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)
