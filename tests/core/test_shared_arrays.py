"""Inputs that processes share: equal everywhere, nobody's own."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from tests.measurement.fakes import Doubler
from tests.measurement.test_worker import source

from redline.core.errors import InputError, WorkerError
from redline.core.shared_arrays import SharedBatches, open_shared
from redline.measurement.worker import Worker


def batches() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        {"x": random.standard_normal((3, 5)).astype(np.float32), "n": random.integers(0, 9, 7), "": np.array(True)},
        {"x": np.zeros((0, 4), np.float16), "t": random.standard_normal((4, 6))[:, ::2].T},
    ]


def test_contents_dtypes_and_shapes_are_those_given() -> None:
    given = batches()
    with SharedBatches.create(given) as shared:
        for found in (shared.batches, open_shared(pickle.loads(pickle.dumps(shared.handle)))):
            for one, other in zip(given, found, strict=True):
                assert one.keys() == other.keys()
                for name, array in one.items():
                    assert type(other[name]) is np.ndarray
                    assert (other[name].dtype, other[name].shape) == (array.dtype, array.shape)
                    assert other[name].flags.writeable
                    assert other[name].ctypes.data % 64 == 0
                    np.testing.assert_array_equal(other[name], array)


def test_what_one_process_writes_no_other_sees() -> None:
    with SharedBatches.create([{"x": np.arange(4)}]) as shared:
        mine, theirs = open_shared(shared.handle)[0]["x"], open_shared(shared.handle)[0]["x"]
        mine[:] = -1
        assert theirs.tolist() == shared.batches[0]["x"].tolist() == [0, 1, 2, 3]


def test_who_has_mapped_them_keeps_them() -> None:
    shared = SharedBatches.create([{"x": np.arange(4)}])
    handle, mapped = shared.handle, open_shared(shared.handle)
    shared.close()
    shared.close()
    gc.collect()
    assert mapped[0]["x"].tolist() == [0, 1, 2, 3]
    with SharedBatches.create([{"x": np.ones(1)}]), pytest.raises(FileNotFoundError):
        open_shared(handle)


def test_a_system_without_files_in_memory_takes_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with SharedBatches.create([{"x": np.arange(4)}]) as shared:
        assert Path(shared.handle.path).is_file()
        assert open_shared(shared.handle)[0]["x"].tolist() == [0, 1, 2, 3]
    assert not Path(shared.handle.path).exists()


def test_python_objects_are_refused() -> None:
    with pytest.raises(InputError, match="'x' is object"):
        SharedBatches.create([{"x": np.array([None])}])


def test_a_worker_reads_them_and_they_are_none_of_its_memory() -> None:
    given = [{"x": np.full((13_000_000, 2), index, np.float32)} for index in (1, 2)]
    assert sum(batch["x"].nbytes for batch in given) > 200e6
    with SharedBatches.create(given) as shared, Worker(source("make_reader")) as worker:
        before = worker.memory()
        worker.prepare_shared("all", shared.handle, limit_s=0.0)
        assert [worker.call_shared("all", index)["y"].tolist() for index in (0, 1, 2)] == [[26e6], [52e6], [26e6]]
        after = worker.memory()
    assert after.private_peak_bytes - before.private_peak_bytes < 20e6
    assert after.rss_peak_bytes - before.rss_peak_bytes > 100e6


def test_a_worker_says_that_they_are_closed() -> None:
    shared = SharedBatches.create([{"x": np.ones((1, 2), np.float32)}])
    shared.close()
    with Worker(source()) as worker, pytest.raises(WorkerError, match="No such file|are closed"):
        worker.prepare_shared(1, shared.handle)


def test_a_session_answers_them_as_it_answers_any() -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    with SharedBatches.create([{"x": x}]) as shared:
        np.testing.assert_array_equal(Doubler()(open_shared(shared.handle)[0])["y"], 2 * x)
