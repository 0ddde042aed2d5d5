"""How readers tell that a file is not for them, or is broken."""

from __future__ import annotations

from redline.core.errors import DataError

_LONGEST_REASON = 200


class UnsuitedError(DataError):
    """A file that may be sound, and that this reader does not read: another one should be asked."""


def reason(error: BaseException) -> str:
    """What a library said, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= _LONGEST_REASON else said[: _LONGEST_REASON - 3] + "..."
