"""Bench: measure a grid of models, backends, precisions, devices, loaders, batches and image sizes."""

from __future__ import annotations

from pathlib import Path

from redline.core.errors import InputError
from redline.findings.recommend import finalists
from redline.study.config import StudyConfig
from redline.study.engine import Listener, StudyRun, dry_run
from redline.study.hold import bench_place, held
from redline.study.journal import Journal, read_study
from redline.study.rows import Study

__all__ = ["bench", "dry_run"]


def bench(
    config: StudyConfig,
    out: str | Path,
    *,
    resume: bool = False,
    cluster: str | None = None,
    listener: Listener | None = None,
) -> Study:
    """Measure every cell of a grid and keep every raw sample.

    ``out`` is a results file to which each window is appended and flushed as it is measured, so that a run which is
    killed at any moment goes on with ``resume`` where it stopped. Model files and engines lie beside it in
    ``<name>.files``. A cell that cannot run is a row with the reason.

    Args:
        config: The grid.
        out: The results file, ``.jsonl``.
        resume: Go on with an interrupted run of the same grid on the same machine.
        cluster: Spread the groups over the machines of a Ray cluster: its address, or ``local`` for this machine as a
            cluster of its own.
        listener: Called with (what is being done, expected seconds done, expected seconds in all).

    Raises:
        InputError: the file holds another run, or no model can be loaded; says what to do.
        BusyError: another process writes the file.
    """
    place = bench_place(Path(out))
    if place.results.suffix != ".jsonl":
        raise InputError(f"got {place.results.name}, expected a results file that ends in .jsonl")
    with held(place, resume=resume), Journal(place.results) as journal:
        StudyRun(config, place, journal, "bench", choose=finalists, listener=listener).run(cluster)
    return read_study(place.results)
