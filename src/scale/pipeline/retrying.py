"""A step of a window or a batch is tried again before it counts as failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from redline.core.errors import MissingDependencyError

Result = TypeVar("Result")


class FailedError(Exception):
    """A window or a batch that did not work, however often it was tried."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__(stage, error)
        self.stage, self.error = stage, error


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line.

    >>> reason_of(ValueError("no such tile"))
    'ValueError: no such tile'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def retried(stage: str, retries: int, call: Callable[[], Result]) -> Result:
    """What ``call`` gives, tried again so many times.

    Raises:
        FailedError: it failed each time.
        MissingDependencyError: no trying will help.
    """
    for left in reversed(range(retries + 1)):
        try:
            return call()
        except MissingDependencyError:
            raise
        except Exception as error:  # the edge of a window: it is tried again, then reported
            if not left:
                raise FailedError(stage, error) from error
    raise AssertionError("unreachable")
