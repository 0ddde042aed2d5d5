"""A grid as one HTML page that needs nothing but a browser: no network, no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from redline.core.files import write_whole
from redline.findings.claims import claim_of, interval_text, ratio_text, speed_text
from redline.findings.conclusions import Findings, found_in
from redline.findings.recommend import scarce_bytes
from redline.findings.scaling import Fit
from redline.reporting import formats
from redline.reporting.answers import (
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
from redline.reporting.conditions import baseline_title, device_names, methods, skipped_files, study_conditions
from redline.reporting.page import Bar, Drawn, Fact, Specs, draw, render
from redline.reporting.panels import (
    HeatMap,
    LoaderBars,
    PartBar,
    heat_map,
    limit_bars,
    loader_bars,
    memory_bars,
    time_bars,
)
from redline.reporting.plots import Look, batch_spec, lines_in_words, looks, size_spec
from redline.reporting.scatter import Cost, latency_spec, pareto_spec, quality_of
from redline.reporting.table import Cells, table_lines, tally, why_not
from redline.study.rows import Row, Study

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
    """What is shown of one device at one image size and batch.

    Attributes:
        missing: Titles of what has no numbers, and why.
        costs: Plots of answers against a cost, with the cost's name; of a tune alone.
        calls: Every call of every variant; of a tune alone.
    """

    batch: int
    costs: tuple[tuple[Drawn, str], ...]
    calls: Drawn | None
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
    tables: tuple[tuple[str, tuple[Cells, ...], str], ...]


def write_html(study: Study, out: Path) -> None:
    """Write the page.

    Raises:
        MissingDependencyError: ``vl-convert`` is not installed.
    """
    write_whole(out, page(study))


def page(study: Study) -> str:
    """The text that :func:`write_html` writes."""
    specs: Specs = {}
    found = found_in(study)
    parts = _Page(study, found, specs)
    best = next((row for row in study.rows if row.recommended), None)
    usual = () if study.run.purpose == "tune" else usual_picks(study, found)
    context = {
        "study": study,
        "found": found,
        "best": best,
        "claim": claim_of(best) if best else None,
        "claims": _CLAIMS,
        "versus": _versus(study, best),
        "losers": _losers(study),
        "skipped": skipped_files(study),
        "run": study.run,
        "name": name_of(study),
        "devices": device_names(study),
        "tally": tally(study.rows),
        "answer": sentence(answer(study, found)),
        "facts": _facts(study, best) or tuple(pick.fact for pick in usual[:_MOST_FACTS]),
        "choices": () if study.run.purpose == "tune" else choices(study, found),
        "topics": topics(study, found),
        "models": tuple(parts.of_model(model, number) for number, model in enumerate(study.models)),
        "anomaly_text": anomaly_text,
        "crossed": crossed,
        "label": label,
        "odd_at_once": _ODD_AT_ONCE,
        "columns": _columns(study.rows),
        "conditions": study_conditions(study),
        "methods": methods(study),
        "specs": specs,
    }
    return render("study.html.j2", context, styles=["report.css", "study.css"], scripts=["report.js", "study.js"])


def name_of(study: Study) -> str:
    """What the grid is about."""
    return study.run.name or ", ".join(study.models) or "a study"


def _columns(rows: Sequence[Row]) -> dict[str, bool]:
    """Which columns have anything to show."""
    return {
        "loader": any(row.pipeline_s is not None for row in rows),
        "agreement": any(row.top1_agreement is not None for row in rows),
        "accuracy": any(row.accuracy is not None for row in rows),
        "gate": any(row.passed is not None for row in rows),
    }


_CLAIMS = {"interval": interval_text, "ratio": ratio_text, "speed": speed_text}
_COSTS: tuple[tuple[Cost, str], ...] = (("latency", "latency"), ("memory", "memory"), ("size", "size"))


@dataclass(frozen=True, slots=True)
class _Page:
    """The parts of one page; ``specs`` gets its plots."""

    study: Study
    found: Findings
    specs: Specs

    def of_model(self, model: str, number: int) -> OfModel:
        """Everything of one model."""
        study = self.study
        rows = study.at(model=model)
        devices = tuple(dict.fromkeys(row.device for row in rows))
        sizes = tuple(dict.fromkeys(row.size for row in rows))
        batches = tuple(sorted({row.batch for row in rows}))
        best = next((row.batch for row in rows if row.recommended), batches[len(batches) // 2])
        return OfModel(
            model=model,
            devices=tuple(self._on_device(model, device, f"{number}-{device}") for device in devices),
            sizes=sizes,
            batches=batches,
            chosen=("cuda" if "cuda" in devices else devices[0], usual_size(rows), str(best)),
            tables=tuple(
                (size, table_lines(study, model, size), tally(study.at(model=model, size=size))) for size in sizes
            ),
        )

    def _on_device(self, model: str, device: str, prefix: str) -> OnDevice:
        study = self.study
        every = study.at(model=model, device=device)
        # The model's own time hardly depends on the loader, so the plots show one of them and the tables both.
        loader = "dummy" if any(row.loader == "dummy" for row in every) else every[0].loader
        rows = tuple(row for row in every if row.loader == loader)
        drawn = looks([row for row in rows if not row.control])
        fits = [fit for fit in self.found.fits if (fit.model, fit.device, fit.loader) == (model, device, loader)]
        at_sizes = []
        for size in dict.fromkeys(row.size for row in every):
            here = tuple(row for row in rows if row.size == size and not row.control)
            words = lines_in_words(here, over="batch", at=lambda row: float(row.batch))
            time, throughput = (
                draw(
                    self.specs,
                    f"{prefix}-{show}-{size}",
                    batch_spec(here, drawn, show="time" if show == "time" else "throughput"),
                    f"{show} against batch: {words}",
                )
                for show in ("time", "throughput")
            )
            at_sizes.append(
                AtSize(
                    size=size,
                    time=time,
                    throughput=throughput,
                    fits=tuple(fit for fit in fits if fit.over == "batch" and fit.fixed == size),
                    points=self._points([row for row in every if row.size == size], loader, f"{prefix}-{size}"),
                )
            )
        return OnDevice(
            device=device,
            name=device_names(study).get(device, device),
            loader=loader,
            baseline=baseline_title(study, device),
            key=tuple(drawn.values()),
            heat=heat_map(study, model=model, device=device, loader=loader) if self._is_grid else None,
            sizes=tuple(at_sizes),
            batches=self._at_batches([row for row in rows if not row.control], drawn, fits, prefix),
        )

    @property
    def _is_grid(self) -> bool:
        return self.study.run.purpose != "tune" or len(self.study.batches) > 2

    def _at_batches(
        self, rows: Sequence[Row], drawn: dict[str, Look], fits: Sequence[Fit], prefix: str
    ) -> tuple[AtBatch, ...]:
        found = []
        for batch in sorted({row.batch for row in rows}):
            here = tuple(row for row in rows if row.batch == batch)
            words = lines_in_words(here, over="size", at=lambda row: float(row.height * row.width))
            spec = size_spec(here, drawn)
            plot = draw(self.specs, f"{prefix}-pixels-{batch}", spec, f"time against image size: {words}")
            if plot is not None:
                own = tuple(fit for fit in fits if fit.over == "pixels" and fit.fixed == f"batch {batch}")
                found.append(AtBatch(batch=batch, plot=plot, fits=own))
        return tuple(found)

    def _points(self, rows: Sequence[Row], loader: str, prefix: str) -> tuple[AtPoint, ...]:
        found = []
        for batch in sorted({row.batch for row in rows}):
            here = [row for row in rows if row.batch == batch]
            shown = [row for row in here if row.loader == loader]
            own = [row for row in shown if not row.control]
            on_cpu = shown[0].device == "cpu"
            found.append(
                AtPoint(
                    batch=batch,
                    costs=self._costs(own, f"{prefix}-{batch}"),
                    calls=self._calls(shown, f"{prefix}-{batch}"),
                    times=time_bars(own),
                    device_memory=memory_bars(shown, of=lambda row: row.device_bytes, with_weights=True),
                    host_memory=memory_bars(shown, of=lambda row: row.host_bytes, with_weights=on_cpu),
                    limits=limit_bars(self.study, own),
                    loaders=loader_bars(own),
                    missing=tuple((row.title, sentence(why_not(row))) for row in shown if row.outcome != "measured"),
                )
            )
        return tuple(found)

    def _costs(self, rows: Sequence[Row], prefix: str) -> tuple[tuple[Drawn, str], ...]:
        """Answers against latency, memory and size; where answers were compared with a gate in mind."""
        if self.study.run.purpose != "tune":
            return ()
        quality = quality_of(rows, self.study.run.settings)
        plots = [
            (
                draw(self.specs, f"{prefix}-{cost}", pareto_spec(rows, quality, cost=cost), f"answers against {name}"),
                name,
            )
            for cost, name in _COSTS
        ]
        return tuple((plot, name) for plot, name in plots if plot is not None)

    def _calls(self, rows: Sequence[Row], prefix: str) -> Drawn | None:
        if self.study.run.purpose != "tune":
            return None
        return draw(self.specs, f"{prefix}-calls", latency_spec(rows), "latency distribution of every variant")


def _losers(study: Study) -> tuple[tuple[str, str], ...]:
    titles = {row.variant: row.title for row in study.rows}
    losers = study.conclusion.losers if study.conclusion else ()
    return tuple((titles.get(loser.variant, loser.variant), loser.why) for loser in losers)


def _baseline_of(study: Study, best: Row) -> Row | None:
    point = {"batch": best.batch, "device": best.device, "size": best.size}
    return next((row for row in study.at(**point) if row.is_baseline and row is not best), None)


def _versus(study: Study, best: Row | None) -> tuple[Bar, ...]:
    """The baseline's bar and the recommended one's, on one scale."""
    base = _baseline_of(study, best) if best else None
    if best is None or base is None or not base.time_s or not best.time_s:
        return ()
    slowest = max(base.time_s, best.time_s)
    return tuple(
        Bar(
            title=row.title,
            percent=100 * (row.time_s or 0.0) / slowest,
            value=f"{formats.precise_ms(row, row.time_s)} ms",
            aside="",
            recommended=row is best,
        )
        for row in (base, best)
    )


def _facts(study: Study, best: Row | None) -> tuple[Fact, ...]:
    """What the recommended variant is, beside what the baseline was."""
    if best is None:
        return ()
    base = _baseline_of(study, best)

    def fact(label: str, unit: str, text: Callable[[Row], str]) -> Fact:
        aside = f"from {text(base)} {unit}" if base is not None else ""
        return Fact(label=label, value=text(best), unit=unit, aside=aside)

    facts = [fact("median latency", "ms", lambda row: formats.precise_ms(row, row.time_s))]
    if best.accuracy is not None:
        change = f"{formats.points(best.accuracy_drop)} against the original"
        value = formats.percent(best.accuracy).removesuffix(" %")
        facts.append(Fact(label="accuracy", value=value, unit="%", aside=change))
    if best.top1_agreement is not None:
        value = formats.percent(best.top1_agreement).removesuffix(" %")
        facts.append(
            Fact(label="same answer", value=value, unit="%", aside=f"on {formats.count(best.samples)} samples")
        )
    elif best.max_abs is not None:
        facts.append(Fact(label="largest error", value=formats.error(best.max_abs), unit="", aside="in any output"))
    facts.append(fact("size", "MB", lambda row: formats.megabytes(row.size_bytes)))
    memory = fact("peak memory", "MB", lambda row: formats.megabytes(scarce_bytes(row)))
    unsound = "not sound: the baseline's copy needs another amount"
    facts.append(replace(memory, aside=unsound) if best.memory_sound is False else memory)
    return tuple(facts)
