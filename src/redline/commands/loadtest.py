"""Load models over HTTP and hold them against each other: servers started, windows interleaved, one document."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import redline
from redline.core.errors import InputError, RedlineError
from redline.core.packages import missing
from redline.core.preprocess import Preprocess
from redline.core.processes import command_line
from redline.core.samples import Samples
from redline.formats.onnx_file import read_onnx
from redline.loadtesting.agreement import agree
from redline.loadtesting.bodies import describe, find_samples, make_parcel
from redline.loadtesting.generators import open_generator
from redline.loadtesting.job import Parcel
from redline.loadtesting.measure import Measurement, Windows
from redline.loadtesting.plan import LOOK_SHARES, Turn, expected_s, given_loads, look_rates, look_users, turns
from redline.loadtesting.results import (
    FILE_NAME,
    AnswerAgreement,
    Arrivals,
    BodyKind,
    Load,
    LoadTest,
    Tool,
    write_loadtest,
)
from redline.loadtesting.summary import Summary, summarize
from redline.loadtesting.targets import Command, Server, Spot, open_servers, parse_spots
from redline.measurement.environment import fingerprint, noise_check
from redline.opening.opening import open_any

__all__ = ["Summary", "loadtest"]

#: Called with what is being done, the seconds of load behind it and those of all that is planned.
Listener = Callable[[str, float, float], None]

#: ``python -m redline serve`` that ends with the process that started it, even by kill -9.
_SERVE = (
    "from redline.core.processes import end_with_parent\n"
    "end_with_parent()\n"
    "from redline.cli import entry_point\n"
    "entry_point()\n"
)


def loadtest(
    models: Sequence[str | Path],
    out: str | Path,
    *,
    tool: Tool = "open",
    requests: int | None = None,
    rates: Sequence[float] = (),
    users: Sequence[int] = (),
    arrivals: Arrivals = "constant",
    seconds: float = 3.0,
    rounds: int = 5,
    body: BodyKind = "binary",
    data: str | Path | None = None,
    labels: str | Path | None = None,
    slo_ms: float | None = None,
    threads: int = 0,
    seed: int = 0,
    listener: Listener | None = None,
) -> Summary:
    """Load one or several models and write ``loadtest.json`` into ``out``.

    Without ``rates`` and ``users`` the knee is looked for: closed loops of 1, 2, 4 and 8 users, then (with our own
    generator) open loops at 50 to 110 % of what they reached. Windows of the targets alternate in a drawn order, so
    that noise hits all alike. What was measured is kept when it is interrupted.

    Args:
        models: Files, for which a server is started (``redline serve``), and URLs of V2 servers; ``name=`` before one
            names it. The first is the baseline.
        out: The folder.
        tool: What makes the load.
        requests: How many each target gets under each load, over all rounds, in place of ``seconds``.
        rates: Of arrivals, per second: open loops.
        users: Of which each waits for its answer: closed loops.
        arrivals: How requests of an open loop are spread.
        seconds: How long a window measures.
        rounds: How many windows each target has under each load.
        body: What is sent; ``image/jpeg`` sends image files to ``/predict``.
        data: A folder of images, or arrays; else what is shipped with Redline, or random numbers.
        labels: A CSV file with the columns file and label, for accuracy.
        slo_ms: The longest that an answer may take, for the goodput.
        threads: Of the servers that are started; 0 lets them choose.
        seed: Of arrivals and orders.
        listener: Is told what happens.

    Raises:
        InputError: a model, a URL or an option is not usable; says why.
        MissingDependencyError: the tool or the server is not installed.
    """
    spots = parse_spots([str(model) for model in models])
    if not spots:
        raise InputError("got no model; name a file, or the URL of a V2 server")
    if slo_ms is not None and not slo_ms > 0:
        raise InputError(f"got an SLO of {slo_ms:g} ms, expected above 0")
    plan = _Plan(
        loads=given_loads(rates, users, arrivals=arrivals, tool=tool),
        windows=Windows(seconds=seconds, rounds=rounds, requests=requests, seed=seed),
        arrivals=arrivals,
        open_too=tool == "open",
    )
    if any(spot.path is not None for spot in spots) and find_spec("flask") is None:
        raise missing("flask")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redline-loadtest-")))
        generator = open_generator(tool)
        stack.callback(generator.close)
        _tell(listener, "servers start", 0.0, 0.0)
        servers = stack.enter_context(open_servers(spots, _command(threads), log_folder=scratch))
        samples = _samples(spots, servers, _path(data), _path(labels), seed)
        parcels = _parcels(body, servers, samples, _path(data), scratch)
        measurement = Measurement(servers, [str(path) for path in parcels], generator, plan.windows)
        document = LoadTest(
            command=command_line(f"redline.loadtest({[str(model) for model in models]!r}, …)"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            tool=tool,
            seed=seed,
            environment=fingerprint(noise=noise_check()),
            slo_ms=slo_ms,
            targets=tuple(server.target for server in servers),
            body=describe(body, Parcel.load(parcels[0])),
            points=(),
            notes=_notes(servers, samples),
            redline=redline.__version__,
        )
        document = _with_agreement(document, servers, samples, listener)
        return _measured(document, measurement, plan, folder / FILE_NAME, listener)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The loads that were named (none: look for the knee) and how windows are."""

    loads: Sequence[Load]
    windows: Windows
    arrivals: Arrivals
    open_too: bool


