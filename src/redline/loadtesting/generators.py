"""The tools that make load, behind one method: our own generator, locust, ab; each in a process of its own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from redline.core.errors import InputError, WorkerError
from redline.core.packages import missing
from redline.core.plain import from_text, to_line
from redline.loadtesting.ab_run import run_ab
from redline.loadtesting.job import Job, Outcome
from redline.loadtesting.results import Tool

_MORE_S = 60.0
_OWN = "redline.loadtesting.open_loop"
_LOCUST = "redline.loadtesting.locust_run"


class Generator(Protocol):
    """Makes the load of one window."""

    def run(self, job: Job) -> Outcome:
        """Run one window.

        Raises:
            WorkerError: its process failed.
        """
        ...

    def close(self) -> None:
        """End its process; calling it again does nothing."""
        ...


class OwnGenerator:
    """Our generator: one process for all windows, open loops and closed ones."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", _OWN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def run(self, job: Job) -> Outcome:
        """Run one window."""
        assert self._process.stdin is not None  # noqa: S101 (Popen was asked for both)
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(to_line(job).decode() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: what it said is read below
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the generator of load ended: {_last(self._errors_text())}")
        return from_text(Outcome, line, where="the generator of load")

    def close(self) -> None:
        """End the process."""
        _end(self._process)
        self._errors.close()

    def _errors_text(self) -> str:
        self._process.wait(timeout=10)
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")


class LocustGenerator:
    """locust: a process for each window, closed loops only."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job) -> Outcome:
        """Run one window."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "outcome.json"
            self._process = subprocess.Popen(
                [sys.executable, "-m", _LOCUST, str(result)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            limit_s = job.lead_s + job.seconds + job.timeout_s + _MORE_S
            try:
                _, errors = self._process.communicate(to_line(job).decode(), timeout=limit_s)
            except subprocess.TimeoutExpired as error:
                raise WorkerError(f"locust did not end within {limit_s:.0f} s") from error
            finally:
                self.close()
            if not result.is_file():
                raise WorkerError(f"locust failed: {_last(errors)}")
            return from_text(Outcome, result.read_bytes(), where="locust")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
            self._process = None


class AbGenerator:
    """ApacheBench: a process for each window, closed loops only."""

    def run(self, job: Job) -> Outcome:
        """Run one window."""
        with tempfile.TemporaryDirectory() as folder:
            return run_ab(job, Path(folder))

    def close(self) -> None:
        """Nothing to end: each window waits for its process."""


def open_generator(tool: Tool) -> Generator:
    """Start a tool.

    Raises:
        MissingDependencyError: locust is not installed.
        InputError: ab is not installed.
    """
    match tool:
        case "open":
            return OwnGenerator()
        case "locust":
            if find_spec("locust") is None:
                raise missing("locust")
            return LocustGenerator()
        case "ab":
            if shutil.which("ab") is None:
                raise InputError(
                    "ab is not installed; type: apt-get install apache2-utils, or leave --tool out to use our own"
                )
            return AbGenerator()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):
                stream.close()


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
