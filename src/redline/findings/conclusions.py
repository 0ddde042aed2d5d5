"""Everything that follows from a study: sentences, exponents, recommendations, oddities, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redline.findings.anomalies import Anomaly, find_anomalies
from redline.findings.claims import claim_of, interval_text
from redline.findings.effects import effects
from redline.findings.findings import Finding, winners
from redline.findings.recommend import Recommendation, recommend
from redline.findings.scaling import Fit, fit_rows
from redline.findings.wording import Scope, megabytes, names, unique
from redline.study.derive import MEMORY_BAND
from redline.study.rows import UNFINISHED, Row, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is said of a study beside its rows."""

    sentences: tuple[Finding, ...] = ()
    fits: tuple[Fit, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    warnings: tuple[str, ...] = ()


def found_in(study: Study) -> Findings:
    """Say what the rows of a study say; where nothing was measured, say that."""
    warnings = tuple(unique(_warnings(study)))  # several loaders share a place
    timed = [row for row in study.rows if row.time_s is not None]
    if not timed:
        nothing = Finding(topic="caution", text="Nothing was measured, so nothing can be concluded.")
        return Findings(sentences=(nothing,), warnings=warnings)
    compared = [row for row in timed if not row.control]
    scope, fits = Scope.of(timed), fit_rows(compared)
    others = [row for row in study.rows if not row.control]
    return Findings(
        sentences=(*winners(compared, scope), *effects(study.run, others, fits, scope)),
        fits=fits,
        recommendations=recommend(compared),
        anomalies=find_anomalies(study.rows),
        warnings=warnings,
    )


def _warnings(study: Study) -> Iterator[str]:
    run = study.run
    told = [run.data.warning, *(found.warning for found in study.dependence.values())]
    noise = run.machine.environment.noise
    told += [noise.warning if noise else None]
    yield from unique(text for text in told if text)
    finished = sum(row.reason != UNFINISHED for row in study.rows if row.variant in run.variants)
    if finished < run.cells:
        lacking = f"{run.cells - finished} of {run.cells} cells have no result"
        yield f"the run ended early: {lacking}; resume it to measure them"
    yield from _about_controls(study.rows)
    yield from _about_memory(study.rows)
    yield from _about_clock(study.rows)


def _about_controls(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if not row.control or row.ratio is None:
            continue
        claim = claim_of(row)
        if claim is None:
            continue
        place = f"at batch {row.batch} on {row.device}"
        held = interval_text(row.ratio.low, row.ratio.high)
        if claim.reasons:
            yield f"too disturbed {place}: {'; '.join(claim.reasons)}"
        elif claim.verdict in ("faster", "slower"):
            yield (
                f"the control (the baseline entered a second time) came out {claim.verdict} {place} ({held}): "
                "differences of that size mean nothing in this run"
            )


def _about_memory(rows: Sequence[Row]) -> Iterator[str]:
    unsound = [row for row in rows if row.control and row.memory_sound is False]
    for row in unsound:
        twin = next(
            (r for r in rows if r.is_baseline and (r.batch, r.size, r.device) == (row.batch, row.size, row.device)), row
        )
        yield (
            f"memory is not sound at batch {row.batch} on {row.device}: the baseline needed "
            f"{megabytes(twin.host_bytes or 0)} and its copy {megabytes(row.host_bytes or 0)}, more than "
            f"{100 * MEMORY_BAND:.0f} % apart"
        )


def _about_clock(rows: Sequence[Row]) -> Iterator[str]:
    on_host = [row for row in rows if row.device == "cuda" and row.time_s is not None and row.clock == "host"]
    if on_host:
        told = names(unique(row.variant for row in on_host))
        yield (
            f"no CUDA events were recorded in {len(on_host)} cells ({told}): their time is host to host, "
            "and they are not compared with those of the device's clock"
        )
