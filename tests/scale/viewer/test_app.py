from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from tests.scale.fake_slide import FakeSlide
from tests.scale.viewer.made import NAMES, marks, picture, shelf
from tests.scale.viewer.unpacked import unpack

from redline.core.errors import InputError
from scale.viewer.app import create_app
from scale.viewer.hosts import names_of
from scale.viewer.marks import Filter
from scale.viewer.shelf import Shelf

VIEW = {"x0": 200, "y0": 200, "x1": 900, "y1": 700}


def client_of(held: Shelf) -> FlaskClient:
    return create_app(held, names_of("127.0.0.1")).test_client()


@pytest.fixture
def client() -> FlaskClient:
    return client_of(shelf())


def test_slides_are_listed_and_described() -> None:
    client = client_of(shelf({"one": FakeSlide(picture(), (1,)), "zwei ö": None}, problems=("x is broken",)))
    listed = client.get("/slides").json
    assert listed == {
        "slides": [{"name": "one", "count": 400}, {"name": "zwei ö", "count": 400}],
        "problems": ["x is broken"],
    }
    one = client.get("/slides/one").json
    assert one is not None
    assert (one["width_px"], one["height_px"], one["mpp"], one["problem"]) == (1500, 1100, 0.5, None)
    assert [known["name"] for known in one["classes"]] == list(NAMES)
    assert [known["count_at"][0] for known in one["classes"]] == np.bincount(marks().classes).tolist()
    assert client.get("/slides/zwei%20%C3%B6").status_code == 200


def test_tiles_are_kept_by_the_browser_while_they_are_those_of_this_file(client: FlaskClient) -> None:
    version = (client.get("/slides/slide").json or {})["version"]
    tile = client.get(f"/slides/slide/tiles/{version}/11/1_1.jpg")
    assert tile.mimetype == "image/jpeg"
    assert "immutable" in tile.headers["Cache-Control"]
    assert Image.open(io.BytesIO(tile.data)).size == (512, 512)
    again = client.get(f"/slides/slide/tiles/{version}/11/1_1.jpg", headers={"If-None-Match": tile.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get("/slides/slide/tiles/older/11/1_1.jpg").headers["Cache-Control"] == "no-store"


def test_a_tile_is_read_once() -> None:
    slide = FakeSlide(picture(), (1, 4))
    client = client_of(shelf({"slide": slide}))
    for _ in range(3):
        client.get("/slides/slide/tiles/v/11/0_0.jpg")
    assert len(slide.reads) == 1


def test_detections_counts_and_density_of_a_place(client: FlaskClient) -> None:
    found = marks()
    wanted = found.select((200, 200, 900, 700), Filter(least=0.4, classes=frozenset({1})))
    query = {**VIEW, "min": 0.4, "classes": "1"}
    told = unpack(client.get("/slides/slide/detections", query_string=query).data)
    assert sorted(told.ids) == sorted(wanted)
    assert (client.get("/slides/slide/counts", query_string=query).json or {})["counts"] == [0, len(wanted), 0]
    few = unpack(client.get("/slides/slide/detections", query_string={**query, "limit": 5}).data)
    assert (len(few.ids), few.total) == (5, len(wanted))
    none = unpack(client.get("/slides/slide/detections", query_string={**query, "classes": ""}).data)
    assert none.total == 0
    cloud = client.get("/slides/slide/density.png", query_string={**query, "bin": 10})
    assert Image.open(io.BytesIO(cloud.data)).size == (70, 50)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("detections", {"x0": "nan"}),
        ("detections", {"x0": "inf"}),
        ("detections", {"x0": "a"}),
        ("detections", {"x0": ""}),
        ("detections", {"x0": 901}),
        ("detections", {"limit": 1e9}),
        ("detections", {"limit": -1}),
        ("detections", {"min": "x"}),
        ("detections", {"classes": "1;2"}),
        ("detections", {"classes": "-1"}),
        ("detections", {"step": -1}),
        ("density.png", {"bin": 0}),
        ("density.png", {"bin": 0.001}),
        ("counts", {"y1": -5}),
    ],
)
def test_a_question_that_makes_no_sense_is_told_so(client: FlaskClient, path: str, more: dict[str, Any]) -> None:
    reply = client.get(f"/slides/slide/{path}", query_string={**VIEW, **more})
    assert reply.status_code == 400
    assert "expected" in (reply.json or {})["error"]


