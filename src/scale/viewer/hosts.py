"""Which names a browser may know this server by.

A page from elsewhere can have its own name lead to 127.0.0.1 (DNS rebinding) and then read what is served here. Its
requests still carry that name, so only addresses, ``localhost`` and this machine's own names are answered.
"""

from __future__ import annotations

import ipaddress
import socket

__all__ = ["is_loopback", "names_of", "trusts"]


def names_of(host: str) -> frozenset[str]:
    """The names that a server that listens at ``host`` goes by."""
    names = {"localhost", host.strip("[]").lower()}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names - {""})


def trusts(names: frozenset[str], header: str) -> bool:
    """Whether a ``Host`` header is an address or one of the names.

    >>> trusts(names_of("127.0.0.1"), "127.0.0.1:8400"), trusts(names_of("127.0.0.1"), "evil.example:8400")
    (True, False)
    """
    name = _without_port(header).lower()
    return name in names or _is_address(name)


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name, colon, port = header.rpartition(":")
    return name if colon and port.isdecimal() else header


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    name = host.strip("[]")
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)
