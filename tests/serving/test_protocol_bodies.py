"""Bodies before they are looked into: what is too large, broken or in another encoding is told as what it is."""

from __future__ import annotations

import gzip
import zlib

import pytest

from redline.core.errors import InputError, RequestError
from redline.serving.limits import Limits
from redline.serving.protocol import header_length_of, inflate

SMALL = Limits(body_bytes=1000, inflated_bytes=2000)
PLAIN = b"0123456789" * 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip "])
def test_gzip(encoding: str) -> None:
    assert inflate(gzip.compress(PLAIN, mtime=0), encoding, SMALL) == PLAIN


def test_deflate_is_zlib() -> None:
    assert inflate(zlib.compress(PLAIN), "deflate", SMALL) == PLAIN


@pytest.mark.parametrize("encoding", [None, "", "identity"])
def test_nothing_to_do(encoding: str | None) -> None:
    body = b"abc"
    assert inflate(body, encoding, SMALL) is body


@pytest.mark.parametrize(
    ("body", "encoding", "status", "told"),
    [
        (b"a" * 1001, None, 413, "the body is too large, expected at most 1000 bytes"),
        (b"a" * 1001, "gzip", 413, "the body is too large, expected at most 1000 bytes"),
        (
            gzip.compress(PLAIN + b"1", mtime=0),
            "gzip",
            413,
            "too large when it is inflated, expected at most 2000 bytes",
        ),
        (zlib.compress(bytes(200_000)), "deflate", 413, "too large when it is inflated"),
        (b"abc", "gzip", 400, "the body is no valid gzip"),
        (b"", "gzip", 400, "the body is no valid gzip"),
        (b"abc", "deflate", 400, "the body is no valid deflate"),
        (gzip.compress(PLAIN, mtime=0)[:-1], "gzip", 400, "it is cut off"),
        (gzip.compress(PLAIN, mtime=0)[:-8] + bytes(8), "gzip", 400, "the body is no valid gzip"),
        (gzip.compress(b"a", mtime=0) + b"junk", "gzip", 400, "something follows its end"),
        (gzip.compress(b"a", mtime=0) * 2, "gzip", 400, "something follows its end"),
        (b"abc", "br", 415, "expected gzip, deflate or identity"),
        (b"abc", "gzip, gzip", 415, "expected gzip, deflate or identity"),
    ],
)
def test_what_cannot_be_inflated(body: bytes, encoding: str | None, status: int, told: str) -> None:
    with pytest.raises(RequestError, match=told) as caught:
        inflate(body, encoding, SMALL)
    assert caught.value.status == status


@pytest.mark.parametrize(("text", "wanted"), [(None, None), ("0", 0), ("7", 7), ("10", 10), (" 3 ", 3), ("003", 3)])
def test_the_length_of_the_json(text: str | None, wanted: int | None) -> None:
    assert header_length_of(text, 10) == wanted


@pytest.mark.parametrize("text", ["abc", "", " ", "-1", "+1", "1.0", "0x1", "1_0", "²", "١", "1 1", "1e1"])
def test_a_length_that_is_none(text: str) -> None:
    with pytest.raises(RequestError, match="is no whole number") as caught:
        header_length_of(text, 10)
    assert caught.value.status == 400


@pytest.mark.parametrize("text", ["11", "9" * 18, "9" * 5000, "0" * 19])
def test_a_length_beyond_the_body(text: str) -> None:
    with pytest.raises(RequestError, match=r"inference header size should be in range \(0, 10\)") as caught:
        header_length_of(text, 10)
    assert caught.value.status == 400


def test_limits_are_more_than_nothing() -> None:
    assert Limits().body_bytes == 32 << 20
    with pytest.raises(InputError, match="the limit batch_rows is 0, expected more than 0"):
        Limits(batch_rows=0)
