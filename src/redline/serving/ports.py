"""The port that a server listens on, with what its runners share: limits, and what the kernel knows of a connection."""

from __future__ import annotations

import ctypes
import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redline.core.errors import InputError

App = Callable[..., Any]
BACKLOG = 1024
#: The most connections at once; granian has a thread for each, so that a slow body never stands in another's way.
CONNECTIONS = 1024
#: How long a new connection that has not said anything yet is listened to after the port was closed.
FRESH_S = 1.0
_logger = logging.getLogger("redline.serving")
_SO_ATTACH_FILTER = 26
#: The beginning of Linux' ``struct tcp_info``: bytes, words, and from 104 on numbers of 64 bits.
_TCP_INFO = struct.Struct("=8B24I4Q")


class Listening:
    """A port that is open.

    Attributes:
        socket: It.
        host: As the user gave it.
        port: The real one, where 0 was asked for.
    """

    def __init__(self, host: str, port: int) -> None:
        """Open it.

        Raises:
            InputError: somebody has it, or this machine has no such address.
        """
        self.host = host
        self.socket = _bind(host, port)
        self.port: int = self.socket.getsockname()[1]

    @property
    def url(self) -> str:
        """Where to find it from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def refuse(self) -> None:
        """Let no further connection begin, and keep those that wait to be accepted.

        Closing a port resets what waits there, and those clients believe that they are connected. So the kernel is told
        to pass over every further packet for it first (a filter that keeps nothing); where a system cannot do that,
        the moment between the last accept and the close stays.
        """
        if sys.platform != "linux":
            return
        keep_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes
        program = struct.pack("HP", 1, ctypes.addressof(keep_nothing))
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        except OSError as error:
            _logger.debug("no filter on the port: %s", error)

    def waiting(self) -> int:
        """How many connections wait to be accepted; 0 where the system does not say."""
        info = tcp_info(self.socket)
        return info.unacked if info else 0

    def close(self) -> None:
        """Close the port; calling it again does nothing."""
        self.socket.close()


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What the kernel knows of a connection.

    Attributes:
        unacked: Of an open port, how many connections wait to be accepted.
        last_sent_s: How long ago something was sent, or since when there is the connection.
        received_bytes: In all.
    """

    unacked: int
    last_sent_s: float
    received_bytes: int


def tcp_info(sock: socket.socket) -> TcpInfo | None:
    """Ask the kernel (Linux only)."""
    if sys.platform != "linux":
        return None
    try:
        values = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except (OSError, struct.error):
        return None
    return TcpInfo(values[12], values[17] / 1000, values[35])


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise InputError(f"got host {host!r}, which is no address of this machine; give --host 127.0.0.1") from error
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except (OSError, OverflowError) as error:
        opened.close()
        raise InputError(_why_not(host, port, error)) from error
    return opened


def _why_not(host: str, port: int, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return f"port {port} is in use; give another by --port, or 0 for any free one"
    if number == errno.EACCES:
        return f"port {port} is not for this user; give one above 1023 by --port"
    if number == errno.EADDRNOTAVAIL:
        return f"got host {host!r}, which is no address of this machine; give --host 127.0.0.1"
    return f"cannot listen at {host} port {port}: {error}"
