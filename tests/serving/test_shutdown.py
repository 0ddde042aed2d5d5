"""A server that is told to stop loses no request."""

from __future__ import annotations

import signal
import socket
import threading
from collections import Counter
from contextlib import ExitStack

import pytest
from tests.serving.http_tools import (
    INFER,
    INFER_PATH,
    RUNNERS,
    TIMEOUT_S,
    connect,
    end,
    post,
    read_status,
    request,
    send,
    slow_server,
)

pytestmark = pytest.mark.parametrize("runner", RUNNERS)


def test_200_requests_in_flight_are_answered(runner: str) -> None:
    with slow_server(runner) as (port, server), ExitStack() as open_clients:
        clients = [open_clients.enter_context(connect(port)) for _ in range(200)]
        for client in clients:
            send(client)
        server.send_signal(signal.SIGTERM)
        statuses = Counter(read_status(client) for client in clients)
        assert statuses == {"200": 200}
        assert server.wait(TIMEOUT_S) == 0


def test_who_connects_while_it_stops_is_answered_or_refused(runner: str) -> None:
    with slow_server(runner, seconds=0.005) as (port, server):
        outcomes: list[str] = []
        enough = threading.Semaphore(0)

        def keep_asking() -> None:
            outcome = "200"
            while outcome == "200":
                outcome = post(port)
                outcomes.append(outcome)
                enough.release()

        askers = [threading.Thread(target=keep_asking) for _ in range(8)]
        for asker in askers:
            asker.start()
        for _ in range(100):
            assert enough.acquire(timeout=TIMEOUT_S)
        assert end(server) == 0
        for asker in askers:
            asker.join(TIMEOUT_S)
    counts = Counter(outcomes)
    assert counts.pop("200") >= 100
    assert counts == {"refused": 8}


def test_who_keeps_a_connection_is_told_before_it_closes(runner: str) -> None:
    """With a delay, no request is sent into a connection that closes."""
    import http.client

    with slow_server(runner, seconds=0.005, drain_delay_s=0.5) as (port, server):
        outcomes: list[int | str] = []
        enough = threading.Semaphore(0)

        def keep_asking() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
            while True:
                try:
                    connection.connect() if connection.sock is None else None
                except ConnectionRefusedError:
                    return
                connection.request("POST", INFER_PATH, body=INFER)
                try:
                    answer = connection.getresponse()
                    outcomes.append(len(answer.read()) and answer.status)
                except OSError as error:
                    outcomes.append(type(error).__name__)
                    return
                finally:
                    enough.release()

        askers = [threading.Thread(target=keep_asking) for _ in range(8)]
        for asker in askers:
            asker.start()
        for _ in range(100):
            assert enough.acquire(timeout=TIMEOUT_S)
        assert end(server) == 0
        for asker in askers:
            asker.join(TIMEOUT_S)
    assert set(outcomes) == {200}


def test_it_is_not_ready_first(runner: str) -> None:
    with slow_server(runner, drain_delay_s=20) as (port, server):
        assert request(port, "GET", "/v2/health/ready")[0] == 200
        server.send_signal(signal.SIGTERM)
        status = 200
        while status == 200:
            status = request(port, "GET", "/v2/health/ready")[0]
        assert status == 503
        assert request(port, "GET", "/v2/health/live")[0] == 200
        assert post(port) == "200"
        server.send_signal(signal.SIGTERM)  # the second time ends the delay
        assert server.wait(TIMEOUT_S) == 0
        assert post(port) == "refused"


def test_idle_connections_do_not_hold_it_up(runner: str) -> None:
    with slow_server(runner, header_timeout_s=1) as (port, server), ExitStack() as open_clients:
        clients = [open_clients.enter_context(connect(port)) for _ in range(16)]
        for client in clients[:8]:
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536, socket.MSG_PEEK)
        assert end(server) == 0


def test_told_twice_it_does_not_wait_for_what_hangs(runner: str) -> None:
    with slow_server(runner, seconds=60, runs=1) as (port, server), connect(port) as client:
        send(client)
        busy = b""
        while b'"running":1' not in busy.replace(b" ", b""):
            busy = request(port, "GET", "/status")[2]
        server.send_signal(signal.SIGTERM)
        while request_or_none(port) is not None:
            pass
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 9


def request_or_none(port: int) -> int | None:
    try:
        return request(port, "GET", "/v2/health/live", timeout_s=5)[0]
    except OSError:
        return None
