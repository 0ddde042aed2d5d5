"""Serve models over HTTP: what is opened is joined with what answers, until the process is told to stop."""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from redline.core.errors import InputError, MissingDependencyError, RequestError
from redline.core.packages import PACKAGES
from redline.serving.limits import Limits
from redline.serving.runners import Listening, RunnerName, Stop, choose, serve_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

    from redline.serving.core import Server
    from redline.serving.metrics import Metrics
    from redline.serving.models import Models, Opener, Settings
    from redline.serving.shadow import Shadow

__all__ = ["Made", "Ready", "ServeOptions", "make_server", "serve"]

#: Packages of the extra ``serve``, by the module that each is imported as.
_PACKAGES = {package.module: package.distribution for package in PACKAGES if "serve" in package.extras}
_MOST_FILES = 1 << 16
_BATCH_ROWS = 32
_logger = logging.getLogger("redline.serving")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How models are served.

    Attributes:
        host: Address to listen at; other machines reach a server at ``0.0.0.0``.
        port: 0 for any free one.
        runner: ``auto`` is granian where it is installed, else waitress.
        max_batch: Rows that are put together into one run; 1 never does, None does it on a GPU only.
        max_delay_s: How long a request waits for others to join it.
        threads: Threads of one run on a CPU; None for 1.
        instances: Runs at once; None for as many as there are cores for.
        shadows: Names of models, and the reference that each is compared with; ``""`` is the only model.
        shadow_rate: The share of requests that a reference answers too.
        token_file: Holds the token that clients need.
        admin_token_file: Holds the token that loading and unloading needs.
        limits: What a request may be.
        keep: How many versions of a model answer: the newest that load.
        allow_signature_change: Whether a new version may take the place of one that takes or gives something else.
        poll_s: How often a repository is looked at again; 0 never.
        drain_delay_s: How long it goes on answering after it was told to stop.
        drain_timeout_s: The longest to wait for what is in flight after that.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    runner: RunnerName = "auto"
    max_batch: int | None = None
    max_delay_s: float = 0.0
    threads: int | None = None
    instances: int | None = None
    shadows: Mapping[str, str | Path] = field(default_factory=dict)
    shadow_rate: float = 0.05
    token_file: Path | None = None
    admin_token_file: Path | None = None
    limits: Limits = field(default_factory=Limits)
    keep: int = 1
    allow_signature_change: bool = False
    poll_s: float = 0.0
    drain_delay_s: float = 0.0
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"got port {self.port}, expected 0 to 65535")
        if self.runner not in ("auto", "granian", "waitress"):
            raise InputError(f"got runner {self.runner!r}, expected granian, waitress or auto")
        if self.max_batch is not None and self.max_batch < 1:
            raise InputError(f"got max-batch {self.max_batch}, expected 1 or more")
        if self.keep < 1:
            raise InputError(f"got keep {self.keep}, expected 1 or more versions")
        for name in ("max_delay_s", "poll_s", "drain_delay_s", "drain_timeout_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"got {name} {getattr(self, name)}, expected 0 or more seconds")

    @property
    def is_open(self) -> bool:
        """Whether other machines can ask, and need no token for it."""
        return self.token_file is None and not _is_loopback(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """One version of a model that a server has; ``runs`` is how many calls it answers at once."""

    name: str
    version: str
    precision: str
    backend: str
    size_bytes: int
    runs: int
    max_batch: int
    shadow: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A server that does not listen yet.

    Attributes:
        server: Answers calls, without HTTP.
        app: The same as a WSGI application.
        notes: What the user should know.
        close: Frees the models; nothing may run any more.
    """

    server: Server
    app: Flask
    notes: tuple[str, ...]
    close: Callable[[], None]

    def models(self) -> tuple[ServedVersion, ...]:
        """What it serves."""
        served = self.server.models
        rows: list[ServedVersion] = []
        for name in served.names:
            try:
                versions = [served.get(name, number) for number in served.versions(name)]
            except RequestError:  # unloaded meanwhile
                continue
            rows += [
                ServedVersion(
                    name=name,
                    version=version.number,
                    precision=version.loaded.precision,
                    backend=version.loaded.backend,
                    size_bytes=version.loaded.size_bytes,
                    runs=len(version.loaded.runs),
                    max_batch=version.batching.max_rows if version.batching else 1,
                    shadow=self.server.shadows.get(name) is not None,
                )
                for version in versions
            ]
        return tuple(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A server that answers.

    Attributes:
        url: Where.
        pid: The process to send SIGTERM to.
        runner: What serves.
        models: Each version.
        notes: What the user should know.
        warnings: What the user should change.
    """

    url: str
    pid: int
    runner: str
    models: tuple[ServedVersion, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def serve(
    models: str | Path | Sequence[str | Path],
    options: ServeOptions | None = None,
    *,
    on_ready: Callable[[Ready], None] | None = None,
    stop: Stop | None = None,
) -> bool:
    """Serve models until SIGTERM, SIGINT or ``stop``.

    Args:
        models: Each PATH or NAME=PATH, of an ONNX file, an engine, the folder of a tune, or a repository
            ``<name>/<version>/model.onnx``.
        options: How.
        on_ready: Told when it answers.
        stop: Stops it from another thread.

    Returns:
        Whether everything that was in flight at the end was answered.

    Raises:
        InputError: the port cannot be had, or a model cannot be served.
        MissingDependencyError: the extra ``serve`` is not installed.
    """
    options = options or ServeOptions()
    with ExitStack() as stack:
        listening = Listening(options.host, options.port)
        stack.callback(listening.close)
        runner, runner_notes = _runner(options.runner)
        made = make_server(models, options)
        stack.callback(made.close)
        _allow_many_files()

        def answers(url: str) -> None:
            if on_ready is not None:
                warnings = (_OPEN_WARNING.format(host=options.host),) if options.is_open else ()
                told = Ready(
                    url=url,
                    pid=os.getpid(),
                    runner=runner,
                    models=made.models(),
                    notes=(*runner_notes, *made.notes),
                    warnings=warnings,
                )
                on_ready(told)

        done = serve_on(
            runner,
            made.app,
            made.server,
            listening,
            limits=options.limits,
            drain_delay_s=options.drain_delay_s,
            drain_timeout_s=options.drain_timeout_s,
            on_ready=answers,
            stop=stop,
        )
        if not done:
            stack.pop_all()  # a model still runs; the end of the process frees it
        return done


_OPEN_WARNING = (
    "anybody who reaches this machine at {host} can use these models: no token is asked for; "
    "give --token-file, or --host 127.0.0.1"
)


def make_server(models: str | Path | Sequence[str | Path], options: ServeOptions | None = None) -> Made:
    """Open the models and what answers for them, without a port; as :func:`serve` otherwise."""
    options = options or ServeOptions()
    given = [models] if isinstance(models, str | Path) else list(models)
    if not given:
        raise InputError("got no model; name one, as: redline serve model.onnx")
    # Pillow warns of what a stranger's file has in its margins, in words from that file, and Python keeps each of them.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with _extra(), ExitStack() as stack:
        from redline.commands.serve_models import make_opener, sources_of
        from redline.serving.app import create_app
        from redline.serving.core import Server
        from redline.serving.metrics import Metrics
        from redline.serving.models import Models
        from redline.serving.tokens import Tokens

        tokens = Tokens.from_files(options.token_file, options.admin_token_file)
        metrics = Metrics()
        served = Models(make_opener(threads=options.threads, instances=options.instances), _settings(options), metrics)
        stack.callback(served.close)
        sources = sources_of([str(one) for one in given])
        for source in sources.models:
            served.add(source)
        for root in sources.repositories:
            served.add_repository(root)
        if not served.names:
            raise InputError(f"{', '.join(map(str, sources.repositories))}: there is no model in it")
        shadow_opener = make_opener(threads=1, instances=1)
        shadows: dict[str, Shadow] = {}
        for name, path in options.shadows.items():
            shadow = _shadow(stack, served, metrics, shadow_opener, (name, Path(path), options.shadow_rate))
            shadows[name or served.names[0]] = shadow
        server = Server(served, limits=options.limits, metrics=metrics, tokens=tokens, shadows=shadows)
        app = create_app(server)
        if options.poll_s and sources.repositories:
            stack.callback(_poll(served, options.poll_s))
        return Made(server=server, app=app, notes=_notes(served), close=stack.pop_all().close)


def _settings(options: ServeOptions) -> Settings:
    from redline.serving.models import Settings
    from redline.serving.scheduling import Batching

    batching: Batching | Literal["auto"] | None = "auto"
    if options.max_batch == 1:
        batching = None
    elif options.max_batch is not None or options.max_delay_s:
        batching = Batching(max_rows=options.max_batch or _BATCH_ROWS, max_delay_s=options.max_delay_s)
    return Settings(
        batching=batching,
        queue=options.limits.queue,
        keep=options.keep,
        allow_signature_change=options.allow_signature_change,
    )


def _shadow(
    stack: ExitStack, served: Models, metrics: Metrics, opener: Opener, what: tuple[str, Path, float]
) -> Shadow:
    from redline.serving.shadow import Shadow

    name, path, rate = what
    name = name or served.default_name or ""
    if name not in served.names:
        known = ", ".join(served.names)
        raise InputError(f"got a shadow for {name!r}, expected NAME=FILE with the name of what is served: {known}")
    loaded = opener(path)
    stack.callback(loaded.close)
    ours, theirs = served.get(name).loaded.signature, loaded.signature
    for kind, mine, other in (("inputs", ours.inputs, theirs.inputs), ("outputs", ours.outputs, theirs.outputs)):
        if [(spec.name, spec.dtype) for spec in mine] != [(spec.name, spec.dtype) for spec in other]:
            raise InputError(
                f"the shadow {path} has the {kind} {_words(other)}, expected those of {name}, {_words(mine)}"
            )
    shadow = Shadow(loaded.runs[0], rate, metrics, model=name, name=path.name)
    stack.callback(shadow.close)
    return shadow


def _words(specs: Sequence[Any]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}" for spec in specs) or "none"


def _notes(served: Models) -> tuple[str, ...]:
    notes = []
    for row in served.index():
        if row["state"] == "UNAVAILABLE":
            notes.append(f"{row['name']} {row['version']} is not served: {row['reason']}".replace("  ", " "))
        elif row["state"] == "READY":
            version = served.get(row["name"], row["version"])
            notes += [f"{row['name']}: {note}" for note in version.loaded.notes]
    return tuple(notes)


def _poll(served: Models, poll_s: float) -> Callable[[], None]:
    """Look at the repositories again and again; what is returned ends that."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(poll_s):
            try:
                served.rescan()
            except Exception:  # (the edge of a thread: the next look may go well)
                _logger.exception("the repository could not be looked at")

    thread = threading.Thread(target=look, name="redline-poll", daemon=True)
    thread.start()
    return ended.set


def _runner(name: RunnerName) -> tuple[Literal["granian", "waitress"], tuple[str, ...]]:
    """What serves, checked to load; granian that does not fit gives way to waitress where nobody asked for it."""
    chosen = choose(name)
    try:
        with _extra():
            importlib.import_module(f"redline.serving.runner_{chosen}")
    except ImportError as error:
        if name != "auto" or chosen == "waitress":
            raise
        with _extra():
            importlib.import_module("redline.serving.runner_waitress")
        return "waitress", (f"granian cannot be used ({error}); waitress serves",)
    return chosen, ()


@contextmanager
def _extra() -> Iterator[None]:
    """A package of the extra that is not there is told by what to type."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = _PACKAGES.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        raise MissingDependencyError(package, extra="serve") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _allow_many_files() -> None:
    """Let as many connections be open as the system allows; a shell's usual limit of 1024 files is too few."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
