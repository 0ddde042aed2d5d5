"""Decoded tiles that are kept for the next window, up to a number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.slides.recent import Recent

DEFAULT_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What a cache did so far.

    Attributes:
        hits: Tiles that were there, or that another thread was about to bring.
        misses: Tiles that were decoded.
        decode_s: Time that decoding took, summed over threads.
    """

    hits: int
    misses: int
    decode_s: float
    tiles: int
    size_bytes: int


class TileCache(Recent[Array]):
    """The tiles used last, shared by slides and threads; nobody may write to one.

    Two threads that want the same tile decode it once: the second waits for the first. A tile that fails to decode is
    not remembered, so that the next who asks tries again.
    """

    def __init__(self, capacity_bytes: int = DEFAULT_BYTES) -> None:
        """An empty cache that holds at most ``capacity_bytes``; with 0 nothing is kept."""
        if capacity_bytes < 0:
            raise InputError(f"got a cache of {capacity_bytes} bytes; expected 0 or more")
        super().__init__(capacity_bytes, size_of=lambda tile: tile.nbytes)
        self._decode_s = 0.0

    def get(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """The tile of ``key``, decoded by ``make`` where it is not there."""

        def timed() -> Array:
            begun = perf_counter()
            try:
                return make()
            finally:
                with self._lock:
                    self._decode_s += perf_counter() - begun

        return super().get(key, timed)

    def stats(self) -> CacheStats:
        """What it did so far."""
        with self._lock:
            return CacheStats(
                hits=self.hits, misses=self.misses, decode_s=self._decode_s, tiles=len(self), size_bytes=self.size
            )


@lru_cache(maxsize=1)
def shared_cache() -> TileCache:
    """The cache of every slide that was opened without one of its own."""
    return TileCache()
