"""A session that is slower than it is by a set share: what benchmarks/honesty.py must be able to see."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from redline.backends import open_engine
from redline.core.session import Session
from redline.core.tensor import Array, Signature


class Delayed:
    """Calls another session, then spins for a share of that call's time."""

    def __init__(self, session: Session, share: float) -> None:
        self._session = session
        self._share = share

    @property
    def signature(self) -> Signature:
        """What the other session takes and gives."""
        return self._session.signature

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once and be late."""
        start = perf_counter()
        outputs = self._session(inputs)
        until = perf_counter() + self._share * (perf_counter() - start)
        while perf_counter() < until:
            pass
        return outputs

    def close(self) -> None:
        """Close the other session."""
        self._session.close()


def open_delayed(path: str, share: float) -> Delayed:
    """Open an engine so that every call takes ``share`` longer."""
    return Delayed(open_engine(path), share)
