"""The models that are served, by name and version; they come, change and go while requests run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from redline.core.errors import InputError, RedlineError, RequestError
from redline.serving.repository import NAME, Fingerprint, ModelSource, fingerprint, scan_repository
from redline.serving.versions import Loaded, Opener, Settings, Version, open_version

if TYPE_CHECKING:
    from redline.serving.metrics import Metrics

__all__ = ["Loaded", "ModelSource", "Models", "Opener", "Settings", "Version", "scan_repository"]

_CLOSE_TIMEOUT_S = 10.0
_UNLOAD_TIMEOUT_S = 1.0  # whoever asks sees it gone at once where nobody uses it
_logger = logging.getLogger("redline.serving")
_Key = tuple[str, str]
_Serving = Mapping[str, Version]


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a version did not load, and what its files looked like: it is tried again when they look otherwise."""

    reason: str
    seen: Fingerprint


class Models:
    """What is served; any thread may ask, and one at a time changes it.

    A change makes everything new first and puts it in place by one assignment, so that a request finds either the old
    version or the new one; the old one is freed after its last use, in a thread of its own.
    """

    def __init__(self, opener: Opener, settings: Settings | None = None, metrics: Metrics | None = None) -> None:
        self._opener = opener
        self._settings = settings or Settings()
        self._metrics = metrics
        self._serving: Mapping[str, _Serving] = {}
        self._sources: Mapping[str, ModelSource] = {}
        self._roots: tuple[Path, ...] = ()
        self._unloaded: frozenset[str] = frozenset()
        self._change = threading.RLock()  # held by a change from its beginning to its end
        self._lock = threading.Lock()  # held for a moment, for what is below
        self._seen: dict[_Key, Fingerprint] = {}
        self._failures: dict[_Key, _Failure] = {}
        self._loading: set[_Key] = set()
        self._draining: dict[Version, threading.Thread] = {}

    # What requests ask.

    def get(self, name: str, version: str | None = None) -> Version:
        """A version that is ready, the newest where none is named.

        Raises:
            RequestError: 404 where there is no such thing, 503 where it is not ready.
        """
        serving = self._serving.get(name)
        if serving:
            if version is None:
                return next(iter(serving.values()))
            if version in serving:
                return serving[version]
        raise self._missing(name, version)

    def use(self, name: str, version: str | None = None) -> _Use:
        """The same as a context: the version stays open while the block runs."""
        return _Use(self, name, version)

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that has a name here, ready or not."""
        return tuple(self._sources)

    @property
    def default_name(self) -> str | None:
        """The only name there is; None where there are several."""
        names = self.names
        return names[0] if len(names) == 1 else None

    def versions(self, name: str) -> list[str]:
        """The numbers that are ready, rising.

        Raises:
            RequestError: 404 where there is no such name.
        """
        if name not in self._sources:
            raise self._missing(name, None)
        return sorted(self._serving.get(name, {}), key=int)

    def ready(self, name: str | None = None, version: str | None = None) -> bool:
        """Whether it answers; without a name, whether any model does.

        A folder that somebody adds and that does not load must not take a whole server out of service.
        """
        if name is None:
            return any(self._serving.values())
        serving = self._serving.get(name, {})
        return bool(serving) if version is None else version in serving

    def index(self) -> list[dict[str, str]]:
        """Every version that is, was or should be served, as Triton's repository index lists them."""
        rows: list[dict[str, str]] = []
        for name, source in self._sources.items():
            states = self._states(source)
            rows += [
                {"name": name, "version": number, "state": state, "reason": reason}
                for number, (state, reason) in sorted(states.items(), key=lambda item: int(item[0] or 0))
            ]
        return rows

    def _states(self, source: ModelSource) -> dict[str, tuple[str, str]]:
        name = source.name
        found: dict[str, tuple[str, str]] = {
            number: ("UNAVAILABLE", problem) for number, problem in source.problems.items()
        }
        serving = self._serving.get(name, {})
        with self._lock:
            failures = {number: failure for (of, number), failure in self._failures.items() if of == name}
            found |= {number: ("UNAVAILABLE", failure.reason) for number, failure in failures.items()}
            found |= {version.number: ("UNLOADING", "") for version in self._draining if version.name == name}
            found |= {number: ("LOADING", "") for of, number in self._loading if of == name}
        for number in serving:
            kept = failures.get(number)
            found[number] = ("READY", f"not loaded again, the one before answers: {kept.reason}" if kept else "")
        if not found:
            number = next(iter(source.newest_first), "")
            found[number] = ("UNAVAILABLE", "unloaded" if number else "there is no version of it")
        return found

    def _missing(self, name: str, version: str | None) -> RequestError:
        """Why there is no such version, in Triton's words."""
        shown = name[:128]
        source = self._sources.get(name)
        if source is None:
            return RequestError(f"Request for unknown model: '{shown}' is not found", status=404)
        if version is None:
            if any(state == "LOADING" for state, _ in self._states(source).values()):
                return RequestError(f"model '{shown}' is not at ready state", status=503, retry_after_s=1.0)
            return RequestError(f"Request for unknown model: '{shown}' has no available versions", status=404)
        if self._states(source).get(version, ("", ""))[0] == "LOADING":
            message = f"Request for unknown model: '{shown}' version {version} is not at ready state"
            return RequestError(message, status=503, retry_after_s=1.0)
        return RequestError(f"Request for unknown model: '{shown}' version {version[:32]} is not found", status=404)

    # What changes them.

    def add(self, source: ModelSource) -> None:
        """Serve what a user named.

        Raises:
            InputError: the name is taken.
            RedlineError: none of its versions loads.
        """
        with self._change:
            if source.name in self._sources:
                raise InputError(f"two models are called {source.name}; name one of them as NAME=PATH")
            self._sources = {**self._sources, source.name: source}
            failed = self._update(source)
            if not self._serving.get(source.name):
                self._forget(source.name)
                error = next(iter(failed.values()), None)
                if isinstance(error, RedlineError):
                    raise error
                problem = str(error) if error else next(iter(source.problems.values()), "there is no version of it")
                raise InputError(f"{source.name}: {problem}") from error

    def add_repository(self, root: Path) -> None:
        """Serve what a folder holds, now and after every :meth:`rescan`; what does not load is said by the index.

        Raises:
            InputError: it is not a folder.
        """
        with self._change:
            self._scan(root)
            self._roots = (*self._roots, root)

    def rescan(self) -> None:
        """Look at the repositories again: load what is new or changed, unload what is gone."""
        with self._change:
            for root in self._roots:
                try:
                    self._scan(root)
                except (InputError, OSError) as error:  # a share that is away must not take the models with it
                    _logger.warning("%s cannot be read, its models stay as they are: %s", root, error)

    def load(self, name: str) -> None:
        """Load a model again from its source, also where nothing seems to have changed.

        Raises:
            RequestError: 400 where it is not known or does not load; what was ready before still answers.
        """
        with self._change:
            source = self._newest_source(name)
            if source is None:
                raise RequestError(f"failed to load '{name[:128]}', failed to poll from model repository")
            self._sources = {**self._sources, name: source}
            self._unloaded -= {name}
            failed = self._update(source, again=True)
            if failed:
                raise RequestError(f"failed to load '{name}', {self._failures[name, next(iter(failed))].reason}")
            if not self._serving.get(name):
                problem = next(iter(source.problems.values()), "no version is available")
                raise RequestError(f"failed to load '{name}', {problem}")

    def unload(self, name: str) -> None:
        """Stop to answer for a model until :meth:`load` is asked for it.

        Raises:
            RequestError: 400 where it is not known.
        """
        with self._change:
            if name not in self._sources:
                raise RequestError(f"failed to unload '{name[:128]}', no such model is known")
            self._unloaded |= {name}
            self._forget_failures(name)
            self._serve(name, {})
        self._join(_UNLOAD_TIMEOUT_S, name)

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing runs or waits; False where that takes too long."""
        until = time.monotonic() + timeout_s
        versions = [version for serving in self._serving.values() for version in serving.values()]
        return all(version.scheduler.drain(max(0.0, until - time.monotonic())) for version in versions)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Unload everything and wait until it is freed."""
        with self._change:
            self._roots = ()
            for name in self.names:
                self._forget(name)
        self._join(timeout_s)

    # How.

    def _scan(self, root: Path) -> None:
        found = {source.name: source for source in scan_repository(root)}
        real = root.resolve()
        for name in [name for name, source in self._sources.items() if source.root == real and name not in found]:
            self._forget(name)
        for name, source in found.items():
            known = self._sources.get(name)
            if known is not None and known.root != real:
                _logger.warning("%s in %s is not served: another model is called so", name, root)
                continue
            self._sources = {**self._sources, name: source}
            if name not in self._unloaded:
                self._update(source)

    def _newest_source(self, name: str) -> ModelSource | None:
        known = self._sources.get(name)
        if known is not None and known.root is None:
            return known
        if not NAME.fullmatch(name):
            return None
        for root in self._roots:
            try:
                found = {source.name: source for source in scan_repository(root)}
            except (InputError, OSError):
                continue
            if name in found:
                return found[name]
        return None

    def _update(self, source: ModelSource, *, again: bool = False) -> dict[str, Exception]:
        """Serve the newest versions that load, and say which did not."""
        before = self._serving.get(source.name, {})
        failed: dict[str, Exception] = {}
        now: dict[str, Version] = {}
        self._forget_failures(source.name, but=set(source.versions))
        for number in source.newest_first:
            if len(now) == self._settings.keep:
                break
            try:
                version = self._current(source, number, before, again=again)
            except Exception as error:  # noqa: BLE001 (whatever a model does, the others are served)
                failed[number] = error
                version = before.get(number)
            if version is not None:
                now[number] = version
        self._serve(source.name, now)
        return failed

    def _current(self, source: ModelSource, number: str, before: _Serving, *, again: bool) -> Version | None:
        """The version that is ready already, or a new one; None where it failed before and has not changed since."""
        key, seen, old = (source.name, number), fingerprint(source, number), before.get(number)
        failure = self._failures.get(key)
        if not again and failure is not None and failure.seen == seen:
            return old
        if not again and old is not None and self._seen.get(key) == seen:
            return old
        with self._lock:
            self._loading.add(key)
        try:
            made = self._opened(source, number, seen, old or _predecessor(number, before))
        except Exception as error:
            words = _words(error, source.versions[number])
            unexpected = not isinstance(error, RedlineError)
            _logger.warning("%s version %s was not loaded: %s", *key, words, exc_info=unexpected)
            with self._lock:
                self._loading.discard(key)
                self._failures[key] = _Failure(words, seen)
            raise
        with self._lock:
            self._failures.pop(key, None)
            self._seen[key] = seen
        return made

    def _opened(self, source: ModelSource, number: str, seen: Fingerprint, replaces: Version | None) -> Version:
        what = (source.name, number, source.versions[number])
        made = open_version(self._opener, what, self._settings, replaces=replaces, metrics=self._metrics)
        if fingerprint(source, number) == seen:
            return made
        made.retire()
        made.close()
        raise InputError("its files changed while they were read; they are read again with the next look")

    def _serve(self, name: str, now: _Serving) -> None:
        """Put these versions in place of those before, which are freed once nobody uses them."""
        before = self._serving.get(name, {})
        if self._metrics is not None:
            for version in now.values():
                loaded = version.loaded
                self._metrics.served(name, version.number, precision=loaded.precision, backend=loaded.backend)
        self._serving = {**self._serving, name: now}
        with self._lock:
            self._loading = {key for key in self._loading if key[0] != name}
        for version in before.values():
            if now.get(version.number) is not version:
                self._retire(version)

    def _retire(self, version: Version) -> None:
        name = f"redline-drain-{version.name}-{version.number}"
        thread = threading.Thread(target=self._drained, args=(version,), name=name, daemon=True)
        with self._lock:
            self._draining[version] = thread
            version.retire()
            thread.start()

    def _join(self, timeout_s: float, name: str | None = None) -> None:
        """Wait until what was retired is freed."""
        until = time.monotonic() + timeout_s
        with self._lock:
            threads = [thread for version, thread in self._draining.items() if name in (None, version.name)]
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _drained(self, version: Version) -> None:
        try:
            version.close()
        except Exception:
            _logger.exception("%s version %s could not be freed", version.name, version.number)
        with self._lock:
            self._draining.pop(version, None)
        if self._metrics is not None and version.number not in self._serving.get(version.name, {}):
            self._metrics.forget(version.name, version.number)

    def _forget(self, name: str) -> None:
        self._serve(name, {})
        self._sources = {known: source for known, source in self._sources.items() if known != name}
        self._serving = {known: serving for known, serving in self._serving.items() if known != name}
        self._unloaded -= {name}
        self._forget_failures(name)

    def _forget_failures(self, name: str, *, but: Collection[str] = ()) -> None:
        with self._lock:
            for key in [key for key in self._failures if key[0] == name and key[1] not in but]:
                del self._failures[key]


class _Use:
    """A version for the time of a block; written by hand, as every request pays for it."""

    __slots__ = ("_models", "_name", "_number", "_version")

    def __init__(self, models: Models, name: str, number: str | None) -> None:
        self._models, self._name, self._number = models, name, number

    def __enter__(self) -> Version:
        while True:
            version = self._models.get(self._name, self._number)
            if version.acquire():  # else it was replaced since, and there is another one or an error
                self._version = version
                return version

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._version.release()


def _predecessor(number: str, before: _Serving) -> Version | None:
    """The version whose clients get ``number`` from now on; going back to an older one replaces none."""
    return next((version for known, version in before.items() if int(known) < int(number)), None)


def _words(error: Exception, path: Path) -> str:
    """Why a version did not load, without saying where on this machine it lies."""
    if not isinstance(error, RedlineError):
        return f"{type(error).__name__}; the server's log says more"
    words = str(error)
    for folder in (path.parent, path.parent.resolve()):
        words = words.replace(f"{folder}/", "")
    return words
