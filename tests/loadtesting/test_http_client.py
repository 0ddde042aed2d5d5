"""The client understands HTTP however its bytes are cut, and says so where they are none."""

from __future__ import annotations

import pytest

from redline.loadtesting.http_client import BrokenReplyError, Reply

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"
TRAILER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
HEX = b"HTTP/1.1 200 OK\r\ntransfer-encoding:  Chunked\r\n\r\n1a\r\n" + b"\r\n" * 13 + b"\r\n0\r\n\r\n"
WHOLE = {"plain": PLAIN, "chunked": CHUNKED, "trailer": TRAILER, "continued": CONTINUED, "empty": EMPTY, "hex": HEX}
STATUS = {"plain": 200, "chunked": 201, "trailer": 200, "continued": 503, "empty": 204, "hex": 200}


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_is_whole_at_its_last_byte_wherever_it_is_cut(name: str) -> None:
    content = WHOLE[name]
    for cut in range(len(content)):
        reply = Reply()
        assert not reply.feed(content[:cut]), cut
        assert reply.feed(content[cut:]), cut
        assert reply.status == STATUS[name]


@pytest.mark.parametrize("name", WHOLE)
def test_byte_by_byte(name: str) -> None:
    reply = Reply()
    ends = [reply.feed(bytes([byte])) for byte in WHOLE[name]]
    assert ends == [False] * (len(ends) - 1) + [True]


def test_whether_the_connection_goes_on() -> None:
    kept, closed, old = Reply(), Reply(), Reply()
    kept.feed(PLAIN)
    closed.feed(CONTINUED)
    old.feed(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (kept.keep_alive, closed.keep_alive, old.keep_alive) == (True, False, False)


def test_a_body_may_last_until_the_connection_ends() -> None:
    reply = Reply()
    assert not reply.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert reply.end()
    assert not reply.keep_alive


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 200", PLAIN[:-1], CHUNKED[:-3]])
def test_a_connection_that_ends_within_an_answer_makes_none(content: bytes) -> None:
    reply = Reply()
    assert not reply.feed(content)
    assert not reply.end()
    assert reply.begun is bool(content)


@pytest.mark.parametrize(
    "content",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        PLAIN + b"more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"x" * (65 << 10),
    ],
)
def test_what_is_no_http_is_refused(content: bytes) -> None:
    with pytest.raises(BrokenReplyError):
        Reply().feed(content)
