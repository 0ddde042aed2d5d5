"""The WSGI application: Flask, and a shorter way around it for the requests that have to be fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from redline.core.errors import RequestError
from redline.serving.answers import Call, Reply
from redline.serving.core import Server
from redline.serving.routes import ROUTES, match

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PIECE_BYTES = 1 << 16
_MOST_FORM_PARTS = 256
_MOST_QUERY_FIELDS = 32
_HEADERS = {
    "CONTENT_TYPE": "content-type",
    "CONTENT_LENGTH": "content-length",
    "HTTP_AUTHORIZATION": "authorization",
    "HTTP_CONTENT_ENCODING": "content-encoding",
    "HTTP_INFERENCE_HEADER_CONTENT_LENGTH": "inference-header-content-length",
    "HTTP_X_REQUEST_ID": "x-request-id",
}
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def create_app(server: Server) -> Flask:
    """A Flask application that answers as ``server`` does.

    Flask knows every route, so that extensions and ``flask routes`` work; the requests that run a model don't go
    through its dispatch.
    """
    app = Flask("redline.serving", static_folder=None)
    app.url_map.merge_slashes = False
    # A second fence: what is read here is bounded by the server's limits first.
    app.config.update(
        MAX_CONTENT_LENGTH=server.limits.body_bytes,
        MAX_FORM_MEMORY_SIZE=server.limits.body_bytes,
        MAX_FORM_PARTS=_MOST_FORM_PARTS,
    )

    def answer(**_: str) -> Response:
        reply = _answer(server, request.environ)
        return Response(reply.body, reply.status, reply.headers)

    def answer_anyway(_: HTTPException) -> Response:
        return answer()

    for route in ROUTES:
        rule = route.template.replace("{", "<").replace("}", ">")
        app.add_url_rule(
            rule,
            endpoint=f"{route.name} {rule}",
            view_func=answer,
            methods=[route.method],
            provide_automatic_options=False,
        )
    app.register_error_handler(HTTPException, answer_anyway)
    app.wsgi_app = _Shortcut(server, app.wsgi_app)  # type: ignore[method-assign]
    return app


class _Shortcut:
    """Answers what runs a model itself, and hands the rest on."""

    def __init__(self, server: Server, rest: WSGIApplication) -> None:
        self._server = server
        self._rest = rest

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            matched = match(_path_of(environ))
            if matched is not None and matched.route.is_inference:
                reply = _answer(self._server, environ)
                headers = [*reply.headers.items(), ("Content-Length", str(len(reply.body)))]
                start_response(_STATUS_LINES[reply.status], headers)
                return [reply.body]
        return self._rest(environ, start_response)


def _answer(server: Server, environ: WSGIEnvironment) -> Reply:
    headers = {name: environ[key] for key, name in _HEADERS.items() if environ.get(key)}
    call = Call(method=environ["REQUEST_METHOD"], path=_path_of(environ), headers=headers)
    query = environ.get("QUERY_STRING")
    try:
        if query:
            call.query = _query_of(query)
        if server.wants_body_of(call):
            call.body = read_body(environ, server.limits.body_bytes)
    except RequestError as error:
        return _final(environ, server.refuse(call, error))
    reply = server.answer(call)
    return _final(environ, reply) if reply.status >= 400 and not call.body else reply


def _final(environ: WSGIEnvironment, reply: Reply) -> Reply:
    """The last answer on its connection: what the client still sends must not be taken for its next request.

    Only a server may say so by the rules (PEP 3333), and the others have read it all by now or close by themselves.
    """
    sends_body = environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ
    if sends_body and environ.get("SERVER_SOFTWARE") == "Granian":
        reply.headers["Connection"] = "close"
    return reply


def read_body(environ: WSGIEnvironment, most_bytes: int) -> bytes:
    """The whole body, bounded also where its length is not declared.

    Werkzeug's own reading cuts a chunked body at the limit and says nothing.

    Raises:
        RequestError: 413 for more than ``most_bytes``, 400 for a length that is none or a body that ends before it.
    """
    declared = environ.get("CONTENT_LENGTH") or None
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    if declared is not None and chunked:
        raise RequestError("got both Content-Length and Transfer-Encoding, expected one of them")
    read = environ["wsgi.input"].read
    if declared is None:
        # Without a length and without an end that the server marks, there is no body.
        if not chunked and not environ.get("wsgi.input_terminated"):
            return b""
        body = _read(read, most_bytes + 1, piece_bytes=_PIECE_BYTES)
        if len(body) > most_bytes:
            raise _too_long(most_bytes)
        return body
    if not declared.isascii() or not declared.isdecimal():
        raise RequestError("the Content-Length is no number of bytes")
    length = int(declared) if len(declared) < 20 else most_bytes + 1
    if length > most_bytes:
        raise _too_long(most_bytes)
    body = _read(read, length, piece_bytes=length)
    if len(body) < length:
        raise RequestError(f"the body ended {length - len(body)} bytes before its Content-Length of {length}")
    return body


def _read(read: Callable[[int], bytes], most_bytes: int, *, piece_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left = most_bytes
    try:
        while left and (piece := read(min(piece_bytes, left))):
            pieces.append(piece)
            left -= len(piece)
    except (OSError, HTTPException) as error:
        raise RequestError("the body could not be read to its end") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_long(most_bytes: int) -> RequestError:
    return RequestError(f"the body is too long, expected at most {most_bytes} bytes", status=413)


def _path_of(environ: WSGIEnvironment) -> str:
    path: str = environ.get("PATH_INFO", "") or "/"
    if path.isascii():
        return path
    try:
        return path.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:  # decoded already
        return path


def _query_of(text: str) -> dict[str, str]:
    """The first value of each name."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_QUERY_FIELDS)
    except ValueError as error:
        raise RequestError(f"the query has too many fields, expected at most {_MOST_QUERY_FIELDS}") from error
    return dict(reversed(pairs))
