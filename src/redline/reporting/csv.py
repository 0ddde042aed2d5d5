"""The rows of a study as CSV, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from redline.core.files import write_whole
from redline.measurement.summary import Study
from redline.reporting.table import VALUES, rows_at, values_of


def write_csv(study: Study, out: Path) -> None:
    """Write one line per variant and batch size; units are in the column names, an empty cell was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, VALUES, lineterminator="\n")
    writer.writeheader()
    for batch in study.batches:
        writer.writerows(values_of(row) for row in rows_at(study, batch))
    write_whole(out, text.getvalue())
