from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redline.core.errors import ArtifactError, InputError, RequestError
from redline.core.preprocess import Preprocess
from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.metrics import Metrics
from redline.serving.models import Loaded, Models, ModelSource, Settings
from redline.serving.scheduling import Batching
from redline.serving.versions import batching_for, warm_up

WAIT_S = 20.0
DYNAMIC = Signature((TensorSpec("x", ("batch", 2), "float32"),), (TensorSpec("y", ("batch", 2), "float32"),))


class Fake:
    """A model whose file is JSON: it multiplies by ``scale``; ``broken`` is why it does not open."""

    def __init__(self, path: Path, told: Mapping[str, Any]) -> None:
        self.path = path
        self.scale = float(told.get("scale", 1))
        self.fails = told.get("fails")
        self.closed = 0
        self.seen: list[Mapping[str, Array]] = []

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self.closed:
            raise AssertionError(f"{self.path} was run after it was closed")
        if self.fails:
            raise ArtifactError(self.fails)
        if len(self.seen) < 10:
            self.seen.append(inputs)
        return {"y": inputs["x"] * np.float32(self.scale)}

    def close(self) -> None:
        self.closed += 1


class Workshop:
    """Opens fakes and remembers them."""

    def __init__(self) -> None:
        self.made: list[Fake] = []
        self.opening: Any = lambda path: None

    def __call__(self, path: Path) -> Loaded:
        told = json.loads(path.read_text())
        self.opening(path)
        if "broken" in told:
            raise ArtifactError(f"{path} {told['broken']}")
        if "unexpected" in told:
            raise ZeroDivisionError(str(path))
        fake = Fake(path, told)
        self.made.append(fake)
        inputs = (TensorSpec("x", tuple(told.get("shape", ("batch", 2))), "float32"),)
        return Loaded(
            runs=(fake,) * 2,
            signature=Signature(inputs, DYNAMIC.outputs),
            precision="fp32",
            backend="fake",
            platform="redline",
            size_bytes=path.stat().st_size,
            close=fake.close,
        )


def put(root: Path, name: str, number: int, **told: Any) -> Path:
    """Write a version as one should: beside its place, then renamed."""
    folder = root / name / str(number)
    scratch = folder.with_name(f"{number}.part")
    scratch.mkdir(parents=True)
    (scratch / "model.onnx").write_text(json.dumps(told))
    scratch.rename(folder)
    return folder / "model.onnx"


def write(path: Path, **told: Any) -> None:
    """Replace a model's file, so that it surely looks another one."""
    scratch = path.with_name("." + path.name)
    scratch.write_text(json.dumps(told))
    now_ns = path.stat().st_mtime_ns if path.exists() else 0
    os.utime(scratch, ns=(now_ns + 1, now_ns + 1))
    scratch.replace(path)


def answer(models: Models, name: str, version: str | None = None) -> float:
    with models.use(name, version) as served:
        outputs, _ = served.scheduler.run({"x": np.ones((1, 2), np.float32)}, rows=1, deadline=None)
    return float(outputs["y"][0, 0])


def states(models: Models, name: str) -> dict[str, str]:
    return {row["version"]: row["state"] for row in models.index() if row["name"] == name}


def reason(models: Models, name: str, version: str) -> str:
    return next(row["reason"] for row in models.index() if (row["name"], row["version"]) == (name, version))


