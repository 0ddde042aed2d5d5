"""A grid as one HTML page that needs nothing but a browser: no network, no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.core.files import write_whole
from redline.grid.rows import Fit, GridRow, GridStudy
from redline.reporting.grid_answers import (
    anomaly_text,
    answer,
    choices,
    crossed,
    label,
    sentence,
    topics,
    usual_picks,
    usual_size,
)
from redline.reporting.grid_conditions import baseline_title, device_names, grid_conditions, methods
from redline.reporting.grid_panels import (
    HeatMap,
    LoaderBars,
    PartBar,
    heat_map,
    limit_bars,
    loader_bars,
    memory_bars,
    time_bars,
)
from redline.reporting.grid_plots import Look, batch_spec, lines_in_words, looks, size_spec
from redline.reporting.grid_table import GridCells, grid_lines, tally, why_not
from redline.reporting.page import Bar, Drawn, draw, render

_ODD_AT_ONCE = 6
"""Anomalies that are shown before the rest is folded away."""
_MOST_FACTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSize:
    """What is shown of one device at one image size."""

    size: str
    time: Drawn | None
    throughput: Drawn | None
    fits: tuple[Fit, ...]
    points: tuple[AtPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtPoint:
    """What is shown of one device at one image size and batch; ``missing`` are titles and why they have no numbers."""

    batch: int
    times: tuple[Bar, ...]
    device_memory: tuple[PartBar, ...]
    host_memory: tuple[PartBar, ...]
    limits: tuple[Bar, ...]
    loaders: tuple[LoaderBars, ...]
    missing: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtBatch:
    """What is shown of one device at one batch."""

    batch: int
    plot: Drawn
    fits: tuple[Fit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """What is shown of one device."""

    device: str
    name: str
    loader: str
    baseline: str
    key: tuple[Look, ...]
    heat: HeatMap | None
    sizes: tuple[AtSize, ...]
    batches: tuple[AtBatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfModel:
    """What is shown of one model; each of ``tables`` is an image size, its lines and how they came out."""

    model: str
    devices: tuple[OnDevice, ...]
    sizes: tuple[str, ...]
    batches: tuple[int, ...]
    chosen: tuple[str, str, str]
    tables: tuple[tuple[str, tuple[GridCells, ...], str], ...]


def write_grid_html(study: GridStudy, out: Path) -> None:
    """Write the page.

    Raises:
        MissingDependencyError: ``vl-convert`` is not installed.
    """
    write_whole(out, grid_page(study))


def grid_page(study: GridStudy) -> str:
    """The text that :func:`write_grid_html` writes."""
    specs: dict[str, Any] = {}
    models = tuple(_of_model(study, model, number, specs) for number, model in enumerate(study.models))
    context = {
        "study": study,
        "run": study.run,
        "name": grid_name(study),
        "devices": device_names(study),
        "tally": tally(study.rows),
        "answer": sentence(answer(study)),
        "facts": tuple(pick.fact for pick in usual_picks(study)[:_MOST_FACTS]),
        "choices": choices(study),
        "topics": topics(study),
        "models": models,
        "anomaly_text": anomaly_text,
        "crossed": crossed,
        "label": label,
        "odd_at_once": _ODD_AT_ONCE,
        "columns": _columns(study.rows),
        "conditions": grid_conditions(study),
        "methods": methods(study),
        "specs": specs,
    }
    return render("grid.html.j2", context, styles=["report.css", "grid.css"], scripts=["report.js", "grid.js"])


def grid_name(study: GridStudy) -> str:
    """What the grid is about."""
    return str(study.run.get("name") or ", ".join(study.models) or "a grid")


def _columns(rows: Sequence[GridRow]) -> dict[str, bool]:
    """Which columns have anything to show."""
    return {
        "loader": any(row.pipeline_s is not None for row in rows),
        "agreement": any(row.top1_agreement is not None for row in rows),
    }


def _of_model(study: GridStudy, model: str, number: int, specs: dict[str, Any]) -> OfModel:
    rows = study.at(model=model)
    devices = tuple(dict.fromkeys(row.device for row in rows))
    sizes = tuple(dict.fromkeys(row.size for row in rows))
    batches = tuple(sorted({row.batch for row in rows}))
    middle = batches[len(batches) // 2]
    return OfModel(
        model=model,
        devices=tuple(_on_device(study, model, device, f"{number}-{device}", specs) for device in devices),
        sizes=sizes,
        batches=batches,
        chosen=("cuda" if "cuda" in devices else devices[0], usual_size(rows), str(middle)),
        tables=tuple((size, grid_lines(study, model, size), tally(study.at(model=model, size=size))) for size in sizes),
    )


def _on_device(study: GridStudy, model: str, device: str, prefix: str, specs: dict[str, Any]) -> OnDevice:
    every = study.at(model=model, device=device)
    # The model's own time hardly depends on the loader, so the plots show one of them and the tables both.
    loader = "dummy" if any(row.loader == "dummy" for row in every) else every[0].loader
    rows = tuple(row for row in every if row.loader == loader)
    drawn = looks(rows)
    fits = [fit for fit in study.conclusions.fits if (fit.model, fit.device, fit.loader) == (model, device, loader)]
    sizes = tuple(dict.fromkeys(row.size for row in every))
    at_sizes = []
    for size in sizes:
        here = tuple(row for row in rows if row.size == size)
        words = lines_in_words(here, over="batch", at=lambda row: float(row.batch))
        plots = []
        for show in ("time", "throughput"):
            spec = batch_spec(here, drawn, show="time" if show == "time" else "throughput")
            plots.append(draw(specs, f"{prefix}-{show}-{size}", spec, f"{show} against batch: {words}"))
        at_sizes.append(
            AtSize(
                size=size,
                time=plots[0],
                throughput=plots[1],
                fits=tuple(fit for fit in fits if fit.over == "batch" and fit.fixed == size),
                points=_points(study, [row for row in every if row.size == size], loader),
            )
        )
    return OnDevice(
        device=device,
        name=device_names(study).get(device, device),
        loader=loader,
        baseline=baseline_title(study, device),
        key=tuple(drawn.values()),
        heat=heat_map(study, model=model, device=device, loader=loader),
        sizes=tuple(at_sizes),
        batches=_at_batches(rows, drawn, fits, prefix, specs),
    )


def _at_batches(
    rows: Sequence[GridRow], drawn: dict[str, Look], fits: Sequence[Fit], prefix: str, specs: dict[str, Any]
) -> tuple[AtBatch, ...]:
    found = []
    for batch in sorted({row.batch for row in rows}):
        here = tuple(row for row in rows if row.batch == batch)
        words = lines_in_words(here, over="size", at=lambda row: float(row.height * row.width))
        plot = draw(specs, f"{prefix}-pixels-{batch}", size_spec(here, drawn), f"time against image size: {words}")
        if plot is not None:
            own = tuple(fit for fit in fits if fit.over == "pixels" and fit.fixed == f"batch {batch}")
            found.append(AtBatch(batch=batch, plot=plot, fits=own))
    return tuple(found)


def _points(study: GridStudy, rows: Sequence[GridRow], loader: str) -> tuple[AtPoint, ...]:
    found = []
    for batch in sorted({row.batch for row in rows}):
        here = [row for row in rows if row.batch == batch]
        shown = [row for row in here if row.loader == loader]
        found.append(
            AtPoint(
                batch=batch,
                times=time_bars(shown),
                device_memory=memory_bars(shown, of=lambda row: row.device_bytes, with_weights=True),
                host_memory=memory_bars(shown, of=lambda row: row.host_bytes, with_weights=shown[0].device == "cpu"),
                limits=limit_bars(study, shown),
                loaders=loader_bars(here),
                missing=tuple((row.title, sentence(why_not(row))) for row in shown if row.outcome != "measured"),
            )
        )
    return tuple(found)
