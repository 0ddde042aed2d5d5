"""Slides on a real Ray cluster of several nodes on this machine: the bytes of a local run, whatever dies in between."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.scale.detector_models import spot_model
from tests.scale.pipeline.test_detect import SLIDE, Told, options, outputs, spec
from tests.scale.slides_tools import make_pyramid

from redline.core.errors import DataError, DeviceError, InputError, MissingDependencyError
from scale.cli import main
from scale.pipeline import cluster_fleet
from scale.pipeline.detect import detect

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'redline[cluster]'"),
    # Ray leaves its pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
# So that a node that is killed is missed soon.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 200, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        import ray
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": HEALTH})
        started.add_node(**NODE)
        ray.init(address=started.address, log_to_driver=False)
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spot_model(tmp_path_factory.mktemp("models") / "spots.onnx", size_px=128)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pyramid(tmp_path_factory.mktemp("slides") / "small.tif", 900, 700)


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local run in many strips."""
    out = tmp_path_factory.mktemp("whole")
    assert detect([SLIDE], [spec(model)], out, options=many()).good
    return out / SLIDE.stem


def many(**more: Any) -> Any:
    return options(overlap=64, strip_windows=16, **more)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").glob("0*.npz"))}


class Once(Told):
    """Does something when the first windows are there."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then: Callable[[], None] | None = then
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def windows(self, count: int) -> None:
        super().windows(count)
        if self.then is not None:
            then, self.then = self.then, None
            then()


def workers() -> list[psutil.Process]:
    """Those of the nodes that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith("ray::Worker"):
                found.append(process)
    return found


def kill_workers() -> None:
    for process in workers():
        process.kill()


