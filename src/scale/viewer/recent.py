"""The latest values that were made, each made once however many ask for it at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Recent"]

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Keeps values until their sizes add up to ``most``, the longest unused go first.

    Args:
        most: The sum of all sizes.
        size_of: Of a value; it counts 1 where this is left out.
        on_drop: Told of a value that goes.
    """

    def __init__(
        self,
        most: int,
        *,
        size_of: Callable[[Value], int] = lambda _: 1,
        on_drop: Callable[[Value], None] = lambda _: None,
    ) -> None:
        self._most = most
        self._size_of = size_of
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._making: dict[Hashable, Future[Value]] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """The sum of the sizes of what is kept."""
        return self._size

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept; whatever ``make`` raises reaches all who wait for it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            made = self._making.get(key)
            mine = made is None
            if made is None:
                made = self._making[key] = Future()
        if not mine:
            return made.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            made.set_exception(error)
            raise
        self._keep(key, value)
        made.set_result(value)
        return value

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            dropped = list(self._values.values())
            self._values.clear()
            self._size = 0
        for value in dropped:
            self._on_drop(value)

    def _keep(self, key: Hashable, value: Value) -> None:
        dropped: list[Value] = []
        with self._lock:
            del self._making[key]
            self._values[key] = value
            self._size += self._size_of(value)
            while self._size > self._most and self._values:
                _, old = self._values.popitem(last=False)
                self._size -= self._size_of(old)
                dropped.append(old)
        for old in dropped:
            self._on_drop(old)
