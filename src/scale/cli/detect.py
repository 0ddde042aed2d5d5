"""``scale detect``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress
from redline.cli.program import EXIT_GATE, EXIT_INPUT
from redline.core.errors import InputError
from scale.cli.common import duration, models_of, parse_overlap

if TYPE_CHECKING:
    from scale.pipeline.detect import CohortReport
    from scale.pipeline.reports import SlideReport
    from scale.pipeline.timing import Timing

_COLOURS = {"done": "green", "kept": "green", "incomplete": "yellow", "failed": "red"}
_MOST_CLASSES = 12
_MOST_FAILURES = 5


def detect_command(
    slides: Annotated[list[Path], typer.Argument(metavar="SLIDE...", help="Slides, each into a folder of its own.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", file_okay=False, writable=True, help="Folder of the results."),
    ],
    models: Annotated[
        list[Path] | None,
        typer.Option("--models", "-m", metavar="DIR|FILE", help=".onnx, .engine, .plan or .pt; repeatable."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="Names models, windows and classes.")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="Side of the windows; else the config's, or the input's.")
    ] = None,
    overlap: Annotated[str, typer.Option(help="Of windows: a share as 0.25, or pixels as 128.")] = "0.25",
    section: Annotated[str, typer.Option(metavar="N|all", help="One section from 0, or all; else the slide.")] = "",
    tissue: Annotated[bool, typer.Option("--tissue/--no-tissue", help="Leave out windows without tissue.")] = True,
    mpp: Annotated[
        float | None, typer.Option(metavar="UM", help="Micrometres a pixel that the models are meant for.")
    ] = None,
    pyramid: Annotated[
        bool, typer.Option("--pyramid", help="Read large windows from a smaller level: faster, other pixels.")
    ] = False,
    confidence: Annotated[float | None, typer.Option(min=0, max=1, help="Drop detections below it.")] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Most boxes of one window; else the config's, or 300.")
    ] = None,
    merge: Annotated[str, typer.Option(help="drop-cut, owner, nms, nmm, wbf, union or legacy.")] = "drop-cut",
    formats: Annotated[
        str, typer.Option("--format", help="Of geojson, geojson.gz, json, parquet, csv, coco, heatmap.")
    ] = "geojson,parquet",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what DIR holds.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what DIR holds of these slides.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    fallback: Annotated[
        bool, typer.Option("--fallback/--no-fallback", help="May another file answer where an engine does not work?")
    ] = True,
    batch: Annotated[int | None, typer.Option(min=1, help="Most windows in one call; else the model's.")] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of runtimes on the CPU; 0 takes all cores. With --cluster: a worker on every N cores; 0 on all.",
        ),
    ] = 0,
    cpu_precision: Annotated[
        str, typer.Option(help="Of ONNX models on a CPU: fp32, or bf16 by OpenVINO: faster, other boxes.")
    ] = "fp32",
    readers: Annotated[int, typer.Option(min=0, help="How many read at once; 0 for one a core.")] = 0,
    reading: Annotated[
        str, typer.Option(help="By threads, or by processes, which keep a GPU busy; auto chooses.")
    ] = "auto",
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS|local", help="Spread the work over a Ray cluster.")
    ] = None,
    timing: Annotated[bool, typer.Option("--timing", help="Print where the time went.")] = False,
    strip_windows: Annotated[
        int | None, typer.Option(min=1, hidden=True, help="Least windows that are kept as one file.")
    ] = None,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> int:
    """Find objects on whole slides, exact at the seams of windows, resumable.

    Example: `scale detect slides/*.svs --models models/ -o out/ --overlap 128 --format geojson,parquet`
    """
    from scale.cli.progress import TerminalListener
    from scale.pipeline.detect import detect
    from scale.pipeline.options import DetectOptions
    from scale.pipeline.plan import PlanOptions
    from scale.pipeline.run_options import RunOptions

    options = DetectOptions(
        plan=PlanOptions(overlap=parse_overlap(overlap), mpp=mpp, pyramid=pyramid, strip_windows=strip_windows),
        section=_section(section),
        tissue=tissue,
        method=merge,  # type: ignore[arg-type]
        formats=_formats(formats),
        resume=resume,
        fresh=fresh,
        run=RunOptions(readers=readers, reading=reading),  # type: ignore[arg-type]
    )
    specs = models_of(
        models or [], config, window_px=window, confidence=confidence, batch=batch, max_detections=max_detections
    )
    with progress(quiet=quiet) as bar:
        report = detect(
            slides,
            specs,
            out,
            options=options,
            device=device,
            threads=threads,
            fallback=fallback,
            cpu_precision=cpu_precision,  # type: ignore[arg-type]
            listener=TerminalListener(bar, slides=len(slides), quiet=quiet),
            cluster=cluster,
        )
    if json:
        print_json(report.to_json())
    else:
        # Of several slides the listener has told at once what failed.
        _print(report, errors=quiet or len(slides) == 1)
        if timing:
            for slide in report.slides:
                if slide.timing is not None:
                    _print_timing(slide.slide.name, slide.timing)
    return _exit_code(report)


def _formats(text: str) -> tuple[str, ...]:
    """Formats as they were typed.

    >>> _formats("geojson, csv,csv")
    ('geojson', 'csv')
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise InputError("got --format without a format, expected one or more, as geojson,parquet")
    return names