def test_a_class_number_that_there_is_not_shows_nothing(client: FlaskClient) -> None:
    reply = client.get("/slides/slide/counts", query_string={**VIEW, "classes": "7,99999999999"})
    assert (reply.json or {})["counts"] == [0, 0, 0]


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page//etc/passwd",
        "/page/vendor/../../app.py",
        "/page/",
        "/slides/../slides",
        "/slides/..%2f..",
        "/slides/other",
        "/slides/slide/tiles/v/99/0_0.jpg",
        "/slides/slide/tiles/v/11/-1_0.jpg",
        "/slides/slide/tiles/v/11/9_9.jpg",
        "/nothing",
        "/slides/slide/detections/",
    ],
)
def test_what_there_is_not(client: FlaskClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 404
    assert "error" in (reply.json or {})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(client: FlaskClient, method: str) -> None:
    assert client.open("/slides", method=method).status_code == 405


def test_a_name_from_elsewhere_reads_nothing(client: FlaskClient) -> None:
    for path in ("/", "/slides", "/slides/slide/thumbnail.jpg"):
        reply = client.get(path, headers={"Host": "evil.example:8400"})
        assert reply.status_code == 403
        assert b"Crypt" not in reply.data
    assert client.get("/slides", headers={"Host": "localhost:8400"}).status_code == 200


def test_every_answer_is_guarded(client: FlaskClient) -> None:
    for path in ("/", "/page/main.js", "/slides", "/slides/slide/thumbnail.jpg", "/nothing"):
        headers = client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


def test_a_slide_that_is_gone_leaves_its_detections() -> None:
    client = client_of(shelf({"slide": None}))
    told = client.get("/slides/slide").json or {}
    assert "--slide PATH" in told["problem"]
    assert unpack(client.get("/slides/slide/detections", query_string=VIEW).data).total > 0
    tile = Image.open(io.BytesIO(client.get("/slides/slide/tiles/v/11/2_2.jpg").data))
    assert tile.size == (1500 - 1024, 1100 - 1024)
    assert np.asarray(tile).min() == 255
    assert client.get("/slides/slide/thumbnail.jpg").status_code == 404


def test_another_slide_is_not_shown_under_these_detections() -> None:
    slide = FakeSlide(picture(700, 500))
    told = client_of(shelf({"slide": slide})).get("/slides/slide").json or {}
    assert "700 x 500" in told["problem"]
    assert slide.closed == 1


def test_what_is_open_is_bounded_and_closed_at_the_end() -> None:
    slides = {str(number): FakeSlide(picture(), (1, 4)) for number in range(6)}
    held = shelf(dict(slides))
    client = client_of(held)
    for name in slides:
        assert client.get(f"/slides/{name}").status_code == 200
    assert [slide.closed for slide in slides.values()] == [1, 1, 0, 0, 0, 0]
    with held.use("5"):
        with held.use("5"):
            held.close()
        assert slides["5"].closed == 0  # not while it is in use
    assert [slide.closed for slide in slides.values()] == [1] * 6


def test_detections_that_cannot_be_read_are_told() -> None:
    held = shelf()

    def broken(_: object) -> Any:
        raise InputError("there are no detections in out yet")

    held._sources = type(held._sources)(
        marks=broken, slide=held._sources.slide, count=lambda _: None, stamp=lambda _: "1"
    )
    reply = client_of(held).get("/slides/slide")
    assert (reply.status_code, json.loads(reply.data)["error"]) == (500, "there are no detections in out yet")
