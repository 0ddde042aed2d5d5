"""Several sessions over one engine, for callers in several threads."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping

from redline.backends.tensorrt.engine import LoadedEngine
from redline.backends.tensorrt.session import EngineSession
from redline.core.errors import InputError
from redline.core.tensor import Array, Signature


class SessionPool:
    """Itself a :class:`redline.core.session.Session`, which any number of threads may call.

    The weights are on the GPU once; each session of the pool has its own buffers and stream.
    """

    def __init__(self, loaded: LoadedEngine, make: Callable[[], EngineSession], size: int) -> None:
        """Make ``size`` sessions.

        Args:
            loaded: The engine, which the pool closes with itself.
            make: Makes a session that does not own the engine.
            size: How many calls can run at once; later ones wait.
        """
        if size < 1:
            raise InputError(f"pool size is {size}, expected at least 1")
        self._loaded = loaded
        self._sessions = [make() for _ in range(size)]
        self.signature: Signature = self._sessions[0].signature
        self._free: queue.LifoQueue[EngineSession] = queue.LifoQueue()
        for session in self._sessions:
            self._free.put(session)
        self._closed = False

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once on a session that is free, waiting for one where there is none."""
        if self._closed:
            raise InputError("the session is closed; open it again")
        session = self._free.get()
        try:
            return session(inputs)
        finally:
            self._free.put(session)

    def close(self) -> None:
        """Free everything, once the calls under way are done; again does nothing."""
        if self._closed:
            return
        self._closed = True
        for _ in self._sessions:
            self._free.get().close()
        self._loaded.close()
