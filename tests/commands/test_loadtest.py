"""``redline loadtest`` from its command line: against small servers, and against models that it serves itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.loadtesting.servers import Behaviour, server
from tests.onnx_models import conv_model

from redline.cli import main
from redline.commands.loadtest import loadtest
from redline.core.errors import InputError
from redline.loadtesting.results import read_loadtest
from redline.loadtesting.summary import summarize

SHORT = ("--seconds", "0.25", "--rounds", "3", "--quiet")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No half-second look at the machine's noise."""
    monkeypatch.setattr("redline.commands.loadtest.noise_check", lambda: None)


def test_two_urls_are_held_against_each_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with server(Behaviour(service_s=0.02, cores=1)) as (a, _), server(Behaviour(service_s=0.005, cores=1)) as (b, _):
        words = ["loadtest", f"fp32={a}", f"int8={b}", "--users", "2", "--rate", "20", "-o", str(tmp_path), *SHORT]
        code = main([*words, "--json", "--slo-ms", "1000", "--fail-if", "rps_ratio < 1.2", "--fail-if", "errors > 0"])
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert (code, err, told["failed"]) == (0, "", [])
    assert told["comparisons"][0]["verdict"] == "more"
    document = read_loadtest(tmp_path)
    assert [point.label for point in document.points] == ["2 users", "20/s"]
    assert [len(point.windows) for point in document.points] == [6, 6]
    assert sorted(window.order for point in document.points for window in point.windows) == list(range(12))
    summary = summarize(document)
    assert summary.comparisons[0].rps is not None
    assert summary.comparisons[0].rps.low > 1.2
    assert document.agreement is not None
    assert document.agreement.top1 == 1.0
    split = summary.targets[0].points[0].server
    assert split is not None
    assert split.compute_infer_s == pytest.approx(0.02)
    assert (tmp_path / "loadtest.html").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loadtest.html", "loadtest.json"]


def test_a_gate_that_fails_is_exit_code_1_and_a_wrong_one_is_said_before_anything_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with server() as (url, behaviour):
        words = ["loadtest", url, "--users", "1", "-o", str(tmp_path / "out"), *SHORT]
        assert main([*words, "--fail-if", "p98_ms > 1"]) == 2
        assert "expected one of: p50_ms" in capfd.readouterr().err
        assert behaviour.count == 0
        assert main([*words, "--fail-if", "rps > 0", "--fail-if", "errors > 0"]) == 1
    out = capfd.readouterr().out
    assert "Failed: rps > 0" in out
    assert "errors > 0" not in out


def test_without_loads_the_knee_is_looked_for(tmp_path: Path) -> None:
    said: list[tuple[str, float, float]] = []
    with server(Behaviour(service_s=0.01, cores=1)) as (url, _):
        summary = loadtest([url], tmp_path, seconds=0.2, rounds=1, listener=lambda *told: said.append(told))
    points = summary.targets[0].points
    assert [point.users for point in points[:4]] == [1, 2, 4, 8]
    best = max(point.rps for point in points[:4])
    rates = [point.rate for point in points[4:]]
    assert rates == pytest.approx([share * best for share in (0.5, 0.7, 0.8, 0.9, 1.0, 1.1)], rel=0.01)
    assert said[-1][1] <= said[-1][2]
    assert said[-1][0].startswith("round 1 of 1")


def test_a_number_of_requests_is_spread_over_the_rounds(tmp_path: Path) -> None:
    with server() as (url, _):
        summary = loadtest([url], tmp_path, requests=90, rounds=3, users=[2], rates=[200])
    assert [point.requests for point in summary.targets[0].points] == [90, 90]


def test_a_server_that_refuses_what_is_sent_is_told_before_the_load(tmp_path: Path) -> None:
    with (
        server(Behaviour(status=lambda _: 422)) as (url, _),
        pytest.raises(InputError, match="answered 422 to /predict/model"),
    ):
        loadtest([url], tmp_path, body="image/jpeg", users=[1])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rate", "x"], "requests per second"),
        (["--rate", "-5"], "above 0"),
        (["--rate", "5", "--tool", "locust"], "--rate with locust"),
        (["--users", "0"], "whole numbers"),
        (["--seconds", "0"], "0.05 to 3600"),
        (["--rounds", "0"], "1 to 1000"),
        (["--slo-ms", "0"], "above 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["loadtest", "http://127.0.0.1:1", "-o", str(tmp_path / "out"), *words]) == 2
    err = capfd.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_interruption_keeps_what_was_measured_and_ends_the_servers(tmp_path: Path) -> None:
    """Ctrl-C, as a terminal sends it, to a test that would take an hour."""
    with server() as (url, _):
        words = ["loadtest", url, "--users", "1,2", "-o", str(tmp_path), "--seconds", "0.1", "--rounds", "1000"]
        process = subprocess.Popen(
            [sys.executable, "-m", "redline", *words],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not (tmp_path / "loadtest.json").is_file():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
            assert process.returncode is None
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what was finished is kept" in err
    document = read_loadtest(tmp_path)
    assert document.points[0].windows
    assert "interrupted" in document.notes[-1]
    assert children
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert [path.name for path in tmp_path.iterdir()] == ["loadtest.json"]


def test_a_kill_leaves_no_server_and_no_generator(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    words = ["loadtest", str(conv_model(tmp_path / "m.onnx")), "--users", "1", "-o", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-m", "redline", *words, "--rounds", "1000"], stderr=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    while len(children) < 2 or children[-1].cpu_times().user < 0.2:  # the server has begun, and asked to end with us
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
        assert process.returncode is None
        children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in children:
        with suppress(psutil.Error):
            child.wait(5)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_two_models_are_served_loaded_and_ended(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    model, other = conv_model(tmp_path / "fp32.onnx"), conv_model(tmp_path / "other.onnx", seed=1)
    data = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(data, image=rng.random((8, 3, 16, 16), dtype=np.float32), labels=rng.integers(0, 5, 8))
    summary = loadtest([model, f"b={other}"], tmp_path / "out", users=[2], seconds=0.2, rounds=1, data=data)
    document = summary.document
    assert [target.name for target in document.targets] == ["fp32", "b"]
    assert document.targets[0].precision == "fp32"
    assert document.targets[0].size_bytes == model.stat().st_size
    for window in document.points[0].windows:
        assert set(window.statuses) == {"200"}
        assert window.server is not None
        assert window.server.inferences == window.sent + window.lead
        assert window.server_cpu_s is not None
        assert window.server_cpu_s > 0
        assert window.server_rss_bytes
    assert document.agreement is not None
    assert document.agreement.accuracy is not None
    assert not [
        process
        for process in psutil.Process().children(recursive=True)
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def test_a_model_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"the server of .*broken\.onnx ended: .*broken\.onnx"):
        loadtest([broken], tmp_path / "out", users=[1])
