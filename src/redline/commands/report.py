"""Turn a results file into a page, a Markdown text or a CSV table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from redline.core.errors import ArtifactError, InputError
from redline.grid.join import join_grids
from redline.grid.rows import GridStudy, is_grid, summarize_grid
from redline.loadtesting.results import FILE_NAME, read_loadtest
from redline.loadtesting.summary import Summary
from redline.loadtesting.summary import summarize as load_summary
from redline.measurement.results import Record, read_records
from redline.measurement.summary import Study, summarize

WRITERS = {
    ".html": "redline.reporting.html:write_html",
    ".md": "redline.reporting.markdown:write_markdown",
    ".csv": "redline.reporting.csv:write_csv",
}
GRID_WRITERS = {
    ".html": "redline.reporting.grid_html:write_grid_html",
    ".md": "redline.reporting.grid_markdown:write_grid_markdown",
    ".csv": "redline.reporting.grid_csv:write_grid_csv",
}
LOADTEST_WRITERS = {
    ".html": "redline.reporting.loadtest_html:write_loadtest_html",
    ".md": "redline.reporting.loadtest_markdown:write_loadtest_markdown",
}


def report(run: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Study | GridStudy | Summary:
    """Read the results of a run and, with ``out``, write them for people.

    Args:
        run: What ``redline tune``, ``redline bench`` or ``redline loadtest`` wrote; a run that was interrupted is read
            as far as it got. Of a load test its ``loadtest.json``, or the folder with it.
            Several files are the parts of one grid: other points of it, measured under the same conditions.
        out: A file whose suffix chooses the form: ``.html`` (one self-contained page), ``.md`` or ``.csv``
            (not of a load test).

    Returns:
        What the file says, summarized: the rows of the table, the conditions, the conclusions. A ``GridStudy`` of a
        benchmark, a ``Study`` of a tune, a ``Summary`` of a load test.

    Raises:
        InputError: ``out`` has another suffix, or is the results file itself; several files are no parts of one grid.
        ArtifactError: ``run`` is missing or is not a results file.
        MissingDependencyError: the HTML page needs ``vl-convert``, which is not installed.
    """
    files = [Path(run)] if isinstance(run, (str, Path)) else [Path(one) for one in run]
    out = None if out is None else Path(out)
    loadtest = len(files) == 1 and (files[0].suffix.lower() == ".json" or (files[0] / FILE_NAME).is_file())
    forms = LOADTEST_WRITERS if loadtest else WRITERS
    if out is not None and out.suffix.lower() not in forms:
        raise InputError(f"got {out.name}, expected a name that ends in {', '.join(forms)}")
    if out is not None and out.resolve() in [file.resolve() for file in files]:
        raise InputError(f"got {out} as input and output, expected another output file")
    if loadtest:
        summary = load_summary(read_loadtest(files[0]))
        _write(LOADTEST_WRITERS, summary, out)
        return summary
    parts = {file: read_records(file) for file in files}
    told = ", ".join(map(str, files))
    study: Study | GridStudy
    try:
        records = _joined(parts)
        study = summarize_grid(records) if is_grid(records) else summarize(records)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{told} has a record that cannot be read ({error!r}); make the run again") from error
    _write(GRID_WRITERS if isinstance(study, GridStudy) else WRITERS, study, out)
    return study


def _write(writers: Mapping[str, str], study: Study | GridStudy | Summary, out: Path | None) -> None:
    if out is not None:
        module, name = writers[out.suffix.lower()].split(":")
        getattr(importlib.import_module(module), name)(study, out)


def _joined(parts: Mapping[Path, Sequence[Record]]) -> Sequence[Record]:
    if len(parts) == 1:
        return next(iter(parts.values()))
    for file, records in parts.items():
        if not is_grid(records):
            raise InputError(f"{file} is no grid; expected one file, or the parts of one grid")
    return join_grids(parts)
