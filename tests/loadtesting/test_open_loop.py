"""Our generator against real servers: what it counts, and what an open loop shows that a closed one hides."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.loadtesting.servers import Behaviour, server

from redline.loadtesting.job import Job, Outcome, Parcel
from redline.loadtesting.open_loop import run_job
from redline.loadtesting.plan import schedule

BODIES = (b"first", b"second" * 50_000)


def run(url: str, folder: Path, **fields: object) -> Outcome:
    parcel = Parcel(
        host="127.0.0.1",
        port=int(url.rpartition(":")[2]),
        path="/v2/models/model/infer",
        headers={"Content-Type": "text/plain"},
        bodies=BODIES,
    )
    parcel.save(folder)
    assert Parcel.load(folder) == parcel
    return run_job(Job(parcel=str(folder), **fields), parcel)  # type: ignore[arg-type]


def constant(rate: float, seconds: float) -> list[float]:
    return schedule("constant", rate=rate, seconds=seconds, seed=0)


def test_an_open_loop_sends_all_that_is_due_with_the_lead_in_apart(tmp_path: Path) -> None:
    with server() as (url, behaviour):
        outcome = run(url, tmp_path, due=constant(100, 0.5), lead_s=0.2, seconds=0.3)
    assert (outcome.lead, outcome.offered, outcome.sent, outcome.dropped) == (20, 30, 30, 0)
    assert outcome.statuses == {"200": 30}
    assert len(outcome.response_s) == len(outcome.service_s) == 30
    assert all(response >= service for response, service in zip(outcome.response_s, outcome.service_s, strict=True))
    assert behaviour.count == 50
    assert [body for _, _, body in behaviour.seen[:4]].count(BODIES[0]) == 2
    assert outcome.late_p99_s is not None
    assert outcome.client_cpu_s > 0


def test_a_closed_loop_keeps_so_many_under_way_and_counts_every_request(tmp_path: Path) -> None:
    with server(Behaviour(service_s=0.01)) as (url, behaviour):
        outcome = run(url, tmp_path, users=3, lead_s=0.05, seconds=0.3)
    assert outcome.sent + outcome.lead == behaviour.count
    assert outcome.sent == len(outcome.response_s) == outcome.offered > 3
    assert min(outcome.service_s) >= 0.01
    assert outcome.late_p99_s is None
    # Three users and at least 10 ms each: never more than 300 a second.
    assert outcome.sent / outcome.seconds <= 310


def test_a_closed_loop_of_a_number_of_requests_ends_with_them(tmp_path: Path) -> None:
    with server() as (url, behaviour):
        outcome = run(url, tmp_path, users=2, seconds=60.0, requests=40)
    assert outcome.sent == 40
    assert behaviour.count <= 42
    assert outcome.seconds < 60


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(chunked=True),
        Behaviour(close_every=7),
        Behaviour(close_every=7, silent_close=True),
        Behaviour(close_every=1, chunked=True),
    ],
    ids=["chunked", "closing", "closing without a word", "closing each time"],
)
def test_what_servers_do_with_connections_costs_no_request(tmp_path: Path, behaviour: Behaviour) -> None:
    with server(behaviour) as (url, _):
        for fields in ({"due": constant(200, 0.3), "seconds": 0.3}, {"users": 3, "requests": 60, "seconds": 60.0}):
            outcome = run(url, tmp_path, **fields)
            assert outcome.statuses == {"200": 60}


def test_statuses_are_counted_and_only_200_is_timed(tmp_path: Path) -> None:
    with server(Behaviour(status=lambda number: 503 if number % 3 == 0 else 200)) as (url, _):
        outcome = run(url, tmp_path, due=constant(200, 0.3), seconds=0.3)
    assert outcome.statuses == {"200": 40, "503": 20}
    assert len(outcome.response_s) == 40


def test_a_request_that_is_not_answered_in_time_is_a_timeout_and_the_rest_goes_on(tmp_path: Path) -> None:
    with server(Behaviour(hang_every=10)) as (url, _):
        outcome = run(url, tmp_path, due=constant(100, 0.3), seconds=0.3, timeout_s=0.25, connections=8)
    assert outcome.statuses["timeout"] == 3
    assert outcome.statuses["200"] + outcome.dropped == 27


def test_what_finds_no_free_connection_within_the_window_is_dropped(tmp_path: Path) -> None:
    with server(Behaviour(service_s=0.1)) as (url, behaviour):
        outcome = run(url, tmp_path, due=constant(100, 0.5), seconds=0.5, connections=2)
    assert outcome.offered == 50
    assert outcome.dropped == 50 - outcome.sent > 20
    assert behaviour.count == outcome.sent
    # Those that were sent had to wait: that is in the response time and not in the service time.
    assert max(outcome.response_s) > 0.2
    assert outcome.late_p99_s is not None
    assert outcome.late_p99_s > 0.1


def test_a_server_that_is_not_there_refuses_everything(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        opened = run(url, tmp_path, due=constant(50, 0.2), seconds=0.2)
        closed = run(url, tmp_path, users=2, seconds=0.1)
    assert opened.statuses == {"refused": 10}
    assert set(closed.statuses) == {"refused"}
    assert opened.response_s == ()


def test_bytes_that_are_no_http_are_broken_and_not_answers(tmp_path: Path) -> None:
    with server(Behaviour(garbage=True)) as (url, _):
        outcome = run(url, tmp_path, due=constant(50, 0.2), seconds=0.2)
    assert outcome.statuses == {"broken": 10}


def test_an_open_loop_sees_the_stall_that_a_closed_loop_hides(tmp_path: Path) -> None:
    """A server that stands still for half of the time: half of those who come meet it.

    The one user of a closed loop waits once for each stall, and has many quick answers in between to hide it behind.
    """
    stalling = Behaviour(stall_every_s=0.8, stall_s=0.4)
    with server(stalling) as (url, _):
        closed = run(url, tmp_path, users=1, seconds=1.6)
        opened = run(url, tmp_path, due=constant(50, 1.6), seconds=1.6)

    def share_of_slow(outcome: Outcome) -> float:
        return sum(seconds > 0.1 for seconds in outcome.response_s) / len(outcome.response_s)

    assert share_of_slow(closed) < 0.1
    assert share_of_slow(opened) > 0.2
