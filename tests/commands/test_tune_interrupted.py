"""A tune that is killed, stopped, crowded out or told otherwise: nothing half-done, nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import psutil
import pytest
from tests.onnx_models import conv_model

from redline.cli import main
from redline.core.files import sha256_of

VARIANTS = ("onnxruntime-fp32", "onnxruntime-int8-dynamic")
ROUNDS = 4
# The limits of this machine take longer to measure than the model; what comes after the pause never happens.
RUNNER = """
import sys, time
import redline.commands.tune as tune, redline.study.ceilings as measure
measure._GEMM_TRIALS = ()
measure.copy_gbytes_per_s = lambda threads: 10.0
if sys.argv[1] == "pause":
    tune.conclude = lambda *a, **k: time.sleep(60)
from redline.cli import main
sys.exit(main(sys.argv[2:]))
"""


def words(
    model: object, out: Path, *more: str, variants: tuple[str, ...] = VARIANTS, rounds: int = ROUNDS
) -> list[str]:
    chosen = [word for name in variants for word in ("--variant", name)]
    timing = ["--rounds", str(rounds), "--repeats", "2", "--confirm", "1", "--window", "0.02", "--threads", "1"]
    return ["tune", str(model), "-o", str(out), *chosen, *timing, *more]


def start(arguments: list[str], *, pause: bool = False, **popen: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, "pause" if pause else "go", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **popen,
    )


def finish(arguments: list[str], **popen: Any) -> tuple[int, str, str]:
    process = start(arguments, **popen)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def records_in(out: Path) -> list[dict[str, Any]]:
    """The whole lines so far."""
    try:
        text = (out / "results.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def wait_until(reached: Callable[[list[dict[str, Any]]], bool], out: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 100
    while not reached(records_in(out)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, records_in(out)
        time.sleep(0.01)


def count(kind: str, least: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda records: sum(record["kind"] == kind for record in records) >= least


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def scratch_in(out: Path) -> list[str]:
    found = (path.relative_to(out).as_posix() for path in out.rglob("*"))
    return sorted(name for name in found if ".partial" in name or ".work-" in name)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return conv_model(tmp_path / "model.onnx")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, image=np.random.default_rng(0).random((12, 3, 16, 16), dtype=np.float32))
    return path


KILLED_AT: dict[str, Callable[[list[dict[str, Any]]], bool]] = {
    "the run is recorded": count("run", 1),
    "two files are made": count("artifact", 2),
    "in the middle of the rounds": count("samples", 2 * len(VARIANTS)),
    "all are screened": count("finalists", 1),
    "all is measured": count("confirmed", 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", KILLED_AT)
def test_a_killed_tune_goes_on_and_repeats_nothing(moment: str, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = words(model, out, "--data", str(data))
    process = start(arguments, pause=True)
    wait_until(KILLED_AT[moment], out, process)
    workers = descendants(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(workers), "workers outlived the tune"
    before = records_in(out)
    made = {record["path"]: record["sha256"] for record in before if record["kind"] == "artifact"}
    times = {path: (out / path).stat().st_mtime_ns for path in made}
    assert {path: sha256_of(out / path) for path in made} == made
    assert not (out / "best").exists()

    code, text, err = finish([*arguments, "--resume", "--json"])
    assert (code, err) == (0, ""), err
    assert json.loads(text)["best"] == str(out / "best")
    after = records_in(out)
    assert after[: len(before)] == before
    assert {path: (out / path).stat().st_mtime_ns for path in made} == times
    timed = Counter(
        (r["cell"].split("/")[-4], r["phase"], r["process"], r["round"]) for r in after if r["kind"] == "samples"
    )
    names = (*VARIANTS, "onnxruntime-fp32-control")
    screened = {(name, "screen", process, index) for name in names for process in (0, 1) for index in range(ROUNDS)}
    again = {(name, "confirm", 0, index) for name in names for index in range(ROUNDS + 2)}
    assert timed == dict.fromkeys(screened | again, 1)
    for kind in ("agreement", "variant", "cell"):
        known = VARIANTS if kind == "agreement" else names  # a control is the baseline
        assert sorted(r["variant"] for r in after if r["kind"] == kind) == sorted(known), kind
    for kind in ("run", "dependence", "macs", "bandwidth", "finalists", "confirmed", "conclusion"):
        assert sum(r["kind"] == kind for r in after) == 1, kind
    assert len({r["name"] for r in after if r["kind"] == "artifact"}) == 2
    assert scratch_in(out) == []


@pytest.mark.slow
def test_a_tune_that_is_killed_in_export_goes_on(data: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n"
        "    torch.seed()\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 5)), torch.rand(1, 3, 16, 16)\n"
    )
    out = tmp_path / "out"
    arguments = words(f"{tmp_path / 'net.py'}:make", out, variants=("onnxruntime-fp32",))
    process = start(arguments)
    wait_until(lambda records: bool(records) and bool(list((out / "artifacts").glob(".*.partial*"))), out, process)
    workers = descendants(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(workers)
    assert scratch_in(out) != []
    weights = sha256_of(out / "artifacts" / "weights.safetensors")
    code, _, err = finish([*arguments, "--resume"])
    assert (code, err) == (0, "")
    assert sha256_of(out / "artifacts" / "weights.safetensors") == weights
    assert scratch_in(out) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_keeps_what_is_finished(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # So long that it cannot be over before the signal comes.
    arguments = words(model, out, variants=("onnxruntime-fp32",), rounds=100)
    process = start(arguments)
    wait_until(count("samples", 2), out, process)
    workers = descendants(process)
    assert workers
    process.send_signal(signal.SIGINT)
    text, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert text == ""
    assert err == "redline: error: interrupted; what was finished is kept; go on with --resume\n"
    assert gone(workers)
    assert scratch_in(out) == []
    measured = [r for r in records_in(out) if r["kind"] == "samples"]
    code, _, err = finish([*arguments, "--resume"])
    assert (code, err) == (0, "")
    assert [r for r in records_in(out) if r["kind"] == "samples"][: len(measured)] == measured


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    folder = tmp_path_factory.mktemp("finished")
    arguments = words(conv_model(folder / "model.onnx"), folder / "out", variants=("onnxruntime-fp32",))
    code, _, err = finish(arguments)
    assert (code, err) == (0, "")
    return arguments, folder / "out"


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("redline: error: ")
    assert err.count("\n") == 1
    return err


def test_a_finished_run_is_not_overwritten(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, out = finished
    before = (out / "results.jsonl").read_bytes()
    assert "holds a run already; go on with it by --resume" in complaint(arguments, capsys)
    assert (out / "results.jsonl").read_bytes() == before


def test_a_finished_run_is_told_again(finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments, out = finished
    before = (out / "results.jsonl").read_bytes()
    assert main([*arguments, "--resume"]) == 0
    text, err = capsys.readouterr()
    assert "Deploy:" in text
    assert err == ""
    assert (out / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--rounds", "5"], "another rounds (4, now 5)"),
        (["--objective", "size"], "another objective ('latency', now 'size')"),
        (["--threads", "2"], "another threads (1, now 2)"),
    ],
)
def test_other_options_are_named_and_refused(
    more: list[str], told: str, finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in complaint([*finished[0], *more, "--resume"], capsys)


def test_another_model_and_other_data_are_named_and_refused(
    finished: tuple[list[str], Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, out = finished
    other = conv_model(tmp_path / "other.onnx", seed=1)
    assert "another models (" in complaint([*words(other, out), "--resume"], capsys)
    assert "another variants (" in complaint([*words(other, out), "--resume"], capsys)
    assert "another data (" in complaint([*arguments, "--data", str(data), "--resume"], capsys)


def test_a_second_tune_in_one_folder_is_told_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with filelock.FileLock(out / ".lock"):
        for resume in ([], ["--resume"]):
            assert "is held by another tune" in complaint([*words(model, out), *resume], capsys)
    assert list(out.iterdir()) == [out / ".lock"]


def test_what_a_killed_start_left_does_not_stand_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (out / "artifacts").mkdir(parents=True)
    (out / "artifacts" / "weights.safetensors").write_bytes(b"of another model")
    (out / "results.jsonl").write_bytes(b'{"kind": "ru')
    (out / ".work-abc").mkdir()
    (out / ".work-abc" / "calibration.npz").write_bytes(b"x")
    assert "nowhere.onnx" in complaint(words("nowhere.onnx", out), capsys)
    assert list(out.iterdir()) == []


def test_a_folder_called_best_that_is_no_tunes_is_not_replaced(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").write_text("ten years of work")
    assert "would be replaced" in complaint(words(model, tmp_path), capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "model.onnx"]


@contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size; needs the rights to mount one."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line(tmp_path: Path, data: Path) -> None:
    model = conv_model(tmp_path / "model.onnx", channels=2000)
    with tiny_disk(tmp_path / "disk", "500k") as disk:
        code, text, err = finish(words(model, disk / "out", "--data", str(data)))
        assert (code, text) == (2, "")
        assert err.count("\n") == 1
        assert err.startswith("redline: error: the disk is full")
        assert not (disk / "out" / "best").exists()
        assert scratch_in(disk) == []


def limit_of_files(size_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    return limit


@pytest.mark.slow
@pytest.mark.parametrize("size_bytes", [100, 230_000])
def test_a_file_that_may_not_grow_is_one_line(size_bytes: int, tmp_path: Path, data: Path) -> None:
    model = conv_model(tmp_path / "model.onnx", channels=2000)
    out = tmp_path / "out"
    arguments = words(model, out, "--data", str(data), variants=("onnxruntime-fp32",))
    code, _, err = finish(arguments, preexec_fn=limit_of_files(size_bytes))
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("redline: error: ")
    assert not (out / "best").exists()
    assert scratch_in(out) == []
    for record in records_in(out):
        if record["kind"] == "artifact":
            assert sha256_of(out / record["path"]) == record["sha256"]
    if not out.exists():
        return
    # With room again it goes on.
    code, _, err = finish([*arguments, "--resume"])
    assert (code, err) == (0, "")
