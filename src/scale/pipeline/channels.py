"""What threads hand to each other: bounded queues that can be ended, and a bounded number of things in flight."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Channel(Generic[Item]):
    """A bounded queue of several givers and takers.

    :meth:`close` lets takers have what is in it and then tells them that there is no more; :meth:`stop` drops what is
    in it and lets nobody wait any longer.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = self._stopped = False

    def put(self, item: Item) -> bool:
        """Wait for room and add it; False where the channel was stopped."""
        with self._changed:
            while self._size is not None and len(self._items) >= self._size and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> Item | None:
        """Wait for the next; None where there will be no more."""
        with self._changed:
            while not self._items and not self._closed and not self._stopped:
                self._changed.wait()
            if self._stopped or not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def get_ready(self) -> Item | None:
        """The next without waiting; None where there is none now."""
        with self._changed:
            if self._stopped or not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nothing is added any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing is given out any more."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class Permits:
    """A number of permits that threads take and give back."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._changed = threading.Condition()
        self._stopped = False

    def acquire(self) -> bool:
        """Wait for one and take it; False where everything was stopped."""
        with self._changed:
            while self._left < 1 and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return False
            self._left -= 1
            return True

    def release(self) -> None:
        """Give one back."""
        with self._changed:
            self._left += 1
            self._changed.notify()

    def stop(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
