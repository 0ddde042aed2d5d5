"""The body of a request before it is looked into: inflated, its JSON told from what follows."""

from __future__ import annotations

import zlib

from redline.core.errors import RequestError
from redline.serving.limits import Limits

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MOST_DIGITS = 18


def inflate(body: bytes, encoding: str | None, limits: Limits) -> bytes:
    """The body as it was before its client compressed it.

    Args:
        body: As it was sent.
        encoding: The header ``Content-Encoding``.
        limits: Of the body as it was sent and of what it becomes.

    Raises:
        RequestError: 413 for what is too large before or after, 400 for what is broken or cut off, 415 for another
            encoding than gzip and deflate.
    """
    if len(body) > limits.body_bytes:
        raise RequestError(f"the body is too large, expected at most {limits.body_bytes} bytes", status=413)
    name = (encoding or "identity").strip().lower()
    if name in ("identity", ""):
        return body
    if name not in _WINDOW_BITS:
        raise RequestError(
            "the Content-Encoding of the request is not supported, expected gzip, deflate or identity", status=415
        )
    inflator = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        plain = inflator.decompress(body, limits.inflated_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"the body is no valid {name}") from error
    if len(plain) > limits.inflated_bytes:
        raise RequestError(
            f"the body is too large when it is inflated, expected at most {limits.inflated_bytes} bytes", status=413
        )
    if not inflator.eof:
        raise RequestError(f"the body is no valid {name}: it is cut off")
    if inflator.unused_data:
        raise RequestError(f"the body is no valid {name}: something follows its end")
    return plain


def header_length_of(text: str | None, body_length: int) -> int | None:
    """How many bytes of JSON stand before the binary tensors.

    Args:
        text: The header ``Inference-Header-Content-Length``; None where there is none.
        body_length: Of the body after inflating.

    Returns:
        None where all of the body is JSON; 0 where none of it is.

    Raises:
        RequestError: no whole number, or more than there is.
    """
    if text is None:
        return None
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        raise RequestError("the header Inference-Header-Content-Length is no whole number")
    if len(digits) > _MOST_DIGITS or int(digits) > body_length:
        raise RequestError(f"inference header size should be in range (0, {body_length})")
    return int(digits)
