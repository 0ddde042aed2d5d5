"""The grid on a real Ray cluster of several nodes on this machine: every cell once, also when a node dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.onnx_models import conv_model

from redline.commands.bench import bench
from redline.core.errors import DeviceError
from redline.study.config import StudyConfig
from redline.study.journal import read_records
from redline.study.records import CellEnded

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'redline[cluster]'"),
    # Ray leaves its pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    started.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield started
    started.shutdown()


def small(model: Path, **values: object) -> StudyConfig:
    given = {
        "models": (str(model),),
        "backends": ("onnxruntime",),
        "precisions": ("fp32", "int8-dynamic"),
        "batches": (1, 2, 3, 4),
        "baseline": "onnxruntime-fp32",
        "rounds": 3,
        "window_s": 0.01,
        "warmup_s": 0.05,
        "repeats": 1,
        "threads": 1,
        **values,
    }
    return StudyConfig(**given)  # type: ignore[arg-type]


def test_groups_run_on_every_node_and_each_on_one(tmp_path: Path, cluster: Any) -> None:
    study = bench(small(conv_model(tmp_path / "model.onnx")), tmp_path / "run.jsonl", cluster=cluster.address)
    assert [row.outcome for row in study.rows] == ["measured"] * 12
    cells = [record for record in read_records(tmp_path / "run.jsonl") if isinstance(record, CellEnded)]
    assert len({cell.cell for cell in cells}) == len(cells) == 12
    by_batch: dict[int, set[str]] = {}
    for cell in cells:
        by_batch.setdefault(cell.batch, set()).add(str(cell.node))
    assert all(len(nodes) == 1 for nodes in by_batch.values())
    assert len(set.union(*by_batch.values())) == 2
    assert set(study.nodes) == set.union(*by_batch.values())
    assert all(row.is_baseline or row.evidence is not None for row in study.rows)


def test_a_worker_that_dies_is_replaced(tmp_path: Path, cluster: Any) -> None:
    config = small(conv_model(tmp_path / "model.onnx"), rounds=8)
    killed = threading.Event()

    def kill_one() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not killed.is_set():
            for process in psutil.process_iter(["pid", "name", "cmdline"]):
                if "measure_group" in " ".join(process.info["cmdline"] or ()):
                    os.kill(process.info["pid"], signal.SIGKILL)
                    killed.set()
                    return
            time.sleep(0.01)

    hunter = threading.Thread(target=kill_one)
    hunter.start()
    study = bench(config, tmp_path / "run.jsonl", cluster=cluster.address)
    hunter.join()
    assert killed.is_set()
    assert [row.outcome for row in study.rows] == ["measured"] * 12
    cells = [record.cell for record in read_records(tmp_path / "run.jsonl") if isinstance(record, CellEnded)]
    assert len(set(cells)) == len(cells) == 12


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no Ray cluster answers at 127.0.0.1:1"):
        bench(small(conv_model(tmp_path / "model.onnx")), tmp_path / "run.jsonl", cluster="127.0.0.1:1")