def settle() -> None:
    """Wait until the threads that free old versions have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("redline-drain-"):
            thread.join(WAIT_S)
            assert not thread.is_alive()


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def models(workshop: Workshop) -> Iterator[Models]:
    made = Models(workshop, Settings())
    yield made
    made.close()
    settle()
    assert all(fake.closed == 1 for fake in workshop.made)


def test_the_newest_version_answers(models: Models, tmp_path: Path) -> None:
    put(tmp_path, "net", 2, scale=2)
    put(tmp_path, "net", 10, scale=10)
    models.add_repository(tmp_path)
    assert answer(models, "net") == 10
    assert models.versions("net") == ["10"]
    assert models.index() == [{"name": "net", "version": "10", "state": "READY", "reason": ""}]


def test_several_versions_answer_where_they_are_kept(workshop: Workshop, tmp_path: Path) -> None:
    models = Models(workshop, Settings(keep=2))
    for number in (1, 2, 3):
        put(tmp_path, "net", number, scale=number)
    models.add_repository(tmp_path)
    assert models.versions("net") == ["2", "3"]
    assert [answer(models, "net", number) for number in (None, "2", "3")] == [3, 2, 3]
    put(tmp_path, "net", 4, scale=4)
    models.rescan()
    assert models.versions("net") == ["3", "4"]
    models.close()


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("other", None, "Request for unknown model: 'other' is not found"),
        ("other", "1", "Request for unknown model: 'other' is not found"),
        ("net", "7", "Request for unknown model: 'net' version 7 is not found"),
        ("net", "01", "Request for unknown model: 'net' version 01 is not found"),
        ("../net", None, "Request for unknown model: '../net' is not found"),
        ("net\0", None, "Request for unknown model: 'net\0' is not found"),
    ],
)
def test_what_is_not_there_is_said_in_tritons_words(
    models: Models, tmp_path: Path, name: str, version: str | None, words: str
) -> None:
    put(tmp_path, "net", 1)
    models.add_repository(tmp_path)
    for ask in (models.get, models.use(name, version).__enter__):
        with pytest.raises(RequestError) as caught:
            ask(name, version) if ask == models.get else ask()  # type: ignore[call-arg]
        assert (str(caught.value), caught.value.status) == (words, 404)
    assert not models.ready(name, version)


def test_a_name_without_a_version_is_known_and_not_there(models: Models, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    models.add_repository(tmp_path)
    with pytest.raises(RequestError, match="^Request for unknown model: 'net' has no available versions$"):
        models.get("net")
    assert models.versions("net") == []
    assert states(models, "net") == {"": "UNAVAILABLE"}
    with pytest.raises(RequestError, match="'other' is not found"):
        models.versions("other")


def test_a_long_name_is_not_repeated(models: Models) -> None:
    with pytest.raises(RequestError) as caught:
        models.get("x" * 100_000)
    assert len(str(caught.value)) < 300


def test_the_only_model_needs_no_name(models: Models, tmp_path: Path) -> None:
    assert models.default_name is None
    assert not models.ready()
    models.add(ModelSource(name="a", versions={"1": put(tmp_path, "a", 1)}))
    assert models.default_name == "a"
    assert models.ready()
    models.add(ModelSource(name="b", versions={"1": put(tmp_path, "b", 1)}))
    assert models.default_name is None
    assert models.names == ("a", "b")


def test_two_models_of_one_name_are_refused(models: Models, tmp_path: Path) -> None:
    source = ModelSource(name="a", versions={"1": put(tmp_path, "a", 1)})
    models.add(source)
    with pytest.raises(InputError, match="NAME=PATH"):
        models.add(source)
    assert answer(models, "a") == 1


def test_a_named_model_that_does_not_load_is_an_error(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is cut off"):
        models.add(ModelSource(name="a", versions={"1": put(tmp_path, "a", 1, broken="is cut off")}))
    with pytest.raises(InputError, match="there is no version"):
        models.add(ModelSource(name="b", versions={}))
    assert models.names == ()
    assert models.index() == []


def test_a_broken_model_does_not_keep_others_from_starting(models: Models, tmp_path: Path) -> None:
    put(tmp_path, "good", 1)
    put(tmp_path, "bad", 1, broken="is cut off")
    put(tmp_path, "worse", 1, unexpected=True)
    (tmp_path / "other" / "1").mkdir(parents=True)
    models.add_repository(tmp_path)
    assert models.ready()
    assert not models.ready("bad")
    assert reason(models, "bad", "1") == "model.onnx is cut off"
    assert reason(models, "worse", "1") == "ZeroDivisionError; the server's log says more"
    assert str(tmp_path) not in json.dumps(models.index())


def test_the_newest_that_loads_answers(models: Models, tmp_path: Path) -> None:
    put(tmp_path, "net", 1, scale=1)
    put(tmp_path, "net", 2, broken="is cut off")
    models.add_repository(tmp_path)
    assert answer(models, "net") == 1
    assert states(models, "net") == {"1": "READY", "2": "UNAVAILABLE"}


def test_requests_never_fail_while_models_are_replaced(models: Models, workshop: Workshop, tmp_path: Path) -> None:
    path = put(tmp_path, "net", 1, scale=1)
    models.add_repository(tmp_path)
    stop, errors, answers = threading.Event(), [], [0] * 4
    started = threading.Barrier(5)

    def ask(index: int) -> None:
        started.wait(WAIT_S)
        while not stop.is_set():
            try:
                assert answer(models, "net") >= 1
                assert models.ready("net")
                answers[index] += 1
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
                return

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    started.wait(WAIT_S)
    try:
        for turn in range(60):
            if turn % 3 == 0:
                models.load("net")
            elif turn % 3 == 1:
                path = put(tmp_path, "net", turn + 2, scale=turn + 2)
                models.rescan()
            else:
                write(path, scale=turn + 100)
                models.rescan()
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert errors == []
    assert all(answers)
    settle()
    assert len(workshop.made) == 61
    assert [fake.closed for fake in workshop.made] == [1] * 60 + [0]


def test_the_old_one_is_freed_after_its_last_use(models: Models, workshop: Workshop, tmp_path: Path) -> None:
    put(tmp_path, "net", 1, scale=1)
    models.add_repository(tmp_path)
    with models.use("net") as old, models.use("net") as same:
        assert same is old
        put(tmp_path, "net", 2, scale=2)
        models.rescan()
        assert answer(models, "net") == 2
        assert states(models, "net") == {"1": "UNLOADING", "2": "READY"}
        assert not old.acquire()
        outputs, _ = old.scheduler.run({"x": np.ones((1, 2), np.float32)}, rows=1, deadline=None)
        assert outputs["y"][0, 0] == 1
        assert workshop.made[0].closed == 0
    settle()
    assert workshop.made[0].closed == 1
    assert states(models, "net") == {"2": "READY"}


def test_a_version_that_went_away_between_the_look_and_the_use_is_not_used(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "net", 1)
    models.add_repository(tmp_path)
    found = [models.get("net")]
    put(tmp_path, "net", 2)
    models.rescan()
    get = models.get
    monkeypatch.setattr(models, "get", lambda name, version: found.pop() if found else get(name, version))
    with models.use("net") as version:
        assert version.number == "2"
    assert found == []


def test_a_reload_that_fails_keeps_the_old_one_and_says_why(models: Models, tmp_path: Path) -> None:
    path = put(tmp_path, "net", 1, scale=1)
    models.add_repository(tmp_path)
    write(path, broken="is cut off")
    with pytest.raises(RequestError, match="^failed to load 'net', model.onnx is cut off$") as caught:
        models.load("net")
    assert caught.value.status == 400
    assert answer(models, "net") == 1
    assert states(models, "net") == {"1": "READY"}
    assert "is cut off" in reason(models, "net", "1")
    write(path, scale=3)
    models.load("net")
    assert answer(models, "net") == 3
    assert reason(models, "net", "1") == ""


def test_another_signature_is_refused_unless_it_is_allowed(workshop: Workshop, tmp_path: Path) -> None:
    put(tmp_path, "net", 1, scale=1)
    strict, lenient = Models(workshop), Models(workshop, Settings(allow_signature_change=True))
    for models in (strict, lenient):
        models.add_repository(tmp_path)
    put(tmp_path, "net", 2, scale=2, shape=["batch", 3])
    for models in (strict, lenient):
        models.rescan()
    assert answer(strict, "net") == 1
    assert states(strict, "net") == {"1": "READY", "2": "UNAVAILABLE"}
    assert "input 'x' was float32 [-1,2] and is float32 [-1,3]" in reason(strict, "net", "2")
    assert lenient.versions("net") == ["2"]
    put(tmp_path, "net", 3, scale=3, shape=["N", 2])
    strict.rescan()
    assert answer(strict, "net") == 3
    for models in (strict, lenient):
        models.close()
    assert all(fake.closed == 1 for fake in workshop.made)


def test_going_back_to_an_older_version_is_not_held_up_by_its_signature(models: Models, tmp_path: Path) -> None:
    put(tmp_path, "net", 1, scale=1)
    newer = put(tmp_path, "net", 2, scale=2, shape=["batch", "n"])
    models.add_repository(tmp_path)
    assert models.versions("net") == ["2"]
    newer.unlink()
    models.rescan()
    assert answer(models, "net") == 1


def test_looking_again_opens_only_what_changed(models: Models, workshop: Workshop, tmp_path: Path) -> None:
    a = put(tmp_path, "a", 1, scale=1)
    bad = put(tmp_path, "bad", 1, broken="is cut off")
    models.add_repository(tmp_path)
    opened: list[Path] = []
    workshop.opening = opened.append
    for _ in range(3):
        models.rescan()
    assert opened == []
    write(a, scale=5)
    models.rescan()
    assert opened == [a]
    assert answer(models, "a") == 5
    write(bad, scale=7)
    models.rescan()
    assert opened == [a, bad]
    assert answer(models, "bad") == 7


def test_looking_again_finds_new_names_and_drops_gone_ones(models: Models, workshop: Workshop, tmp_path: Path) -> None:
    put(tmp_path, "a", 1)
    models.add_repository(tmp_path)
    put(tmp_path, "b", 1, scale=2)
    (tmp_path / "a").rename(tmp_path / ".a")
    models.rescan()
    assert models.names == ("b",)
    assert answer(models, "b") == 2
    with pytest.raises(RequestError, match="'a' is not found"):
        models.get("a")
    settle()
    assert workshop.made[0].closed == 1


def test_a_repository_that_is_away_for_a_while_takes_no_model_with_it(models: Models, tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "a", 1, scale=4)
    models.add_repository(root)
    root.rename(tmp_path / "away")
    models.rescan()
    assert answer(models, "a") == 4


def test_files_that_change_while_they_are_read_are_read_again(
    models: Models, workshop: Workshop, tmp_path: Path
) -> None:
    put(tmp_path, "net", 1, scale=1)
    models.add_repository(tmp_path)
    path = put(tmp_path, "net", 2, scale=2)
    workshop.opening = lambda path: write(path, scale=3)
    models.rescan()
    assert answer(models, "net") == 1
    assert "changed while they were read" in reason(models, "net", "2")
    workshop.opening = lambda path: None
    models.rescan()
    assert answer(models, "net") == 3
    assert path.is_file()


def test_an_unloaded_model_stays_away_until_it_is_loaded(models: Models, tmp_path: Path) -> None:
    put(tmp_path, "net", 1, scale=1)
    models.add_repository(tmp_path)
    models.unload("net")
    assert states(models, "net") == {"1": "UNAVAILABLE"}
    models.rescan()
    put(tmp_path, "net", 2, scale=2)
    models.rescan()
    with pytest.raises(RequestError, match="has no available versions"):
        models.get("net")
    assert models.index() == [{"name": "net", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded"}]
    models.load("net")
    assert answer(models, "net") == 2


@pytest.mark.parametrize("name", ["other", "..", "../net", "net/1", "", "net\0", "x" * 1000])
def test_loading_asks_for_a_known_name(models: Models, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    put(root, "net", 1)
    put(tmp_path, "net", 1)
    models.add_repository(root)
    for change in (models.load, models.unload):
        with pytest.raises(RequestError, match="^failed to ") as caught:
            change(name)
        assert caught.value.status == 400
    assert models.names == ("net",)


def test_loading_finds_what_was_added_since(models: Models, tmp_path: Path) -> None:
    put(tmp_path, "a", 1)
    models.add_repository(tmp_path)
    put(tmp_path, "b", 1, scale=8)
    models.load("b")
    assert answer(models, "b") == 8


def test_a_named_file_is_loaded_again_from_its_place(models: Models, tmp_path: Path) -> None:
    path = put(tmp_path, "a", 1, scale=1)
    models.add(ModelSource(name="net", versions={"1": path}))
    write(path, scale=2)
    models.rescan()
    assert answer(models, "net") == 1
    models.load("net")
    assert answer(models, "net") == 2


def test_a_version_that_is_being_loaded_asks_to_come_again(models: Models, workshop: Workshop, tmp_path: Path) -> None:
    put(tmp_path, "net", 1)
    seen: list[tuple[int, float | None, str]] = []

    def opening(path: Path) -> None:
        for version in (None, "1"):
            with pytest.raises(RequestError) as caught:
                models.get("net", version)
            seen.append((caught.value.status, caught.value.retry_after_s, states(models, "net")["1"]))

    workshop.opening = opening
    models.add_repository(tmp_path)
    assert seen == [(503, 1.0, "LOADING")] * 2
    assert states(models, "net") == {"1": "READY"}


def test_a_version_runs_on_zeros_before_it_answers(models: Models, workshop: Workshop, tmp_path: Path) -> None:
    put(tmp_path, "net", 1)
    models.add_repository(tmp_path)
    (inputs,) = workshop.made[0].seen
    assert inputs["x"].shape == (1, 2)
    assert not inputs["x"].any()
    put(tmp_path, "net", 2, fails="no such kernel")
    models.rescan()
    assert models.versions("net") == ["1"]
    assert reason(models, "net", "2") == "no such kernel"
    assert workshop.made[1].closed == 1


def loaded(signature: Signature, *runs: Any, **told: Any) -> Loaded:
    return Loaded(
        runs=runs or (lambda inputs: dict(inputs),),
        signature=signature,
        precision="fp32",
        backend="fake",
        platform="redline",
        size_bytes=0,
        close=lambda: None,
        **told,
    )


@pytest.mark.parametrize(
    ("shape", "told", "expected"),
    [
        (("batch", 3), {}, (1, 3)),
        ((4, 3), {}, (4, 3)),
        (("batch", 3), {"batch_sizes": (2, 8, 32)}, (2, 3)),
        (("batch", 3, "h", "w"), {"preprocess": Preprocess(height_px=5, width_px=6)}, (1, 3, 5, 6)),
        (("batch", "h", "w", 3), {"preprocess": Preprocess(height_px=5, width_px=6, layout="nhwc")}, (1, 5, 6, 3)),
        (("batch", "words"), {}, None),
    ],
)
def test_the_zeros_have_the_smallest_shape_that_fits(shape: Any, told: Any, expected: Any) -> None:
    shapes: list[tuple[int, ...]] = []

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        shapes.append(inputs["x"].shape)
        return {}

    signature = Signature((TensorSpec("x", shape, "float32"),), ())
    assert warm_up(loaded(signature, run, run, **told)) is (expected is not None)
    assert shapes == ([expected] if expected else [])


def test_every_run_of_its_own_is_warmed_up() -> None:
    ran: list[str] = []
    runs = [lambda inputs, name=name: ran.append(name) or {} for name in "abc"]
    warm_up(loaded(DYNAMIC, *runs, runs[0]))
    assert ran == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("wanted", "told", "rows"),
    [
        (None, {"device": "cuda"}, None),
        ("auto", {}, None),
        ("auto", {"device": "cuda"}, 32),
        ("auto", {"device": "cuda", "batch_sizes": (1, 4, 16)}, 16),
        (Batching(max_rows=8), {}, 8),
        (Batching(max_rows=64), {"batch_sizes": (1, 8)}, 8),
    ],
)
def test_batches_are_made_on_a_gpu_or_on_request(wanted: Any, told: Any, rows: int | None) -> None:
    found = batching_for(wanted, loaded(DYNAMIC, **told), rows=32)
    assert (found.max_rows if found else None) == rows


@pytest.mark.parametrize(
    "signature",
    [
        Signature((TensorSpec("x", (1, 2), "float32"),), DYNAMIC.outputs),
        Signature(DYNAMIC.inputs, (TensorSpec("y", (2,), "float32"),)),
        Signature((), DYNAMIC.outputs),
        Signature(DYNAMIC.inputs, (TensorSpec("boxes", ("detections", 7), "float32"),)),
    ],
)
def test_a_model_without_a_free_batch_is_never_batched(signature: Signature) -> None:
    assert batching_for(Batching(max_rows=8), loaded(signature), rows=32) is None


def test_metrics_know_what_is_served(workshop: Workshop, tmp_path: Path) -> None:
    metrics = Metrics()
    models = Models(workshop, Settings(), metrics)
    put(tmp_path, "net", 1)
    models.add_repository(tmp_path)
    answer(models, "net")
    text = metrics.text().decode()
    assert 'redline_model_info{backend="fake",model="net",precision="fp32",version="1"} 1.0' in text
    assert 'redline_queue_depth{model="net",version="1"} 0.0' in text
    assert 'redline_batch_rows_count{model="net",version="1"} 1.0' in text
    assert models.get("net").statistics.to_v2()["execution_count"] == 1
    put(tmp_path, "net", 2)
    models.rescan()
    settle()
    text = metrics.text().decode()
    assert 'version="2"' in text
    assert 'version="1"' not in text
    models.close()
    assert 'model="net"' not in metrics.text().decode()


def test_closing_waits_for_what_runs(workshop: Workshop, tmp_path: Path) -> None:
    models = Models(workshop)
    models.add(ModelSource(name="net", versions={"1": put(tmp_path, "net", 1)}))
    inside, go, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        with models.use("net") as version:
            inside.set()
            assert go.wait(WAIT_S)
            outputs, _ = version.scheduler.run({"x": np.ones((1, 2), np.float32)}, rows=1, deadline=None)
            done.append(float(outputs["y"][0, 0]))

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(WAIT_S)
    assert models.drain(0.0)  # a use alone is not a run
    models.close(timeout_s=0.0)
    assert workshop.made[0].closed == 0
    go.set()
    thread.join(WAIT_S)
    settle()
    assert done == [1.0]
    assert workshop.made[0].closed == 1
    assert models.names == ()


KILLED = """
import sys
from pathlib import Path
from tests.serving.test_models import Workshop, put, write
from redline.serving.models import Models
root = Path(sys.argv[1])
models = Models(Workshop())
models.add_repository(root)
number = 1
while True:
    number += 1
    path = put(root, "net", number, scale=number)
    models.rescan()
    write(path, scale=number + 0.5)
    models.load("net")
    print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [0, 1, 20])
def test_a_killed_server_leaves_a_repository_that_starts(tmp_path: Path, workshop: Workshop, lines: int) -> None:
    put(tmp_path, "net", 1, scale=1)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()
    (tmp_path / "net" / "9999").mkdir()  # what a copy that was killed too has begun
    (tmp_path / "net" / "9998.part").mkdir()
    models = Models(workshop)
    models.add_repository(tmp_path)
    assert answer(models, "net") >= max(1, lines)
    models.close()
