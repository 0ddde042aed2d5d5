from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.scale.viewer.made import write_result
from tests.scale.viewer.unpacked import unpack

from redline.core.errors import InputError
from redline.serving.runners import Stop
from scale.viewer.serve import Viewing, ViewOptions, view

TIMEOUT_S = 20.0
COMMAND = "import typer; from scale.cli.view import view_command; typer.run(view_command)"


@contextmanager
def viewing(folder: Path, **options: Any) -> Iterator[Viewing]:
    """A viewer in a thread; it has ended, and well, when the block is left."""
    stop, ready = Stop(), threading.Event()
    told: list[Viewing] = []
    ended: list[bool] = []

    def serve() -> None:
        try:
            ended.append(view(folder, ViewOptions(port=0, **options), on_ready=told.append, stop=stop))
        finally:
            ready.set()

    def on_ready() -> None:
        while not told and thread.is_alive():
            ready.wait(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        on_ready()
        assert told
        yield told[0]
    finally:
        if told:
            stop.set()
        thread.join(TIMEOUT_S)
        stop.close()
    assert ended == [True]


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as reply:
        content: bytes = reply.read()
    return content


def test_a_slide_and_its_detections_from_disk(tmp_path: Path) -> None:
    out = write_result(tmp_path)
    with viewing(out) as told:
        assert told.slides == ("slide",)
        known = json.loads(get(f"{told.url}/slides/slide"))
        assert known["problem"] is None
        assert [(one["name"], one["count_at"][0], one["count_at"][50]) for one in known["classes"]] == [("Cell", 2, 1)]
        assert get(f"{told.url}/slides/slide/tiles/{known['version']}/{known['max_level']}/0_0.jpg")[:2] == b"\xff\xd8"
        found = unpack(get(f"{told.url}/slides/slide/detections?x0=0&y0=0&x1=50&y1=50&min=0.5"))
        assert found.boxes.tolist() == [[10, 20, 40, 50]]
        detections = out / "slide" / "detections.json"
        written_ns = detections.stat().st_mtime_ns
        detections.write_text(detections.read_text().replace('"Cell"', '"Tell"'))
        os.utime(detections, ns=(written_ns, written_ns + 10**9))
        again = json.loads(get(f"{told.url}/slides/slide"))
        assert again["classes"][0]["name"] == "Tell"
        assert again["version"] != known["version"]


def test_a_slide_that_has_moved_is_named(tmp_path: Path) -> None:
    out = write_result(tmp_path, keep_slide=False)
    with viewing(out) as told:
        assert (
            f"type: scale view {out / 'slide'} --slide PATH" in json.loads(get(f"{told.url}/slides/slide"))["problem"]
        )
    write_result(tmp_path / "elsewhere")
    with viewing(out, slides=(tmp_path / "elsewhere" / "slides",)) as told:
        assert json.loads(get(f"{told.url}/slides/slide"))["problem"] is None


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    out = write_result(tmp_path)
    (out / "slide" / "detections.json").unlink()
    with viewing(out) as told, pytest.raises(urllib.error.HTTPError) as caught:
        get(f"{told.url}/slides/slide")
    assert "--resume" in json.loads(caught.value.read())["error"]
    caught.value.close()


def test_who_can_see_it_is_told_where_that_is_everybody(tmp_path: Path) -> None:
    out = write_result(tmp_path)
    with viewing(out) as told:
        assert told.notes == ()
    with viewing(out, host="0.0.0.0") as told:
        assert "anybody who reaches this machine" in told.notes[0]
        assert told.url.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_and_one_that_is_none(tmp_path: Path) -> None:
    out = write_result(tmp_path)
    with viewing(out) as told, pytest.raises(InputError, match="is in use"):
        view(out, ViewOptions(port=int(told.url.rpartition(":")[2])))
    with pytest.raises(InputError, match="expected 0 to 65535"):
        ViewOptions(port=70_000)


def test_the_command_tells_where_it_is_and_ends_when_told(tmp_path: Path) -> None:
    arguments = [str(write_result(tmp_path)), "--port", "0", "--json", "--no-open"]
    with subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            told = json.loads(started.stdout.readline())
            assert told["pid"] == started.pid
            assert b"<title>scale</title>" in get(told["url"])
            started.send_signal(signal.SIGTERM)
            assert started.wait(TIMEOUT_S) == 0
        finally:
            started.kill()
