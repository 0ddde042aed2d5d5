"""Detection on a cohort of slides: each into a folder of its own, none stopped by another, all in one table."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import filelock

import redline
from redline.core.errors import BusyError, InputError, MissingDependencyError, RedlineError
from redline.core.files import write_whole
from redline.core.plain import JsonObject
from scale.merging.settings import MergeSettings
from scale.models.loaded import OpenModel
from scale.models.opening import CpuPrecision
from scale.models.spec import ModelSpec
from scale.pipeline.finish import merge_settings
from scale.pipeline.models import calibrate, open_runners
from scale.pipeline.options import DetectOptions
from scale.pipeline.reader_pool import reader_pool
from scale.pipeline.reports import Listener, SlideReport
from scale.pipeline.run import run_strips
from scale.pipeline.runners import Runner
from scale.pipeline.shards import HeldRunError
from scale.pipeline.slide_job import Bench, detect_slide

__all__ = ["RUN", "CohortReport", "DetectOptions", "Listener", "detect"]

RUN = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortReport:
    """What became of all slides, in the order in which they were named."""

    out: Path
    slides: tuple[SlideReport, ...]

    @property
    def good(self) -> bool:
        """Whether the results of every slide are there and whole."""
        return all(slide.good for slide in self.slides)

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        return {"out": str(self.out), "slides": [slide.to_json() for slide in self.slides]}


def detect(
    slides: Sequence[str | Path],
    models: Sequence[ModelSpec],
    out: str | Path,
    *,
    options: DetectOptions | None = None,
    device: str = "auto",
    threads: int = 0,
    fallback: bool = True,
    cpu_precision: CpuPrecision = "fp32",
    listener: Listener | None = None,
    cluster: str | None = None,
) -> CohortReport:
    """Search slides with models and write what was found into ``out``, a folder for each slide.

    A slide that cannot be read is reported and the others are done. What is finished when this is interrupted is
    kept, and ``options.resume`` goes on from there.

    Args:
        slides: Files.
        models: What looks for what.
        out: The folder.
        options: How slides are searched, and what is written.
        device: Where models run: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        threads: Of runtimes on the CPU; 0 takes all cores.
        fallback: Whether something else may answer where a TensorRT engine does not work.
        cpu_precision: What ONNX files are computed in on the CPU.
        listener: Is told what happens.
        cluster: Address of a Ray cluster whose machines search; see :mod:`scale.pipeline.cluster`. None searches here.

    Raises:
        InputError: no slide, no model, or a model that cannot be used.
        MissingDependencyError: a package is missing without which no slide can be done.
        DeviceError: the cluster does not answer, or a machine of it is not as this one.
    """
    paths = [Path(slide) for slide in slides]
    if not paths:
        raise InputError("got no slide, expected at least one file")
    options, listener, out = options or DetectOptions(), listener or Listener(), Path(out)
    options = replace(options, classes={**_classes(models), **options.classes})
    folders = folders_of(paths, out)
    jobs = list(zip(paths, folders, strict=True))
    with ExitStack() as stack:
        if cluster is None:
            opening = partial(
                open_runners, models, device=device, threads=threads, fallback=fallback, cpu_precision=cpu_precision
            )
            bench = stack.enter_context(_bench_here(opening, options, listener))
            reports = [_done(path, folder, bench, out) for path, folder in jobs]
        else:
            from scale.pipeline.cluster import cluster_bench, side_by_side

            opened = cluster_bench(
                cluster,
                models,
                options,
                listener=listener,
                device=device,
                threads=threads,
                fallback=fallback,
                cpu_precision=cpu_precision,
            )
            bench, stop = stack.enter_context(opened)
            reports = side_by_side([partial(_done, path, folder, bench, out) for path, folder in jobs], stop)
    _raise_if_hopeless(reports)
    return CohortReport(out=out, slides=tuple(reports))


def folders_of(slides: Sequence[Path], out: Path) -> list[Path]:
    """A folder for each slide: its stem, or what tells slides of one stem apart.

    >>> [str(path) for path in folders_of([Path("a/x.svs"), Path("x.tif"), Path("y.svs")], Path("out"))]
    ['out/x.svs', 'out/x.tif', 'out/y']
    """
    for slide in slides:
        if sum(slide.absolute() == other.absolute() for other in slides) > 1:
            raise InputError(f"got the slide {slide} twice")
    stems, names = Counter(slide.stem for slide in slides), Counter(slide.name for slide in slides)
    found = []
    for slide in slides:
        name = slide.stem if stems[slide.stem] == 1 else slide.name
        if stems[slide.stem] > 1 and names[slide.name] > 1:
            name = f"{name}-{hashlib.sha256(str(slide.absolute()).encode()).hexdigest()[:8]}"
        found.append(out / name)
    return found


def _classes(models: Sequence[ModelSpec]) -> dict[str, MergeSettings]:
    return {name: one for model in models for name, one in merge_settings(model.postprocess).items()}


@contextmanager
def _bench_here(
    opening: Callable[..., AbstractContextManager[tuple[Runner, ...]]], options: DetectOptions, listener: Listener
) -> Iterator[Bench]:
    """Models that are open in this process."""

    def tell(model: OpenModel) -> None:
        for note in model.notes:
            listener.note(note)

    with opening(opened=tell) as runners, reader_pool(options.run, runners) as pool:
        search = partial(run_strips, runners=runners, options=options.run, pool=pool)
        paces = calibrate(runners)
        yield Bench(runners=runners, paces=paces, options=options, listener=listener, search=search)


def _done(path: Path, folder: Path, bench: Bench, out: Path) -> SlideReport:
    """One slide, and that it is done with is told."""
    report = _guarded(path, folder, bench, out)
    bench.listener.finished(report)
    return report


def _guarded(path: Path, folder: Path, bench: Bench, out: Path) -> SlideReport:
    """One slide, whose failure is a line in the table."""
    try:
        report = detect_slide(path, folder, bench)
    except (BusyError, HeldRunError) as error:
        # What the folder's table says of that other run stays.
        return SlideReport(slide=path, status="failed", error=_told(error), cause=error)
    except (RedlineError, OSError) as error:
        report = SlideReport(slide=path, status="failed", error=_told(error), cause=error)
    except Exception as error:  # noqa: BLE001 (the edge of a slide: the others are still to be done)
        told = f"internal error, {type(error).__name__}: {error}"
        report = SlideReport(slide=path, status="failed", error=" ".join(told.split()))
    except KeyboardInterrupt:
        _recorded(out, SlideReport(slide=path, status="interrupted", folder=folder))
        raise
    return _recorded(out, report)


def _recorded(out: Path, report: SlideReport) -> SlideReport:
    """The report, in the folder's table too; where that cannot be written, the slide has failed, if not before."""
    try:
        _record(out, report)
    except OSError as error:
        if report.error is None:
            return replace(report, status="failed", error=_told(error), cause=error)
    return report


def _told(error: RedlineError | OSError) -> str:
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, RedlineError):
        text = f"{error.filename or 'while reading or writing'}: {error.strerror or error}"
    return " ".join(text.split())


def _record(out: Path, report: SlideReport) -> None:
    """Put a slide's row into the table of the folder; several runs may share one."""
    out.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(out / f".{RUN}.lock"):
        try:
            rows = json.loads((out / RUN).read_text())["slides"]
            kept = [row for row in rows if row["slide"] != str(report.slide)]
        except (OSError, ValueError, KeyError, TypeError):
            kept = []
        rows = sorted([*kept, report.to_json()], key=lambda row: str(row["slide"]))
        write_whole(out / RUN, json.dumps({"redline": redline.__version__, "slides": rows}, indent=1) + "\n")


def _raise_if_hopeless(reports: Sequence[SlideReport]) -> None:
    """Where the only slide failed, or all for want of a package, that is the error of the run."""
    causes = [report.cause for report in reports if report.status == "failed"]
    if len(causes) < len(reports):
        return
    missing = [cause for cause in causes if isinstance(cause, MissingDependencyError)]
    if len(missing) == len(reports):
        raise missing[0]
    if len(reports) == 1 and causes[0] is not None:
        raise causes[0]
