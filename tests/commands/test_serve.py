"""What ``redline serve`` joins, and what it says when that cannot be."""

from __future__ import annotations

import importlib
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.onnx_models import conv_model, five_inputs
from tests.serving.http_tools import TIMEOUT_S, request

import redline
from redline.cli import main
from redline.commands.serve import Made, Ready, ServeOptions, make_server, serve
from redline.core.errors import InputError, MissingDependencyError
from redline.serving.answers import Call
from redline.serving.runners import Stop

IMAGE = {"inputs": [{"name": "image", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": [0.5] * 768}]}


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return conv_model(tmp_path / "digits.onnx", batch="batch")


@contextmanager
def made(models: Any, **options: Any) -> Iterator[Made]:
    one = make_server(models, ServeOptions(**options))
    try:
        yield one
    finally:
        one.close()


def get(one: Made, path: str, *, method: str = "GET", body: bytes = b"") -> tuple[int, Any]:
    reply = one.server.answer(Call(method=method, path=path, body=body))
    return reply.status, json.loads(reply.body) if reply.body else None


def test_a_file_is_served_under_its_name(onnx_file: Path) -> None:
    with made(onnx_file) as one:
        assert get(one, "/v2/health/ready") == (200, None)
        status, answer = get(one, "/v2/models/digits/infer", method="POST", body=json.dumps(IMAGE).encode())
        assert status == 200
        assert answer["outputs"][0]["shape"] == [1, 5]
        (row,) = one.models()
        assert (row.name, row.version, row.precision, row.backend) == ("digits", "1", "fp32", "onnxruntime")
        assert row.max_batch == 1
        assert one.app.test_client().get("/v2/models/digits").get_json()["name"] == "digits"


def test_several_models_and_a_repository(onnx_file: Path, tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/7", "broken/1"):
        (tmp_path / "models" / name).mkdir(parents=True)
        shutil.copy(onnx_file, tmp_path / "models" / name / "model.onnx")
    (tmp_path / "models" / "broken" / "1" / "model.onnx").write_bytes(b"nonsense")
    with made([f"c={onnx_file}", tmp_path / "models"]) as one:
        assert {(row.name, row.version) for row in one.models()} == {("a", "2"), ("b", "7"), ("c", "1")}
        assert any(note.startswith("broken 1 is not served: ") for note in one.notes)


def test_a_repository_is_looked_at_again(onnx_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    (root / "a" / "1").mkdir(parents=True)
    shutil.copy(onnx_file, root / "a" / "1" / "model.onnx")
    with made(root, poll_s=0.01) as one:
        (tmp_path / "new" / "1").mkdir(parents=True)
        shutil.copy(onnx_file, tmp_path / "new" / "1" / "model.onnx")
        (tmp_path / "new").rename(root / "new")
        status = 0
        while status != 200:
            status, _ = get(one, "/v2/models/new/ready")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 1), ({"max_batch": 1}, 1), ({"max_batch": 8}, 8), ({"max_delay_s": 0.001}, 32)],
)
def test_requests_are_put_together_where_asked(onnx_file: Path, options: dict[str, Any], expected: int) -> None:
    with made(onnx_file, **options) as one:
        assert one.models()[0].max_batch == expected


@pytest.mark.parametrize("name", ["q", ""])
def test_a_shadow_answers_too(onnx_file: Path, tmp_path: Path, name: str) -> None:
    other = conv_model(tmp_path / "other.onnx", seed=1)
    with made(f"q={onnx_file}", shadows={name: other}, shadow_rate=1.0) as one:
        assert one.models()[0].shadow
        get(one, "/v2/models/q/infer", method="POST", body=json.dumps(IMAGE).encode())
        text = b""
        while b'redline_shadow_requests_total{model="q",reference="other.onnx"} 1.0' not in text:
            text = one.server.answer(Call(method="GET", path="/metrics")).body


def test_a_shadow_of_nothing_or_of_other_inputs_is_refused(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got a shadow for 'p', expected NAME=FILE with the name of what is served: q"):
        make_server(f"q={onnx_file}", ServeOptions(shadows={"p": onnx_file}))
    other = five_inputs(tmp_path / "five.onnx")
    with pytest.raises(InputError, match="has the inputs x0 float32, .*, expected those of q, image float32"):
        make_server(f"q={onnx_file}", ServeOptions(shadows={"q": other}))


@pytest.mark.parametrize("runner", ["granian", "waitress"])
def test_serve_says_where_it_is_and_ends_when_told(onnx_file: Path, runner: str) -> None:
    stop, told, ended = Stop(), threading.Event(), []
    readies: list[Ready] = []

    def on_ready(ready: Ready) -> None:
        readies.append(ready)
        told.set()

    options = ServeOptions(port=0, runner=runner)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: ended.append(serve(onnx_file, options, on_ready=on_ready, stop=stop)))
    thread.start()
    assert told.wait(TIMEOUT_S)
    (ready,) = readies
    assert (ready.runner, ready.warnings) == (runner, ())
    assert request(int(ready.url.rpartition(":")[2]), "GET", "/v2/models/digits/ready")[0] == 200
    assert [model.name for model in ready.models] == ["digits"]
    stop.set()
    thread.join(TIMEOUT_S)
    assert ended == [True]
    stop.close()


def test_granian_that_does_not_fit_gives_way_to_waitress(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def imported(name: str) -> Any:
        if name.endswith("runner_granian"):
            raise ImportError("no WSGIWorker")
        return real(name)

    monkeypatch.setattr("redline.commands.serve.importlib.import_module", imported)
    stop, readies = Stop(), []

    def on_ready(ready: Ready) -> None:
        readies.append(ready)
        stop.set()

    assert serve(onnx_file, ServeOptions(port=0), on_ready=on_ready, stop=stop)
    assert readies[0].runner == "waitress"
    assert "no WSGIWorker" in readies[0].notes[0]
    with pytest.raises(ImportError, match="no WSGIWorker"):
        serve(onnx_file, ServeOptions(port=0, runner="granian"), stop=stop)
    stop.close()


@pytest.mark.parametrize(
    ("options", "is_open"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "0.0.0.0", "token_file": Path("token")}, False),
    ],
)
def test_a_server_that_anybody_can_use_is_known(options: dict[str, Any], is_open: bool) -> None:
    assert ServeOptions(**options).is_open is is_open


def test_the_command_line_prints_one_line_for_scripts_and_warns(onnx_file: Path) -> None:
    command = [sys.executable, "-m", "redline", "serve", str(onnx_file), "--host", "0.0.0.0", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        assert ready["pid"] == server.pid
        assert request(int(ready["url"].rpartition(":")[2]), "GET", "/v2/health/ready")[0] == 200
        assert "no token is asked for" in ready["warnings"][0]
        server.terminate()
        out, err = server.communicate(timeout=TIMEOUT_S)
        assert (server.returncode, out) == (0, "")
        assert err.startswith("WARNING: ")


def test_a_model_without_pytorch_loads_none(onnx_file: Path) -> None:
    program = (
        "import sys; from redline.commands.serve import make_server; make_server(sys.argv[1]).close(); "
        "print([name for name in ('torch', 'openvino', 'ray', 'locust', 'granian', 'waitress') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(onnx_file)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_options_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("redline.commands.serve.serve", lambda *args, **more: seen.append(args) is None)
    words = "serve a.onnx b=c.onnx --repository d --host ::1 --port 1 --max-batch 4 --max-delay-ms 2 --threads 3"
    words += " --instances 5 --runner waitress --shadow b=e.onnx --shadow-rate 0.5 --token-file t --admin-token-file u"
    words += " --limit-body 2MiB --deadline 6 --queue 7 --poll 8 --drain-delay 9 --reject-nonfinite --quiet"
    words += " --keep 2 --allow-signature-change"
    assert main(words.split()) == 0
    models, options = seen[0]
    assert list(map(str, models)) == ["a.onnx", "b=c.onnx", "d"]
    limits = options.limits
    assert (limits.body_bytes, limits.deadline_s, limits.queue, limits.reject_nonfinite) == (2 << 20, 6, 7, True)
    assert (options.host, options.port, options.runner) == ("::1", 1, "waitress")
    assert (options.max_batch, options.max_delay_s, options.threads, options.instances) == (4, 0.002, 3, 5)
    assert (options.shadows, options.shadow_rate) == ({"b": "e.onnx"}, 0.5)
    assert (options.token_file, options.admin_token_file) == (Path("t"), Path("u"))
    assert (options.poll_s, options.drain_delay_s) == (8, 9)
    assert (options.keep, options.allow_signature_change) == (2, True)


def test_two_versions_answer_where_two_are_kept(onnx_file: Path, tmp_path: Path) -> None:
    for number in "123":
        folder = tmp_path / "models" / "digits" / number
        folder.mkdir(parents=True)
        shutil.copy(onnx_file, folder / "model.onnx")
    for keep, versions in ((1, ["3"]), (2, ["2", "3"])):
        made = make_server(tmp_path / "models", ServeOptions(keep=keep, instances=1))
        try:
            assert made.server.models.versions("digits") == versions
        finally:
            made.close()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "got no model"),
        (["nowhere.onnx"], "nowhere.onnx is not there"),
        (["MODEL", "--port", "70000"], "got port 70000"),
        (["MODEL", "--runner", "nginx"], "got runner 'nginx'"),
        (["MODEL", "--limit-body", "much"], "got limit-body 'much'"),
        (["MODEL", "--max-batch", "0"], "got max-batch 0"),
        (["MODEL", "--keep", "0"], "got keep 0"),
        (["MODEL", "--shadow-rate", "2", "--shadow", "MODEL"], "rate is 2.0"),
        (["MODEL", "--token-file", "nowhere"], "nowhere could not be read"),
        (["MODEL", "MODEL"], "two models are called digits"),
        (["MODEL", "--host", "203.0.113.7"], "is no address of this machine"),
    ],
)
def test_what_cannot_be_is_one_line(
    onnx_file: Path, words: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    port = [] if "--port" in words else ["--port", "0"]
    assert main(["serve", *(str(onnx_file) if word == "MODEL" else word for word in words), *port]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("redline: error: ")
    assert complaint in err


def test_a_port_in_use_is_one_line(onnx_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(onnx_file), "--port", port]) == 2
    assert f"port {port} is in use; give another by --port" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("module", "package"), [("flask", "flask"), ("simdjson", "pysimdjson"), ("granian", "granian")]
)
def test_a_missing_package_is_said(onnx_file: Path, module: str, package: str) -> None:
    program = (
        "import sys; sys.modules[sys.argv[1]] = None; from redline.cli import main; "
        "sys.exit(main(['serve', sys.argv[2], '--port', '0', '--runner', 'granian']))"
    )
    command = [sys.executable, "-c", program, module, str(onnx_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    told = f"redline: error: {package} is not installed; type: pip install 'redline[serve]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", told)


def test_it_is_a_function_of_the_package() -> None:
    assert redline.serve is serve
    assert issubclass(MissingDependencyError, ImportError)