def _section(text: str) -> int | Literal["all"] | None:
    """A section from ``0`` or ``all``.

    >>> _section("2"), _section("all"), _section("")
    (2, 'all', None)
    """
    if text in ("", "all"):
        return "all" if text else None
    if not text.isdigit():
        raise InputError(f"got section {text!r}, expected a number from 0, or all")
    return int(text)


def _exit_code(report: CohortReport) -> int:
    if report.good:
        return 0
    return EXIT_INPUT if all(map(_refused, report.slides)) else EXIT_GATE


def _refused(slide: SlideReport) -> bool:
    """Whether its folder holds a run that was asked for something else: no --resume gets past that."""
    from scale.pipeline.shards import HeldRunError

    return isinstance(slide.cause, HeldRunError)


def _print(report: CohortReport, *, errors: bool) -> None:
    table = Table("slide", "result", "windows", "detections", "time", "folder", box=None, pad_edge=False)
    for index in (2, 3, 4):
        table.columns[index].justify = "right"
    for slide in report.slides:
        table.add_row(*_row(slide))
    console.print(table)
    for slide in report.slides:
        for line in _lines(slide, errors=errors):
            console.print(f"{slide.slide.name}: {line}", markup=False, soft_wrap=True)
    done = sum(slide.good for slide in report.slides)
    if done < len(report.slides):
        refused = all(slide.good or _refused(slide) for slide in report.slides)
        more = "" if refused else "; go on with --resume"
        console.print(f"{done} of {len(report.slides)} slides are done{more}", soft_wrap=True)
    if any(slide.good and "parquet" in slide.files for slide in report.slides):
        console.print(f"Look at it: scale view {report.out}", markup=False, soft_wrap=True)


def _row(slide: SlideReport) -> tuple[str, ...]:
    return (
        escape(slide.slide.name),
        f"[{_COLOURS.get(slide.status, 'red')}]{slide.status}[/]",
        f"{slide.windows:,}",
        f"{slide.detections:,}",
        duration(slide.timing.wall_s) if slide.timing else "",
        escape(str(slide.folder or "")),
    )


def _lines(slide: SlideReport, *, errors: bool) -> list[str]:
    """What the table has no room for."""
    from scale.pipeline.finish import full_text

    lines = [f"failed: {slide.error}"] if slide.error and errors else []
    if slide.counts:
        lines.append(_counts_line(slide.counts))
    lines += [f"full: {full_text(name, count, '--max-detections')}" for name, count in slide.full_windows.items()]
    lines += [
        f"missing: window at ({failure.x0}, {failure.y0}), {failure.stage}: {failure.reason}"
        for failure in slide.failures[:_MOST_FAILURES]
    ]
    more = len(slide.failures) - _MOST_FAILURES
    return [*lines, f"missing: {more:,} windows more, see run.json"] if more > 0 else lines


def _counts_line(counts: Mapping[str, int]) -> str:
    """The classes that were found, most frequent first; the rest in one number.

    >>> _counts_line({"nucleus": 1200, "crypt": 0, "gland": 3})
    '1,200 nucleus, 3 gland, none of 1 other class'
    """
    found = sorted(((count, name) for name, count in counts.items() if count), key=lambda one: (-one[0], one[1]))
    words = [f"{count:,} {name}" for count, name in found[:_MOST_CLASSES]]
    rest = sum(count for count, _ in found[_MOST_CLASSES:])
    if rest:
        words.append(f"{rest:,} of {len(found) - _MOST_CLASSES} more classes")
    none = len(counts) - len(found)
    if none and not found:
        return "nothing found"
    return ", ".join([*words, f"none of {none} other class{'es' if none > 1 else ''}"] if none else words)


def _print_timing(name: str, timing: Timing) -> None:
    table = Table(f"stage of {escape(name)}", "seconds", "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for stage, seconds, what in timing.lines():
        table.add_row(escape(stage), f"{seconds:.2f}", escape(what))
    table.add_row("wall", f"{timing.wall_s:.2f}", f"no model had work for {timing.waited_share:.0%} of it")
    console.print()
    console.print(table)
