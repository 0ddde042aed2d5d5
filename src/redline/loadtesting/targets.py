"""What is loaded: a server that runs already, by its URL, or one that is started for a model and ended afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from redline.core.errors import InputError
from redline.core.tensor import Signature
from redline.loadtesting.results import ServerSplit, Target
from redline.loadtesting.v2_client import Address, V2Client, model_path, parse_url
from redline.loadtesting.watch import ProcessTree, listening_pid

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_READY_S = 120.0
_LOOK_S = 0.05
_END_S = 15.0

#: The command line of a server for a name, a model's file and a port.
Command = Callable[[str, Path, int], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a model is: a file, or behind a URL; and what the report calls it."""

    name: str
    path: Path | None = None
    address: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Server:
    """A model that answers.

    Attributes:
        path: Where the server has it, as ``/v2/models/NAME/versions/N``.
        tree: The server's processes; None where they are not on this machine.
    """

    target: Target
    address: Address
    client: V2Client
    path: str
    signature: Signature
    tree: ProcessTree | None

    def split(self) -> ServerSplit | None:
        """The server's statistics so far."""
        return self.client.split(self.path)


def parse_spots(words: Sequence[str]) -> list[Spot]:
    """Spots from ``model.onnx``, ``name=model.onnx``, ``http://…``, ``name=http://…``; every name is another.

    Raises:
        InputError: a file that is not there, a URL that is none, or a name twice.
    """
    spots: list[Spot] = []
    for word in words:
        name, rest = _split(word)
        address = parse_url(rest) if rest.startswith(("http://", "https://")) else None
        path = None if address else Path(rest)
        if path is not None and not path.exists():
            raise InputError(f"{rest} is not there; expected a model's file, or the URL of a V2 server")
        given = name or (_name_of(path) if path else address.model or f"{address.host}:{address.port}")  # type: ignore[union-attr]
        taken = {spot.name for spot in spots}
        if name and name in taken:
            raise InputError(f"got the name {name} twice; name each model otherwise, as fp32=a.onnx int8=b.onnx")
        unique = next(one for n in range(1, 99) if (one := given if n == 1 else f"{given}-{n}") not in taken)
        spots.append(Spot(name=unique, path=path, address=address))
    return spots


@contextmanager
def open_servers(spots: Sequence[Spot], command: Command, *, log_folder: Path) -> Iterator[list[Server]]:
    """Start what is to be started, one after the other, and have all of them until the block ends.

    Raises:
        InputError: a server does not start or does not answer; says what it said.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_open(spot, command, log_folder)) for spot in spots]


@contextmanager
def _open(spot: Spot, command: Command, log_folder: Path) -> Iterator[Server]:
    if spot.path is None:
        assert spot.address is not None  # noqa: S101 (parse_spots gives one of both)
        pid = listening_pid(spot.address.port) if spot.address.host in _LOOPBACK else None
        own = pid is None or pid == os.getpid()
        yield _describe(spot, spot.address, None if own else ProcessTree(pid or 0))
        return
    with started(spot, command, log_folder=log_folder) as (address, process):
        yield _describe(spot, address, ProcessTree(process.pid))


@contextmanager
def started(
    spot: Spot, command: Command, *, log_folder: Path, ready_s: float = _READY_S
) -> Iterator[tuple[Address, subprocess.Popen[bytes]]]:
    """A server process that is ready; it is asked to end when the block ends, and killed if it does not.

    Raises:
        InputError: it ended, or was not ready in time; says what it said last.
    """
    assert spot.path is not None  # noqa: S101 (only a file is served)
    address = Address("127.0.0.1", _free_port())
    log_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=log_folder) as log:
        process = subprocess.Popen(
            list(command(spot.name, spot.path, address.port)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: what is measured is kept, then the servers are ended
        )
        try:
            client = V2Client(address, timeout_s=5.0)
            end = time.monotonic() + ready_s
            while not client.ready():
                if process.poll() is not None:
                    raise InputError(f"the server of {spot.path} ended: {_last(log.fileno())}")
                if time.monotonic() > end:
                    told = _last(log.fileno())
                    raise InputError(f"the server of {spot.path} was not ready within {ready_s:.0f} s: {told}")
                time.sleep(_LOOK_S)
            yield address, process
        finally:
            _end(process)


def _describe(spot: Spot, address: Address, tree: ProcessTree | None) -> Server:
    client = V2Client(address)
    model, version = client.model()
    # A version is named only where the URL did: a server that reloads goes on with the newest.
    path = model_path(model, address.version)
    return Server(
        target=Target(
            name=spot.name,
            url=address.url,
            path=str(spot.path) if spot.path else None,
            size_bytes=_size(spot.path),
            precision=client.precision(model),
            model=model,
            version=version,
        ),
        address=address,
        client=client,
        path=path,
        signature=client.signature(path),
        tree=tree,
    )


def _split(word: str) -> tuple[str, str]:
    """``name=rest``; a path or URL may hold ``=`` itself, a name holds no ``/``."""
    name, equals, rest = word.partition("=")
    if equals and rest and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) and not Path(word).exists():
        return name, rest
    return "", word


def _name_of(path: Path) -> str:
    """A name that a server takes, from a file's."""
    stem = path.resolve().name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip("._-")[:100] or "model"


def _size(path: Path | None) -> int | None:
    if path is None:
        return None
    if path.is_file():
        # Weights beside the graph, by the names that exporters give them.
        beside = [path.with_name(path.name + suffix) for suffix in (".data", "_data")]
        return path.stat().st_size + sum(one.stat().st_size for one in beside if one.is_file())
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _last(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, 4000, max(0, size - 4000)).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("redline: error:")]
    told = (errors or lines or ["it said nothing"])[-1]
    return told.removeprefix("redline: error:").strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    if process.poll() is None:
        process.kill()
        process.wait()
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
