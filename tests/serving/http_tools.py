"""Clients that misbehave on purpose, for tests of the servers."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redline.serving.limits import Limits
from redline.serving.runners import Listening, Stop, serve_on

RUNNERS = ("granian", "waitress")
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
                serve_on(
                    runner,  # type: ignore[arg-type]
                    app,
                    server,
                    Listening("127.0.0.1", 0),
                    limits=limits or Limits(),
                    threads=threads,
                    on_ready=told,
                    stop=stop,
                    **more,
                )
            )
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


INFER = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).encode()
INFER_PATH = "/v2/models/m/infer"


@contextmanager
def slow_server(
    runner: str, *, seconds: float = 0.05, runs: int = 8, drain_delay_s: float = 0.0, **limits: float
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process that serves the model ``m``, by its port; it is killed if it still lives at the end."""
    words = [runner, str(seconds), str(runs), str(drain_delay_s), json.dumps(limits)]
    command = [sys.executable, str(Path(__file__).with_name("slow_server.py")), *words]
    with process(command) as (line, server):
        yield int(line.rpartition(":")[2]), server


@contextmanager
def process(command: list[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process, once it has printed its first line."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            yield started.stdout.readline().strip(), started
        finally:
            started.kill()


def end(server: subprocess.Popen[str]) -> int:
    """Its exit code after SIGTERM."""
    server.send_signal(signal.SIGTERM)
    return server.wait(TIMEOUT_S)


def post(port: int, path: str = INFER_PATH, body: bytes = INFER) -> str:
    """The status of one request, or ``refused`` where there was no connection; anything else is a lost request."""
    try:
        client = connect(port)
    except ConnectionRefusedError:
        return "refused"
    with client:
        send(client, path, body)
        return read_status(client)


def send(client: socket.socket, path: str = INFER_PATH, body: bytes = INFER) -> None:
    """Send a request whole, on a connection that is for it alone."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)


def read_status(client: socket.socket) -> str:
    """The status of an answer that is there whole, else what went wrong."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except OSError as error:
        return f"{type(error).__name__} after {len(received)} bytes"
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if not head or len(body) != int(fields.get(b"content-length", b"-1")):
        return f"cut off: {received!r}"
    return head.split(b" ")[1].decode()
