"""Batches of arrays in memory that processes share: nothing of them is sent from one to the other."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array

# As coarse as any runtime asks of the memory that it reads in place.
_ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies in the shared memory: bytes from its start, sizes, and NumPy's name of its type."""

    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Handle:
    """What another process needs to map the batches, of use while their owner is open."""

    path: str
    inode: int
    batches: tuple[Mapping[str, Place], ...]


class SharedBatches:
    """The owner's end: holds the memory until it is closed.

    The pages stay mapped here meanwhile, as the kernel counts a page that one process alone maps as that process's own.

    >>> with SharedBatches.create([{"x": np.arange(3)}]) as shared:
    ...     open_shared(shared.handle)[0]["x"].tolist()
    [0, 1, 2]
    """

    def __init__(self, file: _File, layout: tuple[Mapping[str, Place], ...]) -> None:
        """Use :meth:`create`."""
        self._file = file
        self._layout = layout
        self.batches = _views(file.map(), layout)

    @classmethod
    def create(cls, batches: Sequence[Mapping[str, Array]]) -> Self:
        """Copy batches of arrays by name into memory that others can map.

        Raises:
            InputError: an array of Python objects, which mean nothing to another process.
            OSError: there is no room.
        """
        shared = cls.like(batches)
        for views, batch in zip(shared.batches, batches, strict=True):
            for name, array in batch.items():
                np.copyto(views[name], array)
        return shared

    @classmethod
    def like(cls, batches: Sequence[Mapping[str, Array]]) -> Self:
        """Memory for such batches, filled with zeros.

        Raises:
            InputError: an array of Python objects, which mean nothing to another process.
            OSError: there is no room.
        """
        layout, size = _lay_out(batches)
        return cls(_File(size), layout)

    @property
    def handle(self) -> Handle:
        """What :func:`open_shared` needs."""
        return Handle(self._file.path, self._file.inode, self._layout)

    def close(self) -> None:
        """Let go of the memory; who has mapped it keeps it."""
        self.batches = []
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_shared(handle: Handle, *, write: bool = False) -> list[dict[str, Array]]:
    """Map the batches of a :class:`SharedBatches`, of this process or of another.

    Args:
        handle: Of the owner.
        write: What is written is seen by all. Otherwise a page is this process's own from the first write on, and
            nobody else sees what was written.

    Raises:
        OSError: the owner has closed them.
    """
    with open(handle.path, "r+b" if write else "rb") as file:  # noqa: PTH123 (Path would resolve a nameless link)
        if os.fstat(file.fileno()).st_ino != handle.inode:
            raise FileNotFoundError(errno.ENOENT, "the shared inputs are closed", handle.path)
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_COPY)
    return _views(memory, handle.batches)


class _File:
    """A file that others can map by its path: without a name where the system can do that."""

    def __init__(self, size: int) -> None:
        self._temporary: IO[bytes] | None = None
        if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
            self._number = os.memfd_create("redline-inputs")
            self.path = f"/proc/{os.getpid()}/fd/{self._number}"
            os.posix_fallocate(self._number, 0, size)  # unlike a write into the mapping, this fails with an error
        else:
            self._temporary = tempfile.NamedTemporaryFile(prefix="redline-inputs-")  # noqa: SIM115 (see close)
            self._number, self.path = self._temporary.fileno(), self._temporary.name
            self._temporary.truncate(size)
        self._size = size
        # A closed file's number is given to the next one: the path alone does not say that this one is meant.
        self.inode = os.fstat(self._number).st_ino

    def map(self) -> mmap.mmap:
        """Its memory; the mapping goes with the last array that looks at it."""
        return mmap.mmap(self._number, self._size)

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.close()
        elif self._number >= 0:
            os.close(self._number)
        self._number = -1


def _lay_out(batches: Sequence[Mapping[str, Array]]) -> tuple[tuple[Mapping[str, Place], ...], int]:
    """Where each array lies, and how many bytes there are in all."""
    layout: list[Mapping[str, Place]] = []
    end = 0
    for batch in batches:
        places: dict[str, Place] = {}
        for name, array in batch.items():
            if array.dtype.hasobject:
                raise InputError(f"input {name!r} is {array.dtype}; only numbers and booleans can be shared")
            places[name] = Place(end, array.shape, array.dtype.str)
            end += math.ceil(array.nbytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        layout.append(places)
    return tuple(layout), max(end, _ALIGNMENT_BYTES)


def _views(memory: mmap.mmap, layout: Sequence[Mapping[str, Place]]) -> list[dict[str, Array]]:
    def view(place: Place) -> Array:
        return np.ndarray(place.shape, np.dtype(place.dtype), buffer=memory, offset=place.offset)

    return [{name: view(place) for name, place in places.items()} for places in layout]
