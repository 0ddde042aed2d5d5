"""Serve the viewer until told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redline.core.errors import InputError, MissingDependencyError
from redline.serving.limits import Limits
from redline.serving.runners import Listening, Stop, serve_on
from scale.viewer.hosts import is_loopback, names_of
from scale.viewer.results import Result, find_results, find_slide

if TYPE_CHECKING:
    from scale.slides.base import Slide
    from scale.viewer.marks import Marks
    from scale.viewer.shelf import Shelf

__all__ = ["ViewOptions", "Viewing", "make_shelf", "view"]

#: How many requests are worked on at once; a tile takes a core while it is made.
_THREADS = 12
_LIMITS = Limits(body_bytes=1 << 16)
_OPEN_WARNING = (
    "anybody who reaches this machine at {host} can see these slides, no password is asked for; give --host 127.0.0.1"
)
_PACKAGES = ("flask", "werkzeug", "waitress", "pyarrow", "tifffile", "imagecodecs", "openslide", "cv2")
#: The quickest to read first.
_DETECTIONS = ("detections.parquet", "detections.geojson", "detections.geojson.gz", "detections.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """How results are shown.

    Attributes:
        host: Address to listen at; other machines reach a server at ``0.0.0.0``, and no password is asked for.
        port: 0 for any free one.
        slides: Where slides are now, if not where they were: files, or folders of files.
    """

    host: str = "127.0.0.1"
    port: int = 8400
    slides: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"got port {self.port}, expected 0 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """A viewer that answers.

    Attributes:
        url: Where.
        pid: The process to send SIGTERM to.
        slides: Names of the slides that it shows.
        notes: What the user should know.
    """

    url: str
    pid: int
    slides: tuple[str, ...]
    notes: tuple[str, ...]


class _NothingToDrain:
    """What answers: it holds nothing that has to be finished."""

    def begin_drain(self) -> None:
        """Nothing to do."""

    def drain(self, timeout_s: float) -> bool:  # noqa: ARG002 (the protocol's)
        """Nothing to wait for."""
        return True


def view(
    folder: Path,
    options: ViewOptions | None = None,
    *,
    on_ready: Callable[[Viewing], None] | None = None,
    stop: Stop | None = None,
) -> bool:
    """Show the detections of a result folder in a browser until SIGTERM, SIGINT or ``stop``.

    Args:
        folder: What ``scale detect`` wrote: of one slide, or a folder of such folders.
        options: How.
        on_ready: Told when it answers.
        stop: Stops it from another thread.

    Returns:
        Whether everything that was in flight at the end was answered.

    Raises:
        InputError: there are no results, or the port cannot be had.
        MissingDependencyError: the extra ``scale`` is not installed.
    """
    options = options or ViewOptions()
    results, problems = find_results(folder)
    with ExitStack() as stack:
        listening = Listening(options.host, options.port)
        stack.callback(listening.close)
        try:
            from scale.viewer.app import create_app

            shelf = make_shelf(results, options.slides, problems=problems)
            app = create_app(shelf, names_of(options.host))
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        stack.callback(shelf.close)

        def answers(url: str) -> None:
            if on_ready is not None:
                names = tuple(result.name for result in results)
                warning = () if is_loopback(options.host) else (_OPEN_WARNING.format(host=options.host),)
                on_ready(Viewing(url=url, pid=os.getpid(), slides=names, notes=(*warning, *problems)))

        return serve_on(
            "waitress",
            app,
            _NothingToDrain(),
            listening,
            limits=_LIMITS,
            threads=_THREADS,
            drain_timeout_s=5.0,
            on_ready=answers,
            stop=stop,
        )


def make_shelf(results: tuple[Result, ...], slides: tuple[Path, ...] = (), *, problems: tuple[str, ...] = ()) -> Shelf:
    """A shelf of results, with their slides and detections from disk.

    Args:
        results: What to show.
        slides: Where slides are now, if not where they were.
        problems: What is wrong with the others; the page shows it.
    """
    from scale.viewer.shelf import Shelf, Sources

    alone = len(results) == 1

    def open_slide_of(result: Result) -> Slide:
        from scale.slides.opening import open_slide

        return open_slide(find_slide(result, slides, alone=alone))

    return Shelf(
        results,
        Sources(marks=_read_marks, slide=open_slide_of, count=_count, stamp=_stamp),
        problems=problems,
    )


def _read_marks(result: Result) -> Marks:
    from scale.outputs.colours import colours_of
    from scale.viewer.marks import Marks

    path = _detections_of(result)
    try:
        from scale.outputs.reading import read_detections

        detections, names = read_detections(path)
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    colors = colours_of(names)
    return Marks(
        detections.boxes,
        detections.scores,
        detections.classes,
        names=names,
        colors=tuple("#{:02x}{:02x}{:02x}".format(*colors[name]) for name in names),
        polygons=detections.polygons,
    )


def _detections_of(result: Result) -> Path:
    for name in _DETECTIONS:
        path = result.folder / name
        if path.is_file():
            return path
    raise InputError(
        f"there are no detections in {result.folder} yet: the run is not finished, type its `scale detect` again with "
        f"--resume; the viewer reads {', '.join(_DETECTIONS)}"
    )


def _count(result: Result) -> int | None:
    """How many detections a Parquet file says that it has; the other formats would have to be read whole."""
    path = result.folder / _DETECTIONS[0]
    if not path.is_file():
        return None
    try:
        from pyarrow import ArrowException, parquet

        return int(parquet.ParquetFile(path).metadata.num_rows)
    except (ImportError, OSError, ArrowException):
        return None


def _stamp(result: Result) -> str:
    path = _detections_of(result)
    known = path.stat()
    return f"{path.name} {known.st_mtime_ns} {known.st_size}"


def _missing(error: ModuleNotFoundError) -> ModuleNotFoundError | MissingDependencyError:
    package = (error.name or "").partition(".")[0]
    return MissingDependencyError(package, extra="scale") if package in _PACKAGES else error
