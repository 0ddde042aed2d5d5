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

    def get(self, *, wait: bool = True) -> Item | None:
        """The next; None where there will be no more, or, unless it is waited for, where there is none now."""
        with self._changed:
            while wait and not self._items and not self._closed and not self._stopped:
                self._changed.wait()
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
        self._free: Channel[bool] = Channel()
        for _ in range(count):
            self.release()

    def acquire(self) -> bool:
        """Wait for one and take it; False where everything was stopped."""
        return self._free.get() is not None

    def release(self) -> None:
        """Give one back."""
        self._free.put(True)

    def stop(self) -> None:
        """Nobody waits any longer."""
        self._free.stop()
