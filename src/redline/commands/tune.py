"""Tune: from a model to every variant, verified and measured, and the one to deploy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from redline.commands.report import write
from redline.core.errors import MissingDependencyError
from redline.deployment.best import check_best, write_best
from redline.findings.conclusion import conclude
from redline.findings.recommend import finalists
from redline.study.config import StudyConfig
from redline.study.derive import summarize
from redline.study.describe import is_onnx
from redline.study.engine import Listener, StudyRun
from redline.study.engine import dry_run as dry_run_of_study
from redline.study.hold import held, tune_place
from redline.study.journal import Journal
from redline.study.plan import WITHOUT_TORCH, CellGroup
from redline.study.records import Conclusion, VariantFound
from redline.study.rows import Study
from redline.variants import choose_variants

#: What a tune asks for where nothing else is said.
TUNE = StudyConfig(models=("",), loaders=("samples",), confirm=6)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What a tune found.

    Attributes:
        study: Every row with its conditions.
        best: The folder of the recommended variant, None where none passed the gate.
        report: The HTML page, None where the package that draws it is missing.
    """

    study: Study
    best: Path | None
    report: Path | None


def tune(
    model: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    labels: str | Path | None = None,
    config: StudyConfig = TUNE,
    resume: bool = False,
    listener: Listener | None = None,
) -> TuneResult:
    """Make every variant of a model, verify and measure each, and recommend one.

    ``out`` gets ``results.jsonl`` (every raw sample), ``report.html``, ``report.md``, ``results.csv``, ``artifacts/``,
    ``engines/`` and ``best/`` with a manifest. What is finished is on the disk at once: a run that is killed goes on
    with ``resume``.

    Args:
        model: As on the command line: a built-in name, ``file.py:factory``, ``.pt2``, TorchScript or ``.onnx``.
        out: The folder to write.
        data: A folder of images, or arrays in a ``.npz``; half calibrates, the rest verifies.
        labels: A CSV file with the columns file and label.
        config: Everything else; :data:`TUNE` with other fields.
        resume: Go on with an interrupted run in the same folder.
        listener: Called with (what is being done, expected seconds done, expected seconds in all).

    Raises:
        BusyError: another tune holds the folder.
        InputError: the model, the data or the folder cannot be used; says what to do.
    """
    asked = tune_config(model, config)
    asked = replace(asked, data=str(data) if data else asked.data, labels=str(labels) if labels else asked.labels)
    place = tune_place(Path(out))
    check_best(place.folder, begun=place.begun)
    with held(place, resume=resume), Journal(place.results) as journal:
        run = StudyRun(asked, place, journal, "tune", choose=finalists, listener=listener)
        run.run()
        study = summarize(journal.records)
        if study.conclusion is None:
            journal.append(conclude(study, batch=asked.batches[0], objective=asked.objective))
            study = summarize(journal.records)
        run.say("write the report")
        best = write_best(study, journal.of(VariantFound), place.folder)
        return TuneResult(study=study, best=best, report=write_reports(study, place.folder))


def tune_config(model: str, config: StudyConfig = TUNE) -> StudyConfig:
    """The study that a tune of a model is: one model, all variants of its device that it can have."""
    device = config.devices[0]
    variants = choose_variants(config.variants, device)
    if is_onnx(model):
        variants = tuple(variant for variant in variants if variant.file is not None)
        names = tuple(variant.name for variant in variants) or (WITHOUT_TORCH,)
    else:
        names = tuple(variant.name for variant in variants)
    return replace(config, models=(model,), devices=(device,), variants=names)


def dry_run(model: str, config: StudyConfig = TUNE) -> tuple[tuple[CellGroup, ...], float]:
    """The groups of a tune and about how many seconds it takes; nothing is loaded or measured."""
    return dry_run_of_study(tune_config(model, config))


def write_reports(study: Study, folder: Path) -> Path | None:
    """Write ``report.html``, ``report.md`` and ``results.csv``; None where what draws the page is not installed."""
    page: Path | None = folder / "report.html"
    for out in (folder / "report.md", folder / "results.csv", folder / "report.html"):
        try:
            write(study, out)
        except MissingDependencyError:
            page = None
    return page


__all__ = ["TUNE", "Conclusion", "TuneResult", "dry_run", "tune", "tune_config", "write_reports"]
