"""Decoded tiles that are kept for the next window, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from time import perf_counter

from redline.core.errors import InputError
from redline.core.tensor import Array

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


class TileCache:
    """The tiles used last, shared by slides and threads.

    Two threads that want the same tile decode it once: the second waits for the first. A tile that fails to decode is
    not remembered, so that the next who asks tries again.
    """

    def __init__(self, capacity_bytes: int = DEFAULT_BYTES) -> None:
        """An empty cache that holds at most ``capacity_bytes``; with 0 nothing is kept."""
        if capacity_bytes < 0:
            raise InputError(f"got a cache of {capacity_bytes} bytes; expected 0 or more")
        self.capacity_bytes = capacity_bytes
        self._lock = Lock()
        self._tiles: OrderedDict[Hashable, Array] = OrderedDict()
        self._coming: dict[Hashable, Future[Array]] = {}
        self._size_bytes = 0
        self._hits = 0
        self._misses = 0
        self._decode_s = 0.0

    def get(self, key: Hashable, decode: Callable[[], Array]) -> Array:
        """The tile of ``key``, from ``decode`` where it is not there; nobody may write to it."""
        while True:
            with self._lock:
                tile = self._tiles.get(key)
                if tile is not None:
                    self._tiles.move_to_end(key)
                    self._hits += 1
                    return tile
                coming = self._coming.get(key)
                if coming is None:
                    mine: Future[Array] = Future()
                    self._coming[key] = mine
                    self._misses += 1
                else:
                    self._hits += 1
            if coming is None:
                return self._bring(key, decode, mine)
            try:
                return coming.result()
            except CancelledError:  # whoever decoded it was interrupted, which is not the tile's fault
                continue

    def _bring(self, key: Hashable, decode: Callable[[], Array], mine: Future[Array]) -> Array:
        begun = perf_counter()
        try:
            tile = decode()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
                self._decode_s += perf_counter() - begun
            if isinstance(error, Exception):
                mine.set_exception(error)
            else:
                mine.cancel()
            raise
        with self._lock:
            del self._coming[key]
            self._decode_s += perf_counter() - begun
            self._keep(key, tile)
        mine.set_result(tile)
        return tile

    def _keep(self, key: Hashable, tile: Array) -> None:
        if tile.nbytes > self.capacity_bytes:
            return
        self._tiles[key] = tile
        self._size_bytes += tile.nbytes
        while self._size_bytes > self.capacity_bytes:
            _, oldest = self._tiles.popitem(last=False)
            self._size_bytes -= oldest.nbytes

    def forget(self, owner: Hashable) -> None:
        """Drop the tiles whose key is a tuple that starts with ``owner``."""
        with self._lock:
            for key in [key for key in self._tiles if isinstance(key, tuple) and key[0] == owner]:
                self._size_bytes -= self._tiles.pop(key).nbytes

    def stats(self) -> CacheStats:
        """What it did so far."""
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                decode_s=self._decode_s,
                tiles=len(self._tiles),
                size_bytes=self._size_bytes,
            )


@lru_cache(maxsize=1)
def shared_cache() -> TileCache:
    """The cache of every slide that was opened without one of its own."""
    return TileCache()
