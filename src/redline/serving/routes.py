"""Which paths there are, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Name = Literal[
    "page",
    "file",
    "status",
    "metrics",
    "openapi",
    "predict",
    "live",
    "ready",
    "server",
    "model_ready",
    "model",
    "config",
    "all_statistics",
    "statistics",
    "infer",
    "index",
    "load",
    "unload",
]

FILES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Route:
    """One path, in which ``{model}`` and ``{version}`` stand for any one segment.

    Attributes:
        is_open: Answered without a token: probes send none, and the page has to load before it can ask for one.
        is_inference: Runs a model; these are the paths that have to be fast.
    """

    template: str
    name: Name
    method: Literal["GET", "POST"]
    is_open: bool = False
    is_inference: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method that it answers: whatever answers GET answers HEAD."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


ROUTES = (
    Route("/v2/models/{model}/infer", "infer", "POST", is_inference=True),
    Route("/v2/models/{model}/versions/{version}/infer", "infer", "POST", is_inference=True),
    Route("/predict", "predict", "POST", is_inference=True),
    Route("/predict/{model}", "predict", "POST", is_inference=True),
    Route("/v2", "server", "GET"),
    Route("/v2/health/live", "live", "GET", is_open=True),
    Route("/v2/health/ready", "ready", "GET", is_open=True),
    Route("/v2/models/stats", "all_statistics", "GET"),
    Route("/v2/models/{model}", "model", "GET"),
    Route("/v2/models/{model}/versions/{version}", "model", "GET"),
    Route("/v2/models/{model}/ready", "model_ready", "GET"),
    Route("/v2/models/{model}/versions/{version}/ready", "model_ready", "GET"),
    Route("/v2/models/{model}/config", "config", "GET"),
    Route("/v2/models/{model}/versions/{version}/config", "config", "GET"),
    Route("/v2/models/{model}/stats", "statistics", "GET"),
    Route("/v2/models/{model}/versions/{version}/stats", "statistics", "GET"),
    Route("/v2/repository/index", "index", "POST"),
    Route("/v2/repository/models/{model}/load", "load", "POST"),
    Route("/v2/repository/models/{model}/unload", "unload", "POST"),
    Route("/metrics", "metrics", "GET"),
    Route("/openapi.json", "openapi", "GET"),
    Route("/status", "status", "GET"),
    Route("/", "page", "GET", is_open=True),
    *(Route(f"/{name}", "file", "GET", is_open=True) for name in FILES),
)


@dataclass(frozen=True, slots=True)
class Match:
    """A route with what its path names; ``model`` is empty where it names none."""

    route: Route
    model: str = ""
    version: str | None = None


@lru_cache(maxsize=512)
def match(path: str) -> Match | None:
    """The route of a path, or None.

    >>> match("/v2/models/digits/versions/3/infer")
    Match(route=Route(template='/v2/models/{model}/versions/{version}/infer', name='infer', method='POST', \
is_open=False, is_inference=True), model='digits', version='3')
    >>> match("/v2/")
    """
    fixed = _FIXED.get(path)
    if fixed is not None:
        return fixed
    segments = path.split("/")
    for pattern, route in _BY_LENGTH.get(len(segments), ()):
        if all(wanted is None or wanted == got for wanted, got in zip(pattern, segments, strict=True)):
            named = [got for wanted, got in zip(pattern, segments, strict=True) if wanted is None]
            return Match(route, *named) if all(named) else None
    return None


_FIXED = {route.template: Match(route) for route in ROUTES if "{" not in route.template}
_BY_LENGTH: dict[int, list[tuple[tuple[str | None, ...], Route]]] = {}
for _route in ROUTES:
    if "{" in _route.template:
        _pattern = tuple(None if part.startswith("{") else part for part in _route.template.split("/"))
        _BY_LENGTH.setdefault(len(_pattern), []).append((_pattern, _route))
