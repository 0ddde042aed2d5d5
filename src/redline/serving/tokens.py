"""Who may ask, and who may load and unload models: two bearer tokens."""

from __future__ import annotations

import hmac
import logging
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from redline.core.errors import InputError

_SHORTEST = 8
_LONGEST_FILE_BYTES = 4096
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a client has to send as ``Authorization: Bearer …``.

    Attributes:
        token: For everything but health and the page; None where anybody may ask.
        admin: For loading and unloading, and for all that ``token`` is for; None where nobody may load.
    """

    token: str | None = field(default=None, repr=False)
    admin: str | None = field(default=None, repr=False)

    @classmethod
    def from_files(cls, token: Path | None = None, admin: Path | None = None) -> Self:
        """Read each token from its file.

        Raises:
            InputError: a file that is missing, or whose content is no token.
        """
        return cls(
            token=None if token is None else read_token(token), admin=None if admin is None else read_token(admin)
        )

    def allows(self, authorization: str | None) -> bool:
        """Whether a client with this header may ask."""
        return self.token is None or _same(authorization, self.token) or self.allows_admin(authorization)

    def allows_admin(self, authorization: str | None) -> bool:
        """Whether a client with this header may load and unload."""
        return self.admin is not None and _same(authorization, self.admin)


def read_token(path: Path) -> str:
    """The token that a file holds, blanks around it cut off; a file that others may read is warned of.

    Raises:
        InputError: the file is not there, or holds no single word of at least 8 printable ASCII characters.
    """
    try:
        others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        with path.open("rb") as file:
            raw = file.read(_LONGEST_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror}), expected a file that holds a token") from error
    token = raw.strip().decode("ascii", "replace")
    words = token.split()
    if len(raw) > _LONGEST_FILE_BYTES or len(words) != 1 or not token.isascii() or not token.isprintable():
        raise InputError(f"{path} holds no token, expected one word of printable ASCII characters")
    if len(token) < _SHORTEST:
        raise InputError(f"the token in {path} has {len(token)} characters, expected at least {_SHORTEST}")
    if others:
        _log.warning("%s may be read by others than its owner; type: chmod 600 %s", path, path)
    return token


def _same(authorization: str | None, token: str) -> bool:
    scheme, _, given = (authorization or "").partition(" ")
    # Encoded first: compare_digest takes no text beyond ASCII.
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    return same and scheme.lower() == "bearer"
