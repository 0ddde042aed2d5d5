"""The latest values that were made, each made once however many threads ask for it at the same time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["Recent"]

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Keeps values until their sizes add up to ``capacity``, the longest unused go first; a larger one is not kept.

    Args:
        capacity: The sum of all sizes.
        size_of: Of a value; it counts 1 where this is left out.
        on_drop: Told of a value that goes.
    """

    def __init__(
        self,
        capacity: int,
        *,
        size_of: Callable[[Value], int] = lambda _: 1,
        on_drop: Callable[[Value], None] = lambda _: None,
    ) -> None:
        self.capacity = capacity
        self.size = self.hits = self.misses = 0
        self._size_of, self._on_drop = size_of, on_drop
        self._lock = Lock()
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._making: dict[Hashable, Future[Value]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept; what ``make`` fails with reaches all who wait for it."""
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    self.hits += 1
                    return self._values[key]
                coming = self._making.get(key)
                if coming is None:
                    mine = self._making[key] = Future()
                    self.misses += 1
                else:
                    self.hits += 1
            if coming is None:
                return self._made(key, make, mine)
            try:
                return coming.result()
            except CancelledError:  # whoever made it was interrupted, which is not the value's fault
                continue

    def forget(self, which: Callable[[Hashable], bool] = lambda _: True) -> None:
        """Drop the values of some keys, or of all."""
        with self._lock:
            dropped = [self._values.pop(key) for key in list(self._values) if which(key)]
            self.size -= sum(map(self._size_of, dropped))
        for value in dropped:
            self._on_drop(value)

    def _made(self, key: Hashable, make: Callable[[], Value], mine: Future[Value]) -> Value:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            if isinstance(error, Exception):
                mine.set_exception(error)
            else:
                mine.cancel()
            raise
        for old in self._keep(key, value):
            self._on_drop(old)
        mine.set_result(value)
        return value

    def _keep(self, key: Hashable, value: Value) -> list[Value]:
        """What has to go for it."""
        dropped = []
        with self._lock:
            del self._making[key]
            if self._size_of(value) > self.capacity:
                return [value]
            self._values[key] = value
            self.size += self._size_of(value)
            while self.size > self.capacity:
                dropped.append(self._values.popitem(last=False)[1])
                self.size -= self._size_of(dropped[-1])
        return dropped
