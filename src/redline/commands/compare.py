"""Compare: hold two runs of a grid against each other."""

from __future__ import annotations

from pathlib import Path

from redline.grid.compare import Comparison, compare_grids
from redline.grid.rows import read_grid


def compare(before: str | Path, after: str | Path) -> Comparison:
    """Hold the cells of one run against the same cells of another, cell by cell.

    Args:
        before: Results file of ``redline bench``.
        after: The other, from another machine, other versions or another commit.

    Raises:
        ArtifactError: a file is missing or is no results file.
        InputError: the two cannot be compared; says why.
    """
    return compare_grids(read_grid(Path(before)), read_grid(Path(after)))
