"""Compare: hold two runs against each other."""

from __future__ import annotations

from pathlib import Path

from redline.findings.compare import Comparison, compare_studies
from redline.study.journal import read_study


def compare(before: str | Path, after: str | Path) -> Comparison:
    """Hold the cells of one run against the same cells of another, cell by cell.

    Args:
        before: Results of ``redline bench`` or ``tune``: a file, or a tune's folder.
        after: The other, from another machine, other versions or another commit.

    Raises:
        ArtifactError: a file is missing or is no results file.
        InputError: the two cannot be compared; says why.
    """
    return compare_studies(read_study(Path(before)), read_study(Path(after)))
