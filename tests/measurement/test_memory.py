"""The memory that is told is the memory that was taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.measurement.test_worker import X, source

from redline.core.plain import from_plain, to_plain
from redline.measurement import gpu_state, memory
from redline.measurement.memory import Memory, MemoryWatch
from redline.measurement.worker import Worker

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's marks are Linux's")


def peak_bytes(megabytes: int, during_calls: int = 0) -> int:
    with Worker(source("make_greedy", megabytes=megabytes, during_calls=during_calls)) as worker:
        worker.prepare(1, [X], limit_s=0.0)
        worker.time(1, duration_s=0.0, min_calls=2)
        return worker.memory().private_peak_bytes


@pytest.fixture(scope="module")
def nothing_bytes() -> int:
    return peak_bytes(0)


@pytest.mark.parametrize("megabytes", [200, 500])
def test_what_a_session_holds_is_told_within_5_percent(megabytes: int, nothing_bytes: int) -> None:
    assert peak_bytes(megabytes) - nothing_bytes == pytest.approx(megabytes * 1e6, rel=0.05)


@on_linux
def test_what_a_call_takes_and_gives_back_is_told_too(nothing_bytes: int) -> None:
    assert peak_bytes(100, during_calls=200) - nothing_bytes == pytest.approx(300e6, rel=0.05)


@on_linux
def test_a_peak_that_no_poll_can_see_is_told() -> None:
    with Worker(source("make_greedy", megabytes=0, during_calls=300)) as worker:
        worker.prepare(1, [X], limit_s=0.0)
        before = worker.memory().private_before_bytes
        worker.time(1, duration_s=0.0, max_calls=1)
        now = psutil.Process(worker._child.pid).memory_full_info().uss
        peak = worker.memory().private_peak_bytes
    assert now - before < 100e6
    assert peak - before == pytest.approx(300e6, rel=0.05)


@on_linux
def test_what_is_sent_to_a_worker_is_no_peak_of_its_session() -> None:
    large = {"x": np.ones((25_000_000, 2), np.float32)}
    with Worker(source("make_reader")) as worker:
        empty = worker.memory().private_peak_bytes
        worker.prepare(1, [large], limit_s=0.0)
        found = worker.memory()
    assert found.private_peak_bytes - empty == pytest.approx(large["x"].nbytes, rel=0.2)  # the message would be 100 %
    assert found.rss_peak_bytes - empty > 1.9 * large["x"].nbytes  # the message and the array made of it


def test_without_a_gpu_nothing_is_told_of_one() -> None:
    with Worker(source("make_greedy", megabytes=0)) as worker:
        found = worker.memory()
    assert (found.device_peak_bytes, found.device_source, found.allocator_peak_bytes) == (None, None, None)
    assert from_plain(Memory, to_plain(found), where="here") == found


@pytest.fixture
def _rising(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    readings = count(1000)
    monkeypatch.setattr(gpu_state, "process_bytes", lambda pid, device: next(readings) if device == 2 else None)
    return


@pytest.mark.usefixtures("_rising")
def test_on_a_gpu_the_driver_and_the_allocator_are_asked() -> None:
    with Worker(source("make_greedy", megabytes=0), cuda_device=2) as worker:
        first = worker.memory()
        worker.prepare(1, [X], limit_s=0.0)
        second = worker.memory()
    assert first.device_source == "nvml process"
    assert 1000 <= (first.device_peak_bytes or 0) < (second.device_peak_bytes or 0)
    assert second.allocator_peak_bytes == 1234
    with Worker(source(), cuda_device=0) as worker:
        found = worker.memory()
    assert (found.device_peak_bytes, found.device_source, found.allocator_peak_bytes) == (None, None, None)


@pytest.mark.usefixtures("_rising")
def test_a_worker_that_died_still_has_its_figures() -> None:
    with Worker(source(die_at=1), cuda_device=2) as worker:
        with pytest.raises(Exception, match="killed"):
            worker(X)
        assert worker.memory().private_peak_bytes > 0


def test_swapped_memory_counts_and_clean_pages_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rollup = "55-7f ---p 0 [rollup]\nRss: 100 kB\nShared_Clean: 30 kB\nPrivate_Dirty: 60 kB\nPrivate_Hugetlb: 8 kB\n"
    monkeypatch.setattr(memory.Path, "read_text", lambda self: rollup + "Private_Clean: 10 kB\nSwapPss: 5 kB\n")
    assert memory._usage(1) == (73 * 1024, 40 * 1024)


def test_a_system_without_proc_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(memory.Path, "read_text", missing)
    monkeypatch.setattr(memory.Path, "write_text", missing)
    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda self: type("Info", (), {"uss": 700, "rss": 900})())
    watch = MemoryWatch(os.getpid())
    with watch.noting_peak():
        pass
    assert watch.result() == Memory(
        private_peak_bytes=700, private_before_bytes=700, rss_peak_bytes=700, libraries_bytes=200
    )


@on_linux
def test_the_first_of_two_twins_needs_no_more_than_the_second() -> None:
    """Whoever maps a library first has its clean pages for itself until the next comes."""
    found = []
    with ExitStack() as stack:
        for _ in range(2):
            worker = stack.enter_context(Worker(source("make_with_runtime", megabytes=60)))
            worker.prepare(1, [X], limit_s=0.0)
            worker.time(1, duration_s=0.0, min_calls=2)
            found.append(worker.memory().private_peak_bytes)
    assert found[0] == pytest.approx(found[1], rel=0.05)


@on_linux
def test_a_file_of_the_models_own_counts_and_no_other(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    with weights.open("wb") as file:
        file.write(os.urandom(80_000_000))
        file.flush()
        os.fsync(file.fileno())  # pages that are not on the disk yet are dirty, whoever maps them
    sizes = []
    for own in ((), (weights,)):
        with Worker(source("make_mapping", path=str(weights)), own_files=own) as worker:
            worker.prepare(1, [X], limit_s=0.0)
            sizes.append(worker.memory().private_peak_bytes)
    assert sizes[1] - sizes[0] == pytest.approx(80e6, rel=0.05)
