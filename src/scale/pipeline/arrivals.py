"""Strips that are there, for whoever merges them while others are still searched."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class StoppedError(Exception):
    """What is merged is not wanted any more."""


class Arrivals:
    """Which strips of a slide are there; used by several threads."""

    def __init__(self, there: Iterable[int]) -> None:
        """``there`` are those of an earlier run."""
        self._there = set(there)
        self._stopped = False
        self._changed = threading.Condition()

    def add(self, strip: int) -> None:
        """One more is there."""
        with self._changed:
            self._there.add(strip)
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody is to wait or go on any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, strip: int) -> None:
        """Return when a strip is there.

        Raises:
            StoppedError: nobody is to go on.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or strip in self._there)
            if self._stopped:
                raise StoppedError
