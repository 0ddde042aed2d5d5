"""A connection to a Ray cluster; Ray is loaded when it is made."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redline.core.errors import DeviceError
from redline.core.packages import missing

_KNOCK_S = 5.0


@contextmanager
def ray_at(address: str) -> Iterator[Any]:
    """Ray, connected while the block runs; a connection that was there before is used and left.

    Args:
        address: As ``ray start`` printed it; ``local`` starts a cluster of this machine alone; ``auto`` takes the one
            that runs here.

    Raises:
        MissingDependencyError: Ray is not installed.
        DeviceError: the cluster does not answer.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise missing("ray") from error
    if ray.is_initialized():
        yield ray
        return
    _knock(address)
    try:
        here = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DeviceError(f"no Ray cluster answers at {address}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise DeviceError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error
