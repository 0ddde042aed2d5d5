"""The page as a browser without a window sees it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tests.reporting.browser import CHROMIUM
from tests.scale.fake_slide import FakeSlide
from tests.scale.viewer.made import marks, picture, shelf
from tests.serving.http_tools import running

from scale.viewer.app import create_app
from scale.viewer.hosts import names_of
from scale.viewer.marks import Filter
from scale.viewer.shelf import Shelf

PAGE = Path(__file__).parents[3] / "src" / "scale" / "viewer" / "page"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
# What acts for the person; it comes from the server's own address, as the page's policy wants it. Each act is one line
# of JavaScript in the address; the next one follows when the page has come to rest after it.
ACT = """
const acts = new URLSearchParams(location.search).getAll("act");
const rested = () => Number(document.body.dataset.rested || 0);
// Once nothing has come to rest anew for a while.
const settled = (then, seen = -1, quiet = 0) => {
  const now = rested();
  if (now > 0 && now === seen && quiet > 12) then();
  else setTimeout(() => settled(then, now, now === seen ? quiet + 1 : 0), 50);
};
const painted = () => {
  const { canvas, context } = scaleView.overlay;
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, at) => at % 4 === 3 && value).length;
};
const tell = () => { document.body.dataset.told = JSON.stringify({
  hash: location.hash, widths: [innerWidth, document.documentElement.scrollWidth], drawn: scaleView.overlay.drawn,
  cloud: Boolean(scaleView.found.clouds.value), painted: painted(),
}); };
const DEEDS = {
  least(value) {
    const slider = document.getElementById("least");
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
  },
  toggle(number) { document.getElementById("classes").rows[number].querySelector("input").click(); },
  home() { document.getElementById("home").click(); },
  click(x, y) {
    const { map } = scaleView, at = map.transform();
    const position = new OpenSeadragon.Point(at.x + x * at.scale, at.y + y * at.scale);
    map.viewer.raiseEvent("canvas-click", { quick: true, position });
  },
};
const next = () => {
  if (!acts.length) { tell(); return; }
  const [name, ...words] = acts.shift().split(" ");
  DEEDS[name](...words);
  settled(next);
};
addEventListener("load", () => settled(next));
"""


@contextmanager
def site(held: Shelf) -> Iterator[str]:
    app = create_app(held, names_of("127.0.0.1"))

    def with_act(environ: Any, start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/act.js":
            start_response("200 OK", [("Content-Type", "text/javascript")])
            return [ACT.encode()]
        if environ["PATH_INFO"] != "/":
            return app(environ, start_response)
        reply = app.test_client().get("/")
        start_response("200 OK", [item for item in reply.headers.items() if item[0] != "Content-Length"])
        return [reply.data.replace(b"</head>", b'<script src="act.js" type="module"></script></head>')]

    with running("waitress", with_act) as one:
        yield f"http://127.0.0.1:{one.port}/"
    held.close()


def browse(folder: Path, url: str, *, width_px: int = 1280) -> tuple[str, dict[str, Any], list[str]]:
    """What the page says, what the acts tell of it, and what was written to the console."""
    assert CHROMIUM is not None
    flags = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    flags += " --disable-component-update --enable-logging=stderr --virtual-time-budget=12000 --dump-dom"
    own = [f"--user-data-dir={folder / 'profile'}", f"--window-size={width_px},900", url]
    done = subprocess.run([CHROMIUM, *flags.split(), *own], capture_output=True, text=True, timeout=120, check=True)
    text = re.sub(r"<(style|script|noscript).*?</\1>", "", done.stdout, flags=re.DOTALL)
    said = " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())
    told = re.search(r'data-told="([^"]*)"', done.stdout)
    assert told is not None, (said, done.stderr[-2000:])
    return said, json.loads(unescape(told[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
def test_the_slide_its_detections_and_a_filter(tmp_path: Path) -> None:
    found = marks()
    with site(shelf(found=found)) as url:
        said, told, console = browse(tmp_path, f"{url}?act=home&act=least+0.5&act=toggle+2")
    assert not console
    sure = found.select((0, 0, 1500, 1100), Filter(least=0.5))
    crypts, cells, others = found.counts(sure).tolist()
    assert f"Crypt {crypts} {crypts} Cell {cells} {cells}" in said
    assert f"<img src=x onerror=alert(1)> – {others}" in said
    assert f"shown {crypts + cells} {crypts + cells}" in said
    assert told["drawn"] == crypts + cells
    assert told["painted"] > 1000
    assert re.search(r"\d+ µm", said)
    assert "1,500 × 1,100 px · 0.8 × 0.6 mm · 0.500 µm/px" in said
    assert "conf=0.50" in told["hash"]
    assert told["hash"].count("classes=") == 2


@needs_browser
def test_a_link_leads_to_its_place_and_a_click_tells_of_a_detection(tmp_path: Path) -> None:
    found = marks(polygons=True)
    crypt = found.boxes[0]
    x, y = (crypt[0] + crypt[2]) / 2, (crypt[1] + crypt[3]) / 2
    alone = f"slide=slide&x={x:.1f}&y={y:.1f}&zoom=1.500&conf=0.05&classes=Crypt"
    with site(shelf(found=found)) as url:
        said, told, console = browse(tmp_path, f"{url}?act=click+{x}+{y}#{alone}")
    assert not console
    assert told["hash"] == f"#{alone}"
    assert f"Crypt × confidence {found.scores[0]:.3f} size 150 × 150 µm area 11250 µm²" in said


@needs_browser
def test_many_small_ones_are_a_cloud_on_a_narrow_screen_and_a_slide_that_is_gone_is_told(tmp_path: Path) -> None:
    slides = {"gone": None, "slide": FakeSlide(picture(), (1, 4), 0.5)}
    held = shelf(slides, found=marks(half_px=(2, 6)), problems=("out/bad/manifest.json is broken",))
    with site(held) as url:
        said, told, console = browse(tmp_path, f"{url}#slide=gone&x=750&y=550&zoom=0.1", width_px=390)
    assert [line for line in console if "404" not in line] == []
    assert "Its file is gone. Type: scale view out/gone --slide PATH (the slide)" in said
    assert "out/bad/manifest.json is broken" in said
    assert "gone 400 detections slide 400 detections" in said.replace("no file ", "")
    assert told["cloud"]
    assert told["painted"] > 1000
    assert told["drawn"] == 3  # the crypts are large enough
    assert told["widths"][1] <= told["widths"][0] <= 500


def test_nothing_comes_from_elsewhere() -> None:
    own = [file for file in PAGE.iterdir() if file.is_file()]
    assert len(own) > 5
    for file in own:
        text = file.read_text()
        assert not re.findall(r"https?://[^\"'`\s]*", text), file.name
        assert "innerHTML" not in text
        assert "eval(" not in text
    page = (PAGE / "index.html").read_text()
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"\s(on\w+|style)=", page)


def test_what_is_not_ours_has_its_licence_beside_it() -> None:
    library = (PAGE / "vendor" / "openseadragon.min.js").read_text()
    assert library.startswith("//! openseadragon 6.1.1")
    assert (
        "Redistribution and use in source and binary forms"
        in (PAGE / "vendor" / "openseadragon.LICENSE.txt").read_text()
    )
