"""What comes in and what goes out, without a word of HTTP's wire."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from redline.core.errors import RequestError

JSON = "application/json"
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


# Not frozen, as nothing is that each request makes anew: a frozen one takes three times as long to make.
@dataclass(slots=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        method: In capitals.
        path: Percent-decoded, with its leading slash.
        headers: Names in lower case.
        query: The first value of each name.
        body: Whole, as sent: still compressed where ``content-encoding`` says so.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True, kw_only=True)
class Reply:
    """One answer; ``headers`` is its own, to be added to."""

    status: int
    headers: dict[str, str]
    body: bytes


def request_id_of(call: Call) -> str:
    """The caller's own ``X-Request-Id`` where it is short and plain, else a new one."""
    given = call.headers.get("x-request-id")
    return given if given and _SANE_ID.fullmatch(given) else secrets.token_hex(8)


def json_reply(value: Any, *, status: int = 200) -> Reply:
    """An answer in JSON."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Reply(status=status, headers={"Content-Type": JSON}, body=body)


def empty_reply(status: int = 200) -> Reply:
    """An answer of which only the status counts."""
    return Reply(status=status, headers={}, body=b"")


def error_reply(message: str, *, status: int) -> Reply:
    """An answer that says what is wrong."""
    # A name that came in may hold halves of characters, which no JSON can.
    return json_reply({"error": message.encode("utf-8", "replace").decode()}, status=status)


def refusal(error: RequestError) -> Reply:
    """The answer that an error asks for."""
    reply = error_reply(str(error), status=error.status)
    if error.retry_after_s is not None:
        reply.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        reply.headers["WWW-Authenticate"] = 'Bearer realm="redline"'
    return reply