def test_a_cohort_gives_the_bytes_of_a_local_run_and_a_bad_slide_does_not_stop_it(
    cluster: Any, model: Path, small: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_bytes(SLIDE.read_bytes()[:5000])
    slides, models = [SLIDE, bad, small], [spec(model), spec(model, "wide", 256)]
    here = detect(slides, models, tmp_path / "here", options=options())
    told = Told()
    there = detect(slides, models, tmp_path / "there", options=options(), listener=told, cluster=cluster.address)
    assert [slide.status for slide in there.slides] == ["done", "failed", "done"]
    for one, other in zip(here.slides, there.slides, strict=True):
        assert (one.counts, one.error, one.windows, one.files) == (
            other.counts,
            other.error,
            other.windows,
            other.files,
        )
    for name in (SLIDE.stem, small.stem):
        assert outputs(tmp_path / "there" / name) == outputs(tmp_path / "here" / name) != {}
        assert shards(tmp_path / "there" / name) == shards(tmp_path / "here" / name)
        manifests = [json.loads((tmp_path / where / name / "manifest.json").read_text()) for where in ("here", "there")]
        assert manifests[0] == manifests[1]
    assert told.seen == sum(plan.inferences for plan in told.plans)
    assert len(told.reports) == 3
    rows = json.loads((tmp_path / "there" / "run.json").read_text())["slides"]
    assert sorted(row["status"] for row in rows) == ["done", "done", "failed"]
    timing = there.slides[0].timing
    assert timing is not None
    assert timing.counts["read"] == there.slides[0].windows
    assert all(one.infer_s > 0 for one in timing.models)
    assert 0 < timing.waited_share < 1
    # What was done on a cluster is gone on with here.
    again = detect([SLIDE], models, tmp_path / "there", options=options(resume=True))
    assert again.slides[0].status == "kept"


def test_a_node_that_is_killed_costs_nothing_but_time(cluster: Any, model: Path, whole: Path, tmp_path: Path) -> None:
    node = cluster.add_node(**NODE)
    told = Once(lambda: cluster.remove_node(node, allow_graceful=False))
    report = detect([SLIDE], [spec(model)], tmp_path, options=many(), listener=told, cluster=cluster.address)
    assert told.then is None
    assert (report.slides[0].status, report.slides[0].failures) == ("done", ())
    assert [note for note in told.notes if note.startswith("lost the worker on")]
    assert outputs(tmp_path / SLIDE.stem) == outputs(whole)
    assert shards(tmp_path / SLIDE.stem) == shards(whole)


def test_a_worker_that_is_killed_is_replaced(cluster: Any, model: Path, whole: Path, tmp_path: Path) -> None:
    told = Once(kill_workers)
    report = detect([SLIDE], [spec(model)], tmp_path, options=many(), listener=told, cluster=cluster.address)
    assert told.then is None
    assert report.good
    assert len([note for note in told.notes if note.startswith("lost the worker on")]) == 2
    assert shards(tmp_path / SLIDE.stem) == shards(whole)


COMMAND = """
import sys
from pathlib import Path
from scale.pipeline.detect import detect
from tests.scale.pipeline.test_cluster import SLIDE, many, spec
model, out, address = sys.argv[1:]
detect([SLIDE], [spec(Path(model))], out, options=many(), cluster=address)
"""


def test_a_killed_driver_goes_on_and_ends_with_the_same_bytes(
    cluster: Any, model: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / SLIDE.stem
    process = subprocess.Popen([sys.executable, "-c", COMMAND, str(model), str(tmp_path), cluster.address])
    while process.poll() is None and len(list((folder / "shards").glob("0*.npz"))) < 5:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_mtime_ns for path in (folder / "shards").glob("0*.npz")}
    assert 5 <= len(there) < len(shards(whole))
    told = Told()
    resumed = many(resume=True)
    assert detect([SLIDE], [spec(model)], tmp_path, options=resumed, listener=told, cluster=cluster.address).good
    assert told.seen < told.plans[0].inferences
    assert there == {path: path.stat().st_mtime_ns for path in there}
    assert outputs(folder) == outputs(whole)
    assert shards(folder) == shards(whole)


def test_ctrl_c_keeps_what_is_finished(cluster: Any, model: Path, whole: Path, tmp_path: Path) -> None:
    told = Once(lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        detect([SLIDE], [spec(model)], tmp_path, options=many(), listener=told, cluster=cluster.address)
    assert json.loads((tmp_path / "run.json").read_text())["slides"][0]["status"] == "interrupted"
    kept = shards(tmp_path / SLIDE.stem)
    assert 0 < len(kept) < len(shards(whole))
    assert detect([SLIDE], [spec(model)], tmp_path, options=many(resume=True)).good
    assert outputs(tmp_path / SLIDE.stem) == outputs(whole)


class Deadly:
    """Ends the process that reads it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def test_what_kills_every_worker_is_told_as_missing_and_the_other_slides_are_done(
    cluster: Any, model: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = cluster_fleet.slide_identity
    deadly = {"dead": Deadly()}
    monkeypatch.setattr(cluster_fleet, "slide_identity", lambda s: deadly if s.path == small else identity(s))
    chosen = options(strip_windows=1000)
    report = detect([small, SLIDE], [spec(model)], tmp_path, options=chosen, cluster=cluster.address)
    monkeypatch.undo()
    assert [slide.status for slide in report.slides] == ["incomplete", "done"]
    first = report.slides[0]
    assert len(first.failures) == first.windows
    assert {failure.stage for failure in first.failures} == {"worker"}
    assert "died over it 3 times, last on " in first.failures[0].reason
    resumed = options(strip_windows=1000, resume=True)
    assert [slide.status for slide in detect([small, SLIDE], [spec(model)], tmp_path, options=resumed).slides] == [
        "done",
        "kept",
    ]


def test_a_slide_that_is_another_one_there_is_the_error_of_that_slide(
    cluster: Any, model: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = cluster_fleet.slide_identity
    other = {"size_bytes": "7"}
    monkeypatch.setattr(cluster_fleet, "slide_identity", lambda s: identity(s) | (other if s.path == small else {}))
    report = detect([small, SLIDE], [spec(model)], tmp_path / "a", options=options(), cluster=cluster.address)
    assert [slide.status for slide in report.slides] == ["failed", "done"]
    assert "small.tif is not the slide that was planned: size_bytes" in (report.slides[0].error or "")
    with pytest.raises(DataError, match="is not the slide that was planned"):
        detect([small], [spec(model)], tmp_path / "b", options=options(), cluster=cluster.address)


@pytest.fixture(scope="module")
def other_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on the path, makes a machine one with another version."""
    folder = tmp_path_factory.mktemp("other")
    metadata = folder / "onnxruntime-9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 9.9\n")
    return folder


def test_a_machine_with_other_software_is_refused(
    cluster: Any, model: Path, small: Path, tmp_path: Path, other_onnxruntime: Path
) -> None:
    node = cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(other_onnxruntime)})
    try:
        with pytest.raises(DeviceError, match=rf"\(node {node.node_id[:8]}\): onnxruntime is 9\.9 there and"):
            detect([small], [spec(model)], tmp_path / "out", options=options(), cluster=cluster.address)
    finally:
        cluster.remove_node(node)
    assert not (tmp_path / "out").exists()


