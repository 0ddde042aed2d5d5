"""Processes that do not outlive the one that started them, and the command line of this one."""

from __future__ import annotations

import ctypes
import shlex
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, even by ``kill -9``.

    Linux only; elsewhere this does nothing, and a process that is busy ends when its work is done.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def command_line(function: str) -> str:
    """How this process was called, to be repeated: its ``redline …``, or the Python function that it was."""
    if Path(sys.argv[0]).name in ("redline", "__main__.py"):
        return shlex.join(["redline", *sys.argv[1:]])
    return function
