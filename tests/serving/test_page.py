"""The page as a browser without a window sees it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reporting.browser import CHROMIUM
from tests.serving.fakes import Shelf, classify, picture, serve
from tests.serving.http_tools import running

from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.app import create_app
from redline.serving.core import Call, Server
from redline.serving.shadow import Shadow
from redline.serving.tokens import Tokens

PAGE = Path(__file__).parents[2] / "src" / "redline" / "serving" / "page"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
# What acts for the person; it comes from the server's own address, as the page's policy wants it.
ACT = """
addEventListener("load", () => {
  const pick = new URLSearchParams(location.search).get("model");
  setTimeout(() => {
    if (pick) { const s = document.getElementById("model"); s.value = pick; s.dispatchEvent(new Event("change")); }
    setTimeout(() => {
      document.body.dataset.widths = `${innerWidth} ${document.documentElement.scrollWidth}`;
    }, 1500);
  }, 1500);
});
"""


@contextmanager
def site(server: Server) -> Iterator[str]:
    app = create_app(server)

    def with_act(environ: Any, start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/act.js":
            start_response("200 OK", [("Content-Type", "text/javascript")])
            return [ACT.encode()]
        if environ["PATH_INFO"] != "/":
            return app(environ, start_response)
        reply = server.answer(Call(method="GET", path="/"))
        start_response("200 OK", list(reply.headers.items()))
        return [reply.body.replace(b"</head>", b'<script src="act.js" defer></script></head>')]

    with running("waitress", with_act, server=server) as one:
        yield f"http://127.0.0.1:{one.port}/"


def browse(folder: Path, url: str, *, width_px: int = 1280) -> tuple[str, list[str]]:
    """The document after its scripts ran, and what they wrote to the console."""
    assert CHROMIUM is not None
    flags = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    flags += " --disable-component-update --enable-logging=stderr --virtual-time-budget=6000 --dump-dom"
    own = [f"--user-data-dir={folder / 'profile'}", f"--window-size={width_px},1600", url]
    done = subprocess.run([CHROMIUM, *flags.split(), *own], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def words(document: str) -> str:
    """What the page says, blanks made one."""
    text = re.sub(r"<(style|script|noscript).*?</\1>", "", document, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


@needs_browser
def test_a_sample_is_answered_and_the_server_described(tmp_path: Path) -> None:
    odd = '<img src=x onerror="document.title=1">'

    class Odd(Shelf):
        def __call__(self, path: Path) -> Any:
            loaded = super().__call__(path)
            object.__setattr__(loaded, "class_names", ("red", "green", odd) if path.stem == "colours" else None)
            return loaded

    def reference(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"scores": classify(inputs)["scores"][:, ::-1]}

    models = serve(tmp_path, "colours", "affine", shelf=Odd())
    server = Server(models)
    shadow = Shadow(reference, 1.0, model="colours", name="colours-fp32", metrics=server.metrics)
    server.shadows["colours"] = shadow
    for color in ("red", "blue", "lime"):
        body = picture(color)
        reply = server.answer(
            Call(method="POST", path="/predict/colours", headers={"content-type": "image/png"}, body=body)
        )
        assert reply.status == 200
        assert shadow.wait_idle(20)
    with site(server) as url:
        document, console = browse(tmp_path, f"{url}#sunset")
    said = words(document)
    assert not console
    assert "Ask colours" in said
    assert "INT8" in said
    assert "takes images, sees 8 × 8 pixels" in said
    assert odd in said
    assert "<img" not in document
    assert "<title>Redline</title>" in document
    assert re.search(r"queue \S+ ms decode \S+ ms infer \S+ ms encode \S+ ms", said)
    assert re.search(r"Answered 4\b", said)
    assert "The latest 4 answers of colours" in said
    assert "<polyline" in document
    assert "In its shadow, colours-fp32 answers 100.0 % of the requests too." in said
    assert re.search(r"Disagreement [1-9]\S* %", said)
    assert f"curl -F image=@photo.jpg {url}predict/colours" in said
    assert "not loaded" not in said
    shadow.close()
    models.close()


@needs_browser
def test_a_model_without_images_and_a_narrow_screen(tmp_path: Path) -> None:
    wide = TensorSpec("a_rather_long_name_of_an_input_that_goes_on_and_on", ("batch", 4), "float32")
    shelf = Shelf()
    shelf.signatures["affine"] = Signature((wide,), (TensorSpec("y", ("batch", 4), "float32"),))
    shelf.runs["affine"] = lambda inputs: {"y": np.zeros((1, 4), np.float32)}
    models = serve(tmp_path, "colours", "affine", shelf=shelf)
    with site(Server(models)) as url:
        document, console = browse(tmp_path, f"{url}?model=affine", width_px=390)
    assert not console
    said = words(document)
    assert "Ask affine" in said
    assert "This model does not say how an image becomes its input" in said
    widths = re.search(r'data-widths="(\d+) (\d+)"', document)
    assert widths is not None
    assert int(widths[2]) <= int(widths[1]) <= 500
    assert wide.name in said
    models.close()


@needs_browser
def test_a_page_of_a_server_that_wants_a_token_asks_for_it(tmp_path: Path) -> None:
    models = serve(tmp_path, "colours")
    with site(Server(models, tokens=Tokens(token="a-token-of-some-length"))) as url:
        document, _ = browse(tmp_path, url)
    assert '<form class="card key" id="key">' in document
    assert "needs a token" in words(document)
    models.close()


def test_nothing_comes_from_elsewhere() -> None:
    for file in PAGE.iterdir():
        text = file.read_text()
        assert set(re.findall(r"https?://[^\"'`\s]*", text)) <= {"http://www.w3.org/2000/svg"}, file.name
        assert "innerHTML" not in text
        assert "eval(" not in text
    page = (PAGE / "index.html").read_text()
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"\s(on\w+|style)=", page)
