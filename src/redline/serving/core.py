"""The server without HTTP: a call in, a reply out."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from redline.core.errors import RequestError
from redline.serving.answers import Call, Reply, empty_reply, error_reply, json_reply, refusal, request_id_of
from redline.serving.image_inputs import ImageInputs
from redline.serving.inference import Inference
from redline.serving.limits import Limits
from redline.serving.metrics import Metrics
from redline.serving.models import Models
from redline.serving.openapi import describe
from redline.serving.predict import Predict
from redline.serving.routes import FILES, Match, Name, Route, match
from redline.serving.shadow import Shadow
from redline.serving.status import status_of
from redline.serving.tokens import Tokens
from redline.serving.v2 import V2

__all__ = ["Call", "Reply", "Server", "State"]

State = Literal["starting", "ready", "draining"]
Handler = Callable[[Call, Match], Reply]

_PAGE = Path(__file__).parent / "page"
_TYPES = {"index.html": "text/html; charset=utf-8", **FILES}
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_REASONS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "wrong_method",
    413: "too_large",
    415: "unsupported_type",
    503: "overloaded",
    504: "deadline",
}
_log = logging.getLogger("redline.serving")


class Server:
    """Answers calls with the models that it is given; any thread may call it."""

    def __init__(
        self,
        models: Models,
        *,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        tokens: Tokens | None = None,
        shadows: Mapping[str, Shadow] | None = None,
    ) -> None:
        self.models = models
        self.limits = limits or Limits()
        self.metrics = metrics or Metrics()
        self.tokens = tokens or Tokens()
        self.shadows = dict(shadows or {})
        self._draining = False
        self._in_flight = 0
        self._idle = threading.Condition()
        self._errors: Counter[str] = Counter()
        self._began_s = time.monotonic()
        inference = Inference(models, limits=self.limits, metrics=self.metrics, shadows=self.shadows)
        images = ImageInputs(self.limits)
        v2 = V2(models, inference, images, self.limits)
        predict = Predict(models, inference, images, self.limits)
        self._files = {name: (_PAGE / name).read_bytes() for name in _TYPES}
        self._handlers: dict[Name, Handler] = {
            "infer": lambda call, at: v2.infer(call, at.model, at.version),
            "predict": lambda call, at: predict.predict(call, at.model),
            "live": lambda _, __: empty_reply(),
            "ready": lambda _, __: self._ready(),
            "server": lambda _, __: v2.server(),
            "model": lambda _, at: v2.model(at.model, at.version),
            "model_ready": lambda _, at: v2.model_ready(at.model, at.version),
            "config": lambda _, at: v2.config(at.model, at.version),
            "statistics": lambda _, at: v2.statistics(at.model, at.version),
            "all_statistics": lambda _, __: v2.all_statistics(),
            "index": lambda call, _: v2.index(call.body),
            "load": lambda call, at: v2.load(at.model, call.body),
            "unload": lambda call, at: v2.unload(at.model, call.body),
            "metrics": lambda _, __: self._metrics(),
            "openapi": lambda _, __: json_reply(describe(self.models, self.limits, self.tokens)),
            "status": lambda _, __: self._status(),
            "page": lambda _, __: self._file("index.html", _PAGE_HEADERS),
            "file": lambda _, at: self._file(at.route.template[1:], {"Cache-Control": "no-cache"}),
        }

    @property
    def state(self) -> State:
        """``ready`` while any model is, until the drain begins: one that fails takes no other out of service."""
        if self._draining:
            return "draining"
        return "ready" if self.models.ready() else "starting"

    @property
    def in_flight(self) -> int:
        """How many calls are being answered."""
        return self._in_flight

    def begin_drain(self) -> None:
        """Say from now on that this server is not ready; it goes on answering."""
        self._draining = True

    def drain(self, timeout_s: float) -> bool:
        """Wait until no call is being answered; False where that takes longer."""
        self.begin_drain()
        with self._idle:
            return self._idle.wait_for(lambda: self._in_flight == 0, timeout_s)

    def wants_body_of(self, call: Call) -> bool:
        """Whether the body of a call is worth reading: its path and method exist, and its sender may ask."""
        matched = match(call.path)
        if matched is None or call.method != matched.route.method:
            return False
        return call.method == "POST" and self._refused(call, matched) is None

    def answer(self, call: Call) -> Reply:
        """Answer one call; what goes wrong becomes an answer too."""
        with self._idle:
            self._in_flight += 1
        try:
            reply = self._answer(call)
        finally:
            with self._idle:
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.notify_all()
        return reply

    def refuse(self, call: Call, error: RequestError) -> Reply:
        """The answer to a call that is turned away before it is whole."""
        return self._signed(self._turned_away(error), request_id_of(call))

    def _answer(self, call: Call) -> Reply:
        request_id = request_id_of(call)
        try:
            reply = self._routed(call)
        except RequestError as error:
            reply = self._turned_away(error)
        except Exception:  # noqa: BLE001 (the edge: whatever happens inside, the client gets an answer)
            _log.exception("request %s failed: %s %s", request_id, call.method, call.path[:200])
            with self._idle:
                self._errors["failed"] += 1
            reply = error_reply("internal error", status=500)
        return self._signed(reply, request_id)

    def _routed(self, call: Call) -> Reply:
        matched = match(call.path)
        if matched is None:
            raise RequestError("there is no such path; /openapi.json lists them all", status=404)
        if call.method not in matched.route.methods:
            return _wrong_method(call.method, matched.route)
        refused = self._refused(call, matched)
        if refused is not None:
            raise refused
        return self._handlers[matched.route.name](call, matched)

    def _refused(self, call: Call, matched: Match) -> RequestError | None:
        """Why this sender may not ask this."""
        authorization = call.headers.get("authorization")
        if matched.route.name in ("load", "unload") and self.tokens.admin is None:
            return RequestError("loading and unloading is off; start the server with an admin token", status=403)
        if not matched.route.is_open and not self.tokens.allows(authorization):
            return RequestError("a token is needed: send Authorization: Bearer <token>", status=401)
        if matched.route.name in ("load", "unload") and not self.tokens.allows_admin(authorization):
            return RequestError("the admin token is needed: send Authorization: Bearer <admin token>", status=403)
        return None

    def _turned_away(self, error: RequestError) -> Reply:
        reason = _REASONS.get(error.status, "other")
        self.metrics.rejected(reason)
        with self._idle:
            self._errors[reason] += 1
        return refusal(error)

    @staticmethod
    def _signed(reply: Reply, request_id: str) -> Reply:
        reply.headers["X-Request-Id"] = request_id
        reply.headers["X-Content-Type-Options"] = "nosniff"
        return reply

    def _ready(self) -> Reply:
        state = self.state
        return empty_reply() if state == "ready" else error_reply(f"the server is {state}", status=503)

    def _metrics(self) -> Reply:
        return Reply(status=200, headers={"Content-Type": self.metrics.content_type}, body=self.metrics.text())

    def _status(self) -> Reply:
        reply = json_reply(
            {
                "state": self.state,
                "uptime_s": round(time.monotonic() - self._began_s, 1),
                "in_flight": self._in_flight - 1,  # less this one
                "errors": dict(self._errors),
                **status_of(self.models, self.shadows),
            }
        )
        reply.headers["Cache-Control"] = "no-store"
        return reply

    def _file(self, name: str, headers: Mapping[str, str]) -> Reply:
        return Reply(status=200, headers={"Content-Type": _TYPES[name], **headers}, body=self._files[name])


def _wrong_method(method: str, route: Route) -> Reply:
    allowed = ", ".join(route.methods)
    reply = error_reply(f"got the method {method[:20]}, expected {allowed}", status=405)
    reply.headers["Allow"] = allowed
    return reply
