from __future__ import annotations

import socket

import pytest

from scale.viewer.hosts import names_of, trusts

LOCAL = names_of("127.0.0.1")


@pytest.mark.parametrize(
    "header", ["localhost", "localhost:8400", "LOCALHOST:1", "127.0.0.1:8400", "[::1]:8400", "192.168.1.7"]
)
def test_addresses_and_localhost_are_answered(header: str) -> None:
    assert trusts(LOCAL, header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "evil.example",
        "evil.example:8400",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "[evil.example]",
        "localhost:80:80",
        "localhost:evil",
        "0x7f000001.evil.example",
        "localhost evil.example",
    ],
)
def test_other_names_are_not(header: str) -> None:
    assert not trusts(LOCAL, header)


def test_a_name_that_was_given_is_answered_and_this_machines_too_where_others_can_come() -> None:
    assert trusts(names_of("workstation"), "workstation:8400")
    assert trusts(names_of("0.0.0.0"), socket.gethostname())
    assert socket.gethostname().lower() == "localhost" or not trusts(LOCAL, socket.gethostname())
