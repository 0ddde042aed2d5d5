"""Rows in order, however many: sorted runs on disk, merged as they are read back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from redline.core.tensor import Array

#: By the upper edge, then the left one; the rest makes the order independent of the one in which rows came.
_KEYS = ("y0", "x0", "y1", "x1", "class", "score")
_RUN_BYTES = 64 << 20
_BATCH_ROWS = 1 << 14


class SortedRows:
    """Takes tables in any order and gives their rows sorted; it holds one run and one batch of every other.

    Args:
        folder: Where runs lie, in files without a name that vanish with the process.
        run_bytes: How much is sorted in memory.
        batch_rows: How many rows of a run are read at a time.
    """

    def __init__(self, folder: Path, *, run_bytes: int = _RUN_BYTES, batch_rows: int = _BATCH_ROWS) -> None:
        self._folder = folder
        self._run_bytes, self._batch_rows = run_bytes, batch_rows
        self._waiting: list[Any] = []
        self._waiting_bytes = 0
        self._runs: list[IO[bytes]] = []

    def add(self, rows: Any) -> None:
        """Take some rows."""
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= self._run_bytes:
            self._spill()

    def drain(self) -> Iterator[Any]:
        """Every row in order, in tables of bounded size; afterwards nothing is left."""
        if not self._runs:
            if self._waiting:
                yield in_order(pa.concat_tables(self._waiting))
        else:
            self._spill()
            yield from _merged([_batches(run) for run in self._runs])
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        for run in self._runs:
            run.close()
        self._runs, self._waiting, self._waiting_bytes = [], [], 0

    def _spill(self) -> None:
        if not self._waiting:
            return
        rows = in_order(pa.concat_tables(self._waiting))
        self._waiting, self._waiting_bytes = [], 0
        run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed by close)
        self._runs.append(run)
        with pa.ipc.new_stream(run, rows.schema) as stream:
            stream.write_table(rows, max_chunksize=self._batch_rows)
        run.seek(0)


def in_order(rows: Any) -> Any:
    """A table sorted by :data:`_KEYS`."""
    keys = [rows[name].to_numpy() for name in reversed(_KEYS)]
    return rows.take(pa.array(np.lexsort(keys)))


def _batches(run: IO[bytes]) -> Iterator[Any]:
    with pa.ipc.open_stream(run) as stream:
        for batch in stream:
            yield pa.Table.from_batches([batch])


def _merged(runs: list[Iterator[Any]]) -> Iterator[Any]:
    """Rows above the line down to which every run is known can have no others before them."""
    known: dict[int, float] = dict.fromkeys(range(len(runs)), -np.inf)
    held: Any = None
    while known:
        line = min(known.values())
        for index in [index for index, last in known.items() if last == line]:
            batch = next(runs[index], None)
            if batch is None:
                del known[index]
                continue
            held = batch if held is None else pa.concat_tables([held, batch])
            known[index] = batch["y0"][-1].as_py()
        if held is None or not len(held):
            continue
        held = in_order(held)
        count = _count_above(held["y0"].to_numpy(), min(known.values(), default=np.inf))
        if count:
            yield held.slice(0, count)
            held = held.slice(count)


def _count_above(tops: Array, line: float) -> int:
    return int(np.searchsorted(tops, line, side="left"))
