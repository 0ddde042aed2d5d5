"""A small HTTP/1.1 client over non-blocking sockets, for a generator that must not be slower than what it measures."""

from __future__ import annotations

import errno
import socket

_HEAD_LIMIT_BYTES = 64 << 10
_READ_BYTES = 256 << 10
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class BrokenReplyError(Exception):
    """The server's bytes are no HTTP answer, or they end within one."""


class Reply:
    r"""One answer as its bytes come in; its body is counted and thrown away.

    >>> reply = Reply()
    >>> reply.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh"), reply.feed(b"i"), reply.status
    (False, True, 200)
    """

    __slots__ = ("_buffer", "_chunked", "_head", "_left", "keep_alive", "status")

    def __init__(self) -> None:
        self._buffer = b""
        self._head = True
        self._chunked = False
        self._left: int | None = None
        self.status = 0
        self.keep_alive = True

    @property
    def begun(self) -> bool:
        """Whether any byte of it came."""
        return bool(self.status or self._buffer)

    def feed(self, data: bytes) -> bool:
        """Take what came; whether the answer is whole.

        Raises:
            BrokenReplyError: this is no HTTP, or more came than the answer has.
        """
        if self._head:
            self._buffer += data
            data = self._take_head()
            if self._head:
                return False
        if self._chunked:
            self._buffer += data
            return self._take_chunks()
        if self._left is None:
            return False  # up to the connection's end
        self._left -= len(data)
        if self._left < 0:
            raise BrokenReplyError("more bytes than the answer's Content-Length")
        return self._left == 0

    def end(self) -> bool:
        """The connection ended: whether that makes the answer whole."""
        self.keep_alive = False
        return not self._head and not self._chunked and self._left is None

    def _take_head(self) -> bytes:
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                if len(self._buffer) > _HEAD_LIMIT_BYTES:
                    raise BrokenReplyError("the answer's headers are too long")
                return b""
            self._parse(head)
            self._buffer = rest
            if self.status // 100 != 1:  # 100 Continue: the answer itself is still to come
                break
            self.status = 0
        self._head = False
        self._buffer = b""
        return rest

    def _parse(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        words = first.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise BrokenReplyError(f"the answer begins with {first[:40]!r}, expected HTTP/1.1")
        self.status = int(words[1])
        self.keep_alive = words[0] != b"HTTP/1.0"
        self._left = 0 if self.status in (204, 304) else None
        for line in lines:
            name, _, value = line.partition(b":")
            self._header(name.strip().lower(), value.strip().lower())

    def _header(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            if not value.isdigit():
                raise BrokenReplyError(f"Content-Length is {value[:20]!r}")
            self._left = int(value)
        elif name == b"transfer-encoding" and value.endswith(b"chunked"):
            self._chunked = True
        elif name == b"connection":
            self.keep_alive = value != b"close"

    def _take_chunks(self) -> bool:
        """Drop whole chunks from the buffer; ``_left`` is what is missing of the current one with its line end."""
        while True:
            if self._left:
                dropped = min(self._left, len(self._buffer))
                self._buffer = self._buffer[dropped:]
                self._left -= dropped
                if self._left:
                    return False
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                return False
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError as error:
                raise BrokenReplyError(f"a chunk begins with {line[:20]!r}") from error
            if size == 0:
                return rest == b"\r\n" or rest.endswith(b"\r\n\r\n")
            self._buffer, self._left = rest, size + 2


class Connection:
    """One connection that carries one request at a time; never blocks.

    Attributes:
        used: How many answers came over it; a server may close one between two requests.
    """

    __slots__ = ("_rest", "reply", "sock", "used")

    def __init__(self, host: str, port: int) -> None:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.sock = socket.socket(info[0], info[1], info[2])
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.used = 0
        self.reply = Reply()
        self._rest = memoryview(b"")
        code = self.sock.connect_ex(info[4])
        if code not in _IN_PROGRESS:
            self.sock.close()
            raise OSError(code, "cannot connect")

    def begin(self, request: bytes) -> bool:
        """Begin to send a request; whether all of it is gone."""
        self._rest = memoryview(request)
        self.reply = Reply()
        return self.go_on_sending()

    def go_on_sending(self) -> bool:
        """Send what fits; whether all of it is gone.

        Raises:
            OSError: the server refused or closed the connection.
        """
        while self._rest:
            try:
                sent = self.sock.send(self._rest)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno == errno.ENOTCONN:  # the connection is still being made
                    return False
                raise
            self._rest = self._rest[sent:]
        return True

    def receive(self) -> bool:
        """Take what came; whether the answer is whole.

        Raises:
            BrokenReplyError: the connection ended within an answer, or this is no HTTP.
            OSError: the server reset the connection.
        """
        while True:
            try:
                data = self.sock.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return False
            if not data:
                if self.reply.end():
                    return True
                raise BrokenReplyError("the connection ended before the answer did")
            if self.reply.feed(data):
                self.used += 1
                return True
            if len(data) < _READ_BYTES:
                return False

    def close(self) -> None:
        """Close it; calling it again does nothing."""
        self.sock.close()
