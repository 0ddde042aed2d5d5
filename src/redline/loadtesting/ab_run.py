"""ApacheBench as the generator of a closed loop: its command line, and what it says afterwards."""

from __future__ import annotations

import math
import re
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from redline.core.errors import WorkerError
from redline.loadtesting.job import Job, Outcome, Parcel

NOTE = "ab sends one body over and over, rounds times to whole milliseconds and counts from the actual sending"
_MOST_REQUESTS = 1_000_000
_MORE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AbReport:
    """What ab printed."""

    seconds: float
    complete: int
    failed: int
    not_2xx: int
    transferred_bytes: int | None = None


def parse_report(text: str) -> AbReport:
    """The counts out of what ab prints.

    >>> parse_report('''Time taken for tests:   1.503 seconds
    ... Complete requests:      40
    ... Failed requests:        0
    ... Non-2xx responses:      3''')
    AbReport(seconds=1.503, complete=40, failed=0, not_2xx=3, transferred_bytes=None)

    Raises:
        WorkerError: ab printed something else.
    """
    seconds = re.search(r"^Time taken for tests:\s+([\d.]+) seconds", text, re.MULTILINE)
    complete = _count(text, "Complete requests")
    if seconds is None or complete is None:
        told = " ".join(text.split())[-300:] or "nothing"
        raise WorkerError(f"ab printed no result but: {told}")
    return AbReport(
        seconds=float(seconds[1]),
        complete=complete,
        failed=_count(text, "Failed requests") or 0,
        not_2xx=_count(text, "Non-2xx responses") or 0,
        transferred_bytes=_count(text, "Total transferred"),
    )


def parse_times(text: str) -> list[float]:
    r"""Seconds of every request out of the file that ``ab -g`` writes: its column ttime, in milliseconds.

    >>> parse_times("starttime\tseconds\tctime\tdtime\tttime\twait\nSun Nov 22\t1795358456\t0\t5\t7\t5\n")
    [0.007]
    """
    first, *rows = text.splitlines() or [""]
    columns = first.split("\t")
    if "ttime" not in columns:
        raise WorkerError(f"the file of ab -g has the columns {first[:80]!r}, expected one called ttime")
    place = columns.index("ttime")
    return [int(row.split("\t")[place]) / 1000 for row in rows if row]


def command_line(job: Job, parcel: Parcel, body: Path, times: Path, *, seconds: float) -> list[str]:
    """How ab is called: keep-alive, answers of any length, as many at once as the job has users."""
    headers = [
        word for name, value in parcel.headers.items() if name.lower() != "content-type"
        for word in ("-H", f"{name}: {value}")
    ]  # fmt: skip
    kind = next((value for name, value in parcel.headers.items() if name.lower() == "content-type"), "text/plain")
    count = ["-n", str(job.requests)] if job.requests else ["-t", str(math.ceil(seconds)), "-n", str(_MOST_REQUESTS)]
    words = ["ab", "-k", "-l", "-q", "-r", "-c", str(job.users or 1), *count, "-s", str(math.ceil(job.timeout_s))]
    words += ["-p", str(body), "-T", kind, *headers, "-g", str(times)]
    return [*words, f"http://{parcel.host}:{parcel.port}{parcel.path}"]


def run_ab(job: Job, folder: Path, *, program: Mapping[str, str] | None = None) -> Outcome:
    """Run ab for one window, after a second of it as the lead-in.

    Args:
        job: A closed loop.
        folder: For its files.
        program: Environment variables of ab; None for ours.

    Raises:
        WorkerError: ab failed; says what it said.
    """
    parcel = Parcel.load(Path(job.parcel))
    body, times = folder / "body.bin", folder / "times.tsv"
    body.write_bytes(parcel.bodies[job.first % len(parcel.bodies)])
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    lead = None
    if job.lead_s > 0:
        warm = Job(parcel=job.parcel, users=job.users, timeout_s=job.timeout_s)
        lead = _run(command_line(warm, parcel, body, times, seconds=job.lead_s), job, program)
    report = _run(command_line(job, parcel, body, times, seconds=job.seconds), job, program)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _outcome(
        report,
        parse_times(times.read_text()),
        lead=lead.complete if lead else 0,
        elapsed_s=time.perf_counter() - start,
        client_cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def _outcome(report: AbReport, times: list[float], *, lead: int, elapsed_s: float, client_cpu_s: float) -> Outcome:
    # ab takes a connection that ends without an answer for a complete request; that none came at all can be seen.
    failed = report.complete if report.transferred_bytes == 0 else report.failed
    # A failed request may be one with another status too; -r goes on after it.
    good = max(0, report.complete - report.not_2xx - failed)
    others = {"not 2xx": report.not_2xx, "broken": failed}
    notes = [NOTE]
    if good < report.complete:
        notes.append("ab's times are those of all requests, failed ones with them")
    # Its file is sorted by time. Which request failed it does not say: as many are kept as were answered.
    kept = times[:: max(1, len(times) // good)][:good] if good else []
    return Outcome(
        seconds=max(report.seconds, 1e-6),
        elapsed_s=elapsed_s,
        lead=lead,
        offered=report.complete,
        sent=report.complete,
        dropped=0,
        late_p99_s=None,
        response_s=tuple(kept),
        service_s=tuple(kept),
        statuses={"200": good, **{status: count for status, count in others.items() if count}},
        client_cpu_s=client_cpu_s,
        client_rss_bytes=0,
        notes=tuple(notes),
    )


def _run(words: list[str], job: Job, program: Mapping[str, str] | None) -> AbReport:
    limit_s = 2 * job.seconds + job.timeout_s + _MORE_S
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=limit_s, check=False, env=program, start_new_session=True
        )
    except FileNotFoundError as error:
        raise WorkerError("ab is not installed; type: apt-get install apache2-utils") from error
    except subprocess.TimeoutExpired as error:
        raise WorkerError(f"ab did not end within {limit_s:.0f} s") from error
    if done.returncode != 0:
        told = " ".join((done.stderr or done.stdout).split())[-300:]
        raise WorkerError(f"ab failed with exit code {done.returncode}: {told}")
    return parse_report(done.stdout)


def _count(text: str, title: str) -> int | None:
    found = re.search(rf"^{title}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None