def wait_for(true: Callable[[], bool], *, most_s: float = 120, or_else: bool = False) -> None:
    end_s = time.monotonic() + most_s
    while not true():
        if time.monotonic() > end_s:
            assert or_else
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_a_machine_without_the_software_is_left_out(cluster: Any, model: Path, small: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['scale'] = None")
    node = cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        told = Once(lambda: None)
        assert detect(
            [small], [spec(model)], tmp_path / "out", options=options(), listener=told, cluster=cluster.address
        ).good
    finally:
        cluster.remove_node(node)
    (left,) = [note for note in told.notes if note.startswith("left out: ")]
    assert f"(node {node.node_id[:8]})" in left
    assert "scale" in left


@pytest.mark.slow
@pytest.mark.parametrize("alike", [True, False])
def test_a_machine_that_joins_late(
    alike: bool, cluster: Any, model: Path, whole: Path, tmp_path: Path, other_onnxruntime: Path
) -> None:
    begun, joined = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert joined.wait(240)

    told, nodes = Once(wait), []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            detect, [SLIDE], [spec(model)], tmp_path, options=many(), listener=told, cluster=cluster.address
        )
        try:
            assert begun.wait(60)
            nodes.append(cluster.add_node(**NODE, env_vars={} if alike else {"PYTHONPATH": str(other_onnxruntime)}))
            # One that is left out may come and go between two looks.
            wait_for(lambda: len(workers()) == 3, most_s=120 if alike else 20, or_else=not alike)
            if not alike:
                wait_for(lambda: len(workers()) == 2)
        finally:
            joined.set()
            good = running.result().good
            for node in nodes:
                cluster.remove_node(node)
        assert good
    left = [note for note in told.notes if note.startswith("left out: ") and "onnxruntime is 9.9 there" in note]
    assert len(left) == (0 if alike else 1)
    assert shards(tmp_path / SLIDE.stem) == shards(whole)


@pytest.mark.slow
def test_where_no_machine_is_left_finished_strips_are_kept(
    cluster: Any, model: Path, whole: Path, tmp_path: Path
) -> None:
    node = cluster.add_node(**NODE, num_gpus=1)
    told = Once(lambda: cluster.remove_node(node, allow_graceful=False))
    with pytest.raises(DeviceError, match="no machine left that can search"):
        detect([SLIDE], [spec(model)], tmp_path, options=many(), listener=told, cluster=cluster.address, device="cuda")
    assert 0 < len(shards(tmp_path / SLIDE.stem)) < len(shards(whole))
    assert json.loads((tmp_path / "run.json").read_text())["slides"][0]["status"] == "failed"
    assert detect([SLIDE], [spec(model)], tmp_path, options=many(resume=True), cluster=cluster.address).good
    assert outputs(tmp_path / SLIDE.stem) == outputs(whole)


@pytest.mark.slow
def test_where_there_is_a_gpu_workers_have_one_each(cluster: Any, model: Path, small: Path, tmp_path: Path) -> None:
    node = cluster.add_node(**NODE, num_gpus=2)  # which Ray believes
    try:
        told = Once(lambda: None)
        assert detect(
            [small], [spec(model)], tmp_path, options=options(), listener=told, cluster=cluster.address, device="cuda"
        ).good
    finally:
        cluster.remove_node(node)
    assert "workers on the cluster: 2" in told.notes
    assert [note for note in told.notes if "a GPU each, but their models run on the CPU" in note]


def test_a_model_that_workers_cannot_open_is_the_error_of_the_run(cluster: Any, small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(node .*gone\.onnx is not there"):
        detect([small], [spec(tmp_path / "gone.onnx")], tmp_path, options=options(), cluster=cluster.address)


@pytest.mark.parametrize(("device", "error"), [("cuda", DeviceError), ("cuda:1", InputError)])
def test_a_gpu_that_there_is_not_is_refused(
    device: str, error: type[Exception], cluster: Any, model: Path, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match="expected auto, cpu, cuda|the cluster has no GPU"):
        detect([small], [spec(model)], tmp_path, cluster=cluster.address, device=device)


def test_no_worker_is_left_behind(cluster: Any, model: Path, small: Path, tmp_path: Path) -> None:
    assert detect([small], [spec(model)], tmp_path, options=options(), cluster=cluster.address).good
    wait_for(lambda: not workers())


def test_the_command_spreads_its_work(
    cluster: Any, model: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["detect", str(small), str(SLIDE), "-m", str(model), "-o", str(tmp_path), "--cluster", cluster.address]
    assert main([*words, "--timing", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("done") == 2
    assert "workers on the cluster: 2" in err


@pytest.mark.slow
def test_a_cluster_of_this_machine_alone(model: Path, small: Path, tmp_path: Path) -> None:
    words = ["detect", str(small), "-m", str(model), "--format", "json", "--quiet", "--json", "--cluster", "local"]
    command = [sys.executable, "-m", "scale", *words, "-o", str(tmp_path / "there")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["slides"][0]["status"] == "done"
    assert main([*command[3:-4], "-o", str(tmp_path / "here")]) == 0
    assert outputs(tmp_path / "there" / small.stem) == outputs(tmp_path / "here" / small.stem) != {}


def test_a_cluster_that_is_not_there_is_one_line_and_exit_3(
    model: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    words = ["detect", str(small), "-m", str(model), "-o", str(tmp_path), "--cluster", "127.0.0.1:1"]
    assert main(words) == 3
    assert capsys.readouterr().err.startswith("scale: error: no Ray cluster answers at 127.0.0.1:1: ")


def test_without_ray_it_says_what_to_type(
    model: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"redline\[cluster\]"):
        detect([small], [spec(model)], tmp_path, cluster="local")
