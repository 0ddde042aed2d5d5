"""Servers by URL and servers that we start; what is asked of them; what is sent to them."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.loadtesting.servers import Behaviour, server

from redline.core.errors import DataError, InputError, WorkerError
from redline.core.preprocess import Preprocess
from redline.core.samples import Samples
from redline.core.tensor import Signature, TensorSpec
from redline.loadtesting.agreement import agree
from redline.loadtesting.bodies import describe, find_samples, make_parcel, renamed
from redline.loadtesting.targets import Server, Spot, open_servers, parse_spots, started
from redline.loadtesting.v2_client import V2Client, json_body, parse_url
from redline.loadtesting.watch import ProcessTree, listening_pid

IMAGES = Signature((TensorSpec("image", ("batch", 3, 32, 32), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))
#: A server in a process of its own, which says its pid in a file and starts a child.
CODE = """
import sys, os, subprocess, pathlib
sys.path.insert(0, {root!r})
from tests.loadtesting.servers import Quiet, Handler, Behaviour
import threading, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({pids!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
own = type("Own", (Handler,), dict(behaviour=Behaviour(), began=0.0, gate=threading.Semaphore(9),
                                   lock=threading.Lock(), ending=threading.Event()))
Quiet(("127.0.0.1", {port}), own).serve_forever()
"""


def never(name: str, path: Path, port: int) -> list[str]:
    raise AssertionError("nothing is started for a URL")


def opened(*urls: str, folder: Path) -> list[Server]:
    with open_servers(parse_spots(urls), never, log_folder=folder) as servers:
        return servers


def test_urls() -> None:
    assert parse_url("http://[::1]:81/").url == "http://[::1]:81"
    assert parse_url("http://h/v2/models/a%2Bb").model == "a+b"
    for wrong in ("https://h", "http://h/other", "http://", "http://h:99999", "http://h/v2/models/a?x=1"):
        with pytest.raises(InputError, match="expected http://HOST:PORT"):
            parse_url(wrong)


def test_names_of_targets_are_all_different(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model v1.onnx").write_bytes(b"x")
    spots = parse_spots([f"{tmp_path}/a/model v1.onnx", f"{tmp_path}/b/model v1.onnx", "q=http://h:1", "http://h:2"])
    assert [spot.name for spot in spots] == ["model_v1", "model_v1-2", "q", "h:2"]
    with pytest.raises(InputError, match="name q twice"):
        parse_spots(["q=http://h:1", "q=http://h:2"])
    with pytest.raises(InputError, match=r"nothing\.onnx is not there"):
        parse_spots(["nothing.onnx"])


def test_a_url_finds_its_only_model_and_what_it_takes(tmp_path: Path) -> None:
    with server() as (url, _):
        (found,) = opened(f"int8={url}", folder=tmp_path)
        before = found.split()
        found.client.infer(found.path, {"x": np.ones((1, 4), np.float32)})
        after = found.split()
    assert (found.target.name, found.target.model, found.target.version) == ("int8", "model", "1")
    assert found.target.precision == "int8"
    assert found.target.path is None
    assert found.signature.inputs[0].shape == ("batch", 4)
    assert before is not None
    assert after is not None
    assert after.inferences - before.inferences == 1
    assert found.tree is None  # this very process: what it uses is not the server's alone


def test_of_several_models_one_is_to_be_named(tmp_path: Path) -> None:
    with server(Behaviour(names=("a", "b"))) as (url, _):
        with pytest.raises(InputError, match="has a, b; name one"):
            opened(url, folder=tmp_path)
        (found,) = opened(f"{url}/v2/models/b/versions/1", folder=tmp_path)
        with pytest.raises(InputError, match="404"):
            opened(f"{url}/v2/models/c", folder=tmp_path)
    assert (found.target.name, found.path) == ("b", "/v2/models/b/versions/1")


def test_a_server_without_statistics_is_loaded_without_them(tmp_path: Path) -> None:
    with server(Behaviour(stats=False)) as (url, _):
        assert opened(url, folder=tmp_path)[0].split() is None


def test_a_url_that_nobody_answers_says_so(tmp_path: Path) -> None:
    with server() as (url, _):
        pass
    with pytest.raises(WorkerError, match="is the server running"):
        opened(url, folder=tmp_path)


def test_a_server_is_started_watched_and_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    model = tmp_path / "model.onnx"
    model.write_bytes(b"12345")
    root = str(Path(__file__).parents[2])

    def command(name: str, path: Path, port: int) -> list[str]:
        return [sys.executable, "-c", CODE.format(root=root, pids=str(pids), port=port)]

    with open_servers(parse_spots([str(model)]), command, log_folder=tmp_path / "logs") as (found,):
        running = [int(pid) for pid in pids.read_text().split()]
        assert all(psutil.pid_exists(pid) for pid in running)
        assert found.target.size_bytes == 5
        assert found.tree is not None
        assert found.tree.cpu_s() > 0
        assert found.tree.rss_bytes() > psutil.Process(running[0]).memory_info().rss
        assert listening_pid(found.address.port) == running[0]
    for pid in running:
        with suppress(psutil.Error):
            psutil.Process(pid).wait(3)  # killed is not yet gone; where nobody reaps, it stays as a zombie
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    def command(name: str, path: Path, port: int) -> list[str]:
        return [sys.executable, "-c", "import sys; sys.exit('redline: error: the model is broken')"]

    spot = Spot(name="m", path=tmp_path)
    with pytest.raises(InputError, match="the model is broken"), started(spot, command, log_folder=tmp_path):
        pass


def test_a_process_that_is_not_there_is_said() -> None:
    with pytest.raises(WorkerError, match="not there"):
        ProcessTree(2**22 + 1)
    assert ProcessTree(os.getpid()).cpu_s() > 0


def test_bodies_are_what_a_server_reads_back(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
    samples = Samples(inputs={"other": rows}, labels=None, names=("a", "b", "c"), source="a test")
    with server(Behaviour(weight=2.0)) as (url, behaviour):
        (found,) = opened(url, folder=tmp_path)
        binary, text = make_parcel("binary", found, samples), make_parcel("json", found, samples)
        for one in (binary, text):
            assert found.client.post(one.path, one.bodies[1], one.headers)[0] == 200
        answers = found.client.infer(found.path, {"x": rows})
    assert np.array_equal(answers["y"], 2 * rows)
    length = int(binary.headers["Inference-Header-Content-Length"])
    assert np.array_equal(np.frombuffer(binary.bodies[1][length:], np.float32), rows[1])
    sent = json.loads(text.bodies[1])["inputs"][0]
    assert sent["name"] == "x"
    assert np.array_equal(np.array(sent["data"], np.float32), rows[1])
    assert describe("json", text).inputs == 3
    assert behaviour.seen[0][0] == "/v2/models/model/infer"


def test_images_are_sent_as_they_are(tmp_path: Path) -> None:
    with server() as (url, _):
        (found,) = opened(url, folder=tmp_path)
        shipped = make_parcel("image/jpeg", found, find_samples(IMAGES, None, data=None))
        with pytest.raises(InputError, match="no .jpg"):
            make_parcel("image/jpeg", found, find_samples(IMAGES, None, data=None), images=tmp_path)
    assert shipped.path == "/predict/model"
    assert shipped.headers["Content-Type"] == "image/jpeg"
    assert all(body[:2] == b"\xff\xd8" for body in shipped.bodies)
    assert len(set(shipped.bodies)) > 8


def test_shipped_photos_have_labels_only_for_a_model_of_their_classes() -> None:
    preprocess = Preprocess(height_px=32, width_px=32)
    plain = find_samples(IMAGES, preprocess, data=None)
    classes = tuple(sorted({name.split("_", 1)[1].rsplit("_", 1)[0] for name in plain.names}))
    assert plain.labels is None
    assert find_samples(IMAGES, preprocess, data=None, classes=("a", "b")).labels is None
    labelled = find_samples(IMAGES, preprocess, data=None, classes=classes)
    assert labelled.labels is not None
    assert set(labelled.labels) == set(range(len(classes)))


def test_other_models_get_random_numbers_and_labels_need_data(tmp_path: Path) -> None:
    tabular = Signature((TensorSpec("x", ("batch", 4), "float32"),), ())
    assert find_samples(tabular, None, data=None).source.startswith("random")
    with pytest.raises(InputError, match="--data"):
        find_samples(tabular, None, data=None, labels=tmp_path / "labels.csv")
    with pytest.raises(DataError):
        find_samples(tabular, None, data=tmp_path)


def test_inputs_go_by_name_or_else_by_order() -> None:
    half = Signature((TensorSpec("a", ("batch",), "float16"), TensorSpec("b", ("batch",), "float32")), ())
    by_name = renamed({"b": np.ones(1, np.float32), "a": np.zeros(1, np.float32)}, half)
    assert (by_name["a"].dtype, by_name["a"][0], by_name["b"][0]) == (np.float16, 0, 1)
    by_order = renamed({"p": np.zeros(1, np.float32), "q": np.ones(1, np.float32)}, half)
    assert (by_order["a"][0], by_order["b"][0]) == (0, 1)
    with pytest.raises(InputError, match="other inputs"):
        renamed({"p": np.zeros(1)}, half)
    with pytest.raises(InputError, match="FP16"):
        json_body(by_name)


def test_agreement_of_servers_that_differ(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    samples = Samples(inputs={"x": rows}, labels=rows.argmax(1), names=tuple(map(str, range(20))), source="a test")
    with server() as (a, _), server(Behaviour(weight=1.1)) as (b, _), server(Behaviour(weight=-1.0)) as (c, _):
        servers = opened(f"a={a}", f"b={b}", f"c={c}", folder=tmp_path)
        close, far = agree(servers[:2], samples), agree([servers[0], servers[2]], samples)
    assert close.top1 == 1.0
    assert close.relative_error == pytest.approx(0.1, abs=1e-4)
    assert close.accuracy == {"a": 1.0, "b": 1.0}
    assert far.top1 == 0.0
    assert far.relative_error == pytest.approx(2.0)
    assert far.accuracy == {"a": 1.0, "c": 0.0}


def test_the_client_tells_what_the_server_said(tmp_path: Path) -> None:
    with server() as (url, _):
        client = V2Client(parse_url(url))
        assert client.ready()
        assert not V2Client(parse_url("http://127.0.0.1:1")).ready()
        with pytest.raises(InputError, match="there is no /v2/models/x"):
            client.signature("/v2/models/x")
