"""Turn a results file into a page, a Markdown text or a CSV table."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from redline.core.errors import InputError
from redline.findings.join import join_parts
from redline.loadtesting.results import FILE_NAME, read_loadtest
from redline.loadtesting.summary import Summary
from redline.loadtesting.summary import summarize as load_summary
from redline.study.derive import summarize
from redline.study.journal import RESULTS, read_records
from redline.study.rows import Study

WRITERS = {
    ".html": "redline.reporting.html:write_html",
    ".md": "redline.reporting.markdown:write_markdown",
    ".csv": "redline.reporting.csv:write_csv",
}
LOADTEST_WRITERS = {
    ".html": "redline.reporting.loadtest_html:write_loadtest_html",
    ".md": "redline.reporting.loadtest_markdown:write_loadtest_markdown",
}


def report(run: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Study | Summary:
    """Read the results of a run and, with ``out``, write them for people.

    Args:
        run: What ``redline tune``, ``redline bench`` or ``redline loadtest`` wrote; a run that was interrupted is read
            as far as it got. Of a tune its folder or the ``results.jsonl`` in it, of a load test its ``loadtest.json``
            or the folder with it. Several files are the parts of one grid: other points of it, measured under the same
            conditions.
        out: A file whose suffix chooses the form: ``.html`` (one self-contained page), ``.md`` or ``.csv``
            (not of a load test).

    Returns:
        What the file says: the rows of the table, the conditions, the conclusion; a ``Summary`` of a load test.

    Raises:
        InputError: ``out`` has another suffix, or is the results file itself; several files are no parts of one grid.
        ArtifactError: ``run`` is missing or is not a results file.
        MissingDependencyError: the HTML page needs ``vl-convert``, which is not installed.
    """
    files = [Path(run)] if isinstance(run, (str, Path)) else [Path(one) for one in run]
    files = [file / RESULTS if (file / RESULTS).is_file() else file for file in files]
    out = None if out is None else Path(out)
    loadtest = len(files) == 1 and (files[0].suffix.lower() == ".json" or (files[0] / FILE_NAME).is_file())
    forms = LOADTEST_WRITERS if loadtest else WRITERS
    if out is not None and out.suffix.lower() not in forms:
        raise InputError(f"got {out.name}, expected a name that ends in {', '.join(forms)}")
    if out is not None and out.resolve() in [file.resolve() for file in files]:
        raise InputError(f"got {out} as input and output, expected another output file")
    if loadtest:
        summary = load_summary(read_loadtest(files[0]))
        if out is not None:
            write(summary, out)
        return summary
    parts = {file: read_records(file) for file in files}
    study = summarize(next(iter(parts.values())) if len(parts) == 1 else join_parts(parts))
    if out is not None:
        write(study, out)
    return study


def write(found: Study | Summary, out: Path) -> None:
    """Write it in the form that the name's suffix says.

    Raises:
        MissingDependencyError: what draws a page is not installed.
    """
    writers = WRITERS if isinstance(found, Study) else LOADTEST_WRITERS
    module, name = writers[out.suffix.lower()].split(":")
    getattr(importlib.import_module(module), name)(found, out)
