"""The WSGI application of the viewer; it only reads, and only from what the shelf holds."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from redline.core.errors import RedlineError, RequestError
from scale.viewer.density import density, png_of
from scale.viewer.encoding import encode
from scale.viewer.hosts import trusts
from scale.viewer.index import Rectangle
from scale.viewer.marks import Filter
from scale.viewer.shelf import Shelf

__all__ = ["create_app"]

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: For what has its version in its address.
_FOREVER = "private, max-age=31536000, immutable"
_AGAIN = "no-cache"
_MOST_DETECTIONS = 50_000
_MOST_WORDS = 20_000
_log = logging.getLogger("scale.viewer")


def create_app(shelf: Shelf, names: frozenset[str]) -> Flask:
    """A Flask application that shows what is on a shelf.

    Args:
        shelf: The results.
        names: What a browser may call this server, beside addresses.
    """
    app = Flask("scale.viewer", static_folder=None)
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = 0
    files = _page_files()

    @app.before_request
    def refuse_foreign_names() -> Response | None:
        if trusts(names, request.headers.get("Host", "")):
            return None
        return _error("this server is asked by a name that is not its own; use http://127.0.0.1 and its port", 403)

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.get("/")
    def index() -> Response:
        return _file(files["index.html"], ".html")

    @app.get("/page/<path:name>")
    def file(name: str) -> Response:
        if name not in files:
            raise RequestError("there is no such file", status=404)
        return _file(files[name], Path(name).suffix)

    _add_slides(app, shelf)
    _add_detections(app, shelf)
    _add_errors(app)
    return app


def _add_slides(app: Flask, shelf: Shelf) -> None:
    @app.get("/slides")
    def slides() -> Response:
        return jsonify(shelf.list())

    @app.get("/slides/<name>")
    def slide(name: str) -> Response:
        with shelf.use(name) as opened:
            return jsonify(opened.to_json())

    @app.get("/slides/<name>/thumbnail.jpg")
    def thumbnail(name: str) -> Response:
        return _tagged(Response(shelf.thumbnail(name), mimetype="image/jpeg"))

    @app.get("/slides/<name>/tiles/<version>/<int:level>/<int:column>_<int:row>.jpg")
    def tile(name: str, version: str, level: int, column: int, row: int) -> Response:
        with shelf.use(name) as opened:
            is_current = version == opened.version
        response = Response(shelf.tile(name, level, column, row), mimetype="image/jpeg")
        response.headers["Cache-Control"] = _FOREVER if is_current else "no-store"
        return _conditional(response)


def _add_detections(app: Flask, shelf: Shelf) -> None:
    @app.get("/slides/<name>/detections")
    def detections(name: str) -> Response:
        most = int(_number("limit", 20_000, low=0, high=_MOST_DETECTIONS))
        step_px = _number("step", 0.0, low=0.0)
        with shelf.use(name) as opened:
            body = encode(opened.marks, _rectangle(), _filter(opened.marks.names), most=most, step_px=step_px)
        return Response(body, mimetype="application/octet-stream")

    @app.get("/slides/<name>/counts")
    def counts(name: str) -> Response:
        with shelf.use(name) as opened:
            marks = opened.marks
            found = marks.counts(marks.select(_rectangle(), _filter(marks.names)))
        return jsonify({"counts": found.tolist()})

    @app.get("/slides/<name>/density.png")
    def picture(name: str) -> Response:
        bin_px = _number("bin", 1.0, low=1e-3)
        with shelf.use(name) as opened:
            made = density(opened.marks, _rectangle(), bin_px, _filter(opened.marks.names))
        return _tagged(Response(png_of(made), mimetype="image/png"))


def _add_errors(app: Flask) -> None:
    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return _error(str(error), error.status)

    @app.errorhandler(RedlineError)
    def broken(error: RedlineError) -> Response:
        return _error(str(error), 500)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        return _error((error.description or "there is no such thing").split("\n", maxsplit=1)[0], error.code or 500)

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.path[:200], exc_info=error)
        return _error("internal error; what `scale view` printed says more", 500)


def _page_files() -> dict[str, bytes]:
    """Everything that may be asked for, by its name; no path is made from a request."""
    found = (path for path in _PAGE.rglob("*") if path.suffix in _TYPES)
    return {path.relative_to(_PAGE).as_posix(): path.read_bytes() for path in found}


def _file(content: bytes, suffix: str) -> Response:
    return _tagged(Response(content, content_type=_TYPES[suffix]))


def _tagged(response: Response) -> Response:
    """Kept by the browser, and asked about again each time."""
    response.headers["Cache-Control"] = _AGAIN
    return _conditional(response)


def _conditional(response: Response) -> Response:
    """Nothing but "not modified" where the browser has this very content."""
    response.add_etag()
    response.make_conditional(request)
    return response


def _error(text: str, status: int) -> Response:
    response = jsonify({"error": text})
    response.status_code = status
    return response


def _rectangle() -> Rectangle:
    """x0, y0, x1 and y1 of the query."""
    x0, y0, x1, y1 = (_number(name, None) for name in ("x0", "y0", "x1", "y1"))
    if x1 < x0 or y1 < y0:
        raise RequestError(f"got a rectangle from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}), expected x0 <= x1 and y0 <= y1")
    return x0, y0, x1, y1


def _filter(names: tuple[str, ...]) -> Filter:
    """The confidence and the classes of the query; classes are numbers joined by commas, all where left out."""
    least = _number("min", 0.0)
    words = request.args.get("classes")
    if words is None:
        return Filter(least=least)
    if len(words) > _MOST_WORDS or not all(word.isascii() and word.isdecimal() for word in words.split(",") if word):
        raise RequestError("'classes' is no list of numbers, expected such as 0,2")
    wanted = frozenset(int(word) for word in words.split(",") if word and len(word) < 10)
    return Filter(least=least, classes=wanted & frozenset(range(len(names))))


def _number(name: str, default: float | None, *, low: float = -math.inf, high: float = math.inf) -> float:
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        more = "" if low == -math.inf else f" of {low:g} or more" if high == math.inf else f" from {low:g} to {high:g}"
        raise RequestError(f"got {name} {(text or 'nothing')[:40]!r}, expected a number{more}")
    return value
