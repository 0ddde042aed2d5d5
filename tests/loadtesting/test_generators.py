"""locust and ab, each in its process: the same counts as ours, from their own words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.loadtesting.servers import Behaviour, server

from redline.core.errors import InputError, WorkerError
from redline.loadtesting import ab_run
from redline.loadtesting.ab_run import command_line, parse_report, parse_times
from redline.loadtesting.generators import OwnGenerator, open_generator
from redline.loadtesting.job import Job, Parcel

# What ab 2.4.71 printed of a server that answered every tenth request with 503.
AB_REPORT = """This is ApacheBench, Version 2.3 <$Revision$>

Benchmarking 127.0.0.1 (be patient).....done


Server Software:        BaseHTTP/0.6
Document Path:          /v2/models/model/infer
Document Length:        Variable

Concurrency Level:      4
Time taken for tests:   0.153 seconds
Complete requests:      50
Failed requests:        0
Non-2xx responses:      5
Keep-Alive requests:    50
Total transferred:      6028 bytes
Requests per second:    326.80 [#/sec] (mean)
"""
AB_TIMES = """starttime\tseconds\tctime\tdtime\tttime\twait
Sun Nov 22 15:08:36 2026\t1795360116\t0\t11\t11\t11
Sun Nov 22 15:08:36 2026\t1795360116\t1\t12\t13\t12
"""


def parcel(url: str, folder: Path) -> str:
    port = int(url.rpartition(":")[2])
    headers = {"Content-Type": "text/plain", "X-Test": "yes"}
    Parcel(host="127.0.0.1", port=port, path="/infer", headers=headers, bodies=(b"one", b"two")).save(folder)
    return str(folder)


def test_our_generator_runs_many_windows_in_one_process_that_is_not_ours(tmp_path: Path) -> None:
    with server(Behaviour(service_s=0.005)) as (url, _):
        generator = OwnGenerator()
        try:
            job = Job(parcel=parcel(url, tmp_path), users=2, lead_s=0.05, seconds=0.2)
            first, second = generator.run(job), generator.run(job)
        finally:
            generator.close()
            generator.close()
    assert first.statuses.keys() == second.statuses.keys() == {"200"}
    assert 0 < first.client_rss_bytes < 60_000_000  # neither NumPy nor this process's memory is in it


def test_a_generator_that_dies_says_what_it_said(tmp_path: Path) -> None:
    generator = OwnGenerator()
    try:
        with pytest.raises(WorkerError, match="parcel.msgpack"):
            generator.run(Job(parcel=str(tmp_path / "nothing"), users=1))
    finally:
        generator.close()


def test_locust_counts_what_the_server_counts_with_exact_times(tmp_path: Path) -> None:
    pytest.importorskip("geventhttpclient")
    behaviour = Behaviour(service_s=0.01, status=lambda number: 503 if number % 10 == 0 else 200)
    with server(behaviour) as (url, seen):
        outcome = open_generator("locust").run(
            Job(parcel=parcel(url, tmp_path), users=3, lead_s=0.1, seconds=5.0, requests=60)
        )
        assert outcome.sent + outcome.lead == seen.count
    assert outcome.sent == 60
    assert outcome.statuses["503"] == pytest.approx(6, abs=1)
    assert len(outcome.response_s) == outcome.statuses["200"]
    assert min(outcome.response_s) >= 0.01
    assert any(1000 * seconds % 1 > 1e-6 for seconds in outcome.response_s)  # not whole milliseconds
    assert {body for _, _, body in seen.seen} == {b"one", b"two"}
    assert seen.seen[0][1]["x-test"] == "yes"


def test_locust_tells_of_a_server_that_is_gone(tmp_path: Path) -> None:
    with server() as (url, _):
        job = Job(parcel=parcel(url, tmp_path), users=1, seconds=0.2, requests=5)
    assert set(open_generator("locust").run(job).statuses) == {"refused"}


def test_abs_report_is_read() -> None:
    report = parse_report(AB_REPORT)
    assert (report.seconds, report.complete, report.failed, report.not_2xx) == (0.153, 50, 0, 5)
    assert parse_times(AB_TIMES) == [0.011, 0.013]
    with pytest.raises(WorkerError, match="cannot connect"):
        parse_report("ab: cannot connect")
    with pytest.raises(WorkerError, match="ttime"):
        parse_times("a\tb\n")


def test_abs_command_line_has_every_header_once(tmp_path: Path) -> None:
    one = Parcel.load(Path(parcel("http://127.0.0.1:9", tmp_path)))
    words = command_line(Job(parcel="", users=4), one, tmp_path / "b", tmp_path / "t", seconds=1.5)
    assert words[:2] == ["ab", "-k"]
    assert words[words.index("-T") + 1] == "text/plain"
    assert words.count("-H") == 1
    assert words[words.index("-t") + 1] == "2"
    assert words.index("-t") < words.index("-n")  # ab forgets -n otherwise
    assert words[-1] == "http://127.0.0.1:9/infer"


def fake_ab(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "report").write_text(AB_REPORT)
    (folder / "times").write_text(AB_TIMES.splitlines()[0] + "\n" + 50 * (AB_TIMES.splitlines()[1] + "\n"))
    script = folder / "ab"
    out = 'while [ "$1" != -g ]; do shift; done; cp "$(dirname "$0")/times" "$2"; cat "$(dirname "$0")/report"'
    script.write_text(f"#!/bin/sh\n{out}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_ab_becomes_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ab(tmp_path / "bin", monkeypatch)
    job = Job(parcel=parcel("http://127.0.0.1:9", tmp_path / "p"), users=4, lead_s=0.2, seconds=1.0)
    outcome = open_generator("ab").run(job)
    assert outcome.statuses == {"200": 45, "not 2xx": 5}
    assert len(outcome.response_s) == 45
    assert (outcome.sent, outcome.lead, outcome.seconds) == (50, 50, 0.153)
    assert any("whole milliseconds" in note for note in outcome.notes)


@pytest.mark.skipif(shutil.which("ab") is None, reason="ab is not installed")
def test_ab_itself_counts_what_the_server_counts(tmp_path: Path) -> None:
    with server(Behaviour(status=lambda number: 503 if number % 10 == 0 else 200)) as (url, behaviour):
        outcome = open_generator("ab").run(Job(parcel=parcel(url, tmp_path), users=4, seconds=5.0, requests=50))
        assert behaviour.count == outcome.sent == 50
    assert outcome.statuses == {"200": 45, "not 2xx": 5}


def test_a_server_that_says_nothing_is_no_success_for_ab() -> None:
    report = parse_report(AB_REPORT.replace("6028", "0"))
    outcome = ab_run._outcome(report, [0.001] * 50, lead=0, elapsed_s=1.0, client_cpu_s=0.0)
    assert outcome.statuses == {"200": 0, "not 2xx": 5, "broken": 50}
    assert outcome.response_s == ()


def test_a_tool_that_is_missing_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="apt-get install apache2-utils"):
        open_generator("ab")
