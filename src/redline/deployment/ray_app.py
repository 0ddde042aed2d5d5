"""A Ray Serve application over the same serving core as ``redline serve``: its replicas answer what that answers.

    serve run redline.deployment.ray_app:app models=out/best replicas=2

Ray is imported when an application is built, in this file only.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from redline.core.artifact import Argument
from redline.core.errors import InputError, MissingDependencyError, RedlineError

#: What makes the server of a replica: ``(models, options) -> Made``, beside a class ``ServeOptions``. A string, as
#: replicas live in other processes and no room below the commands knows how a model is opened.
FACTORY = "redline.commands.serve:make_server"
_POLL_S = 10
_DRAIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request as the serving core takes it."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes = b""


class CoreReply(Protocol):
    """An answer as the serving core gives it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class CoreServer(Protocol):
    """The part of the serving core that a replica uses."""

    state: str
    limits: Any

    def wants_body_of(self, call: Any) -> bool:
        """Whether the body of a call is worth reading."""
        ...

    def answer(self, call: Any) -> CoreReply:
        """Answer one request; never raises."""
        ...

    def drain(self, timeout_s: float) -> bool:
        """Be not ready from now on, and wait until nothing is in flight."""
        ...


class Made(Protocol):
    """What the factory makes."""

    server: CoreServer

    def close(self) -> None:
        """Free the models."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many replicas run, and what each has.

    Attributes:
        smallest: The fewest.
        largest: The most; Ray starts more while requests wait.
        cores: That Ray reserves for each.
        gpus: That Ray reserves for each.
        ongoing: Requests that one replica holds at once; further ones wait in Ray's proxy.
        waiting: Requests that may wait in Ray's proxy; the next is refused with status 503.
    """

    smallest: int = 1
    largest: int = 1
    cores: float = 1
    gpus: float = 0
    ongoing: int = 64
    waiting: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise InputError(f"got {self.smallest} to {self.largest} replicas, expected at least 1 and rising")
        if self.cores < 0 or self.gpus < 0:
            raise InputError(f"got {self.cores} cores and {self.gpus} GPUs of a replica, expected 0 or more")


class Replica:
    """One server in a process of Ray's; its requests run in threads, as in ``redline serve``."""

    def __init__(
        self, models: Sequence[str], factory: str, options: Mapping[str, Argument | Path], threads: int
    ) -> None:
        self._made = _make(factory, models, options)
        self._server = self._made.server
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="redline-request")

    async def __call__(self, request: Any) -> Any:
        """Answer a request of Starlette's with a response of Starlette's."""
        response = importlib.import_module("starlette.responses").Response  # it comes with ray[serve]
        query = request.query_params.multi_items()
        call = Call(
            method=request.method,
            path=request.scope["path"].removeprefix(request.scope.get("root_path", "")),  # less the route's prefix
            headers={name.lower(): value for name, value in request.headers.items()},
            query=dict(reversed(query)),  # of a name that is there twice, the first
        )
        if self._server.wants_body_of(call):
            call = replace(call, body=await _body(request, self._server.limits.body_bytes))
        loop = asyncio.get_running_loop()
        reply: CoreReply = await loop.run_in_executor(self._threads, self._server.answer, call)
        # A length of their own would be there twice.
        headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-length"}
        return response(content=reply.body, status_code=reply.status, headers=headers)

    def check_health(self) -> None:
        """Called by Ray every few seconds; a replica that is not healthy is replaced."""
        if self._server.state not in ("starting", "ready"):
            raise RedlineError(f"the server is {self._server.state}")

    def close(self) -> None:
        """Answer what is in flight, then free the models."""
        self._server.drain(_DRAIN_S)
        self._threads.shutdown()
        self._made.close()

    def __del__(self) -> None:
        # Ray calls this before it ends a replica.
        if hasattr(self, "_threads"):
            self.close()


def build(
    models: Sequence[str],
    *,
    replicas: Replicas | None = None,
    factory: str = FACTORY,
    options: Mapping[str, Argument | Path] | None = None,
) -> Any:
    """An application for ``ray.serve.run``.

    Args:
        models: As for ``redline serve``: paths, or NAME=PATH. Every machine of the cluster has to find them there.
        replicas: How many, and what each has; one of one core where it is left out.
        factory: ``module:function`` that makes the server; the class ``ServeOptions`` of that module takes ``options``.
        options: Of :class:`redline.commands.serve.ServeOptions`, by name. Without ``instances`` a replica runs as many
            requests at once as it has cores.

    Raises:
        InputError: no model.
        MissingDependencyError: Ray Serve is not installed.
    """
    if not models:
        raise InputError("got no model, expected at least one path or NAME=PATH")
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise MissingDependencyError("ray[serve]", extra="cluster") from error
    plan = replicas or Replicas()
    deployment = serve.deployment(
        Replica,
        name="redline",
        ray_actor_options={"num_cpus": plan.cores, "num_gpus": plan.gpus},
        max_ongoing_requests=plan.ongoing,
        max_queued_requests=plan.waiting,
        health_check_period_s=_POLL_S,
        graceful_shutdown_timeout_s=_DRAIN_S,
        **_scale(plan),
    )
    told = {"instances": max(1, int(plan.cores)), **(options or {})}
    return deployment.bind([_absolute(model) for model in models], factory, told, plan.ongoing)


def app(args: Mapping[str, str]) -> Any:
    """What ``serve run`` and a Serve config file call: ``models=A,B replicas=1-4 cores=2 gpus=0``.

    Raises:
        InputError: an unknown argument, or one that is no number.
    """
    unknown = sorted(set(args) - {"models", "replicas", "cores", "gpus"})
    if unknown:
        raise InputError(f"got {', '.join(unknown)}, expected models, replicas, cores and gpus, as in models=out/best")
    smallest, _, largest = str(args.get("replicas", "1")).partition("-")
    try:
        plan = Replicas(
            smallest=int(smallest),
            largest=int(largest or smallest),
            cores=float(args.get("cores", 1)),
            gpus=float(args.get("gpus", 0)),
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"got {dict(args)}, expected numbers, as in replicas=1-4 cores=2 gpus=0") from error
    return build(tuple(model for model in str(args.get("models", "")).split(",") if model), replicas=plan)


def _scale(plan: Replicas) -> dict[str, int | dict[str, float]]:
    if plan.smallest == plan.largest:
        return {"num_replicas": plan.smallest}
    # Ray adds replicas while each has more than this many requests at a time.
    wanted = max(1.0, 2 * plan.cores)
    limits = {"min_replicas": plan.smallest, "max_replicas": plan.largest, "target_ongoing_requests": wanted}
    return {"autoscaling_config": limits}


def _make(factory: str, models: Sequence[str], options: Mapping[str, Argument | Path]) -> Made:
    name, _, function = factory.partition(":")
    module = importlib.import_module(name)
    made: Made = getattr(module, function)(models, module.ServeOptions(**options))
    return made


def _absolute(model: str) -> str:
    """``PATH`` or ``NAME=PATH`` for a process that runs in another folder."""
    if Path(model).exists():
        return str(Path(model).absolute())
    name, sign, path = model.partition("=")
    return f"{name}={Path(path).absolute()}" if sign and Path(path).exists() else model


async def _body(request: Any, largest: int) -> bytes:
    """The body, cut one byte behind the limit: the core sees by that byte that it is too large."""
    parts, size = [], 0
    async for chunk in request.stream():
        parts.append(chunk)
        size += len(chunk)
        if size > largest:
            break
    return b"".join(parts)[: largest + 1]