def _measured(
    document: LoadTest, measurement: Measurement, plan: _Plan, path: Path, listener: Listener | None
) -> Summary:
    def write(*more: str) -> LoadTest:
        notes = (*document.notes, *measurement.notes, *more)
        whole = replace(document, points=measurement.points, notes=notes)
        write_loadtest(whole, path)
        return whole

    everyone = tuple(range(len(document.targets)))
    progress = _Progress(plan, listener, document, write)
    try:
        progress.tell("warm-up")
        measurement.warm_up()
        loads = dict.fromkeys(plan.loads or look_users(), everyone)
        progress.run(measurement, loads, further_s=0.0 if plan.loads else plan.windows.seconds * _guess(plan, everyone))
        if not plan.loads and plan.open_too:
            best = [measurement.best(target) for target in everyone]
            progress.run(measurement, look_rates(best, arrivals=plan.arrivals), further_s=0.0)
    except KeyboardInterrupt:
        write("the test was interrupted: some loads have fewer rounds, or are missing")
        raise
    return summarize(write())


def _guess(plan: _Plan, everyone: Sequence[int]) -> float:
    """About how many windows the search for the knee has after its closed loops."""
    return 1.2 * plan.windows.rounds * len(LOOK_SHARES) * len(everyone) ** 2 if plan.open_too else 0.0


class _Progress:
    """Tells the listener how far it is, and writes the document after each round."""

    def __init__(self, plan: _Plan, listener: Listener | None, document: LoadTest, write: Callable[[], object]) -> None:
        self._plan, self._listener, self._document, self._write = plan, listener, document, write
        self._done_s = self._total_s = 0.0

    def tell(self, text: str) -> None:
        _tell(self._listener, text, self._done_s, self._total_s)

    def run(self, measurement: Measurement, loads: Mapping[Load, Sequence[int]], *, further_s: float) -> None:
        windows = self._plan.windows
        mine = expected_s(loads, rounds=windows.rounds, window_s=windows.expected_s)
        self._total_s = self._done_s + mine + further_s
        every: Iterable[Turn] = turns(loads, rounds=windows.rounds, seed=windows.seed)
        round_ = 0

        def on_turn(turn: Turn) -> None:
            nonlocal round_
            self._done_s += windows.expected_s(turn.load)
            name = self._document.targets[turn.target].name
            self.tell(f"round {turn.round + 1} of {windows.rounds}: {name}, {turn.load.label}")
            if turn.round > round_:
                round_ = turn.round
                self._write()

        measurement.measure(every, on_turn)
        self._write()


def _command(threads: int) -> Command:
    def words(name: str, path: Path, port: int) -> list[str]:
        # A folder of several models has its own names.
        one = path.is_file() or (path / "manifest.json").is_file() or (path / "best" / "manifest.json").is_file()
        served = f"{name}={path}" if one else str(path)
        more = ["--threads", str(threads)] if threads else []
        return [sys.executable, "-c", _SERVE, "serve", served, "--host", "127.0.0.1", "--port", str(port), *more]

    return words


def _samples(
    spots: Sequence[Spot], servers: Sequence[Server], data: Path | None, labels: Path | None, seed: int
) -> Samples:
    file = next((spot.path for spot in spots if spot.path is not None), None)
    preprocess, classes = _usage(file) if file is not None else (None, None)
    return find_samples(servers[0].signature, preprocess, data=data, labels=labels, classes=classes, seed=seed)


def _usage(path: Path) -> tuple[Preprocess | None, tuple[str, ...] | None]:
    """How a model's images are prepared and what its classes are called, as far as its file says it."""
    try:
        if path.suffix == ".onnx":
            usage = read_onnx(path).usage
            return usage.preprocess, usage.class_names or None
        opened = open_any(path, threads=1)
    except RedlineError:
        return None, None  # the server has opened it; only what it says of images is not known here
    opened.session.close()
    return opened.preprocess, opened.class_names


def _parcels(
    body: BodyKind, servers: Sequence[Server], samples: Samples, data: Path | None, scratch: Path
) -> list[Path]:
    folders = []
    images = data if data is not None and data.suffix not in (".npz", ".npy") else None
    if body == "image/jpeg" and data is not None and images is None:
        raise InputError(f"got arrays in {data}, which are no image files to send; leave --body jpeg out")
    for number, server in enumerate(servers):
        parcel = make_parcel(body, server, samples, images=images)
        status, told = server.client.post(parcel.path, parcel.bodies[0], parcel.headers)
        if status != 200:
            raise InputError(f"{server.target.name} answered {status} to {parcel.path}: {told}")
        folders.append(scratch / f"parcel-{number}")
        parcel.save(folders[-1])
    return folders


def _with_agreement(
    document: LoadTest, servers: Sequence[Server], samples: Samples, listener: Listener | None
) -> LoadTest:
    if len(servers) < 2 and samples.labels is None:
        return document
    _tell(listener, "answers are compared", 0.0, 0.0)
    try:
        found: AnswerAgreement = agree(servers, samples)
    except RedlineError as error:
        return replace(document, notes=(*document.notes, f"answers could not be compared: {error}"))
    return replace(document, agreement=found)


def _notes(servers: Sequence[Server], samples: Samples) -> tuple[str, ...]:
    notes = []
    if any(server.tree is not None for server in servers):
        notes.append("the load was made on the machine of the servers, and took its share of the processors")
    if samples.source.startswith("random"):
        notes.append(f"what was sent are {samples.source}: agreement on them says little about real inputs")
    return tuple(notes)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def _tell(listener: Listener | None, text: str, done_s: float, total_s: float) -> None:
    if listener is not None:
        listener(text, done_s, total_s)
