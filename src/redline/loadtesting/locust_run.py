"""locust as the generator of a closed loop, in a process of its own, which it patches.

``python -m redline.loadtesting.locust_run RESULT.json`` reads one :class:`Job` and writes its outcome. locust's own
percentiles are of buckets, so exact times are taken from its request event.
"""

from __future__ import annotations

import itertools
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redline.core.plain import from_text, to_line
from redline.core.processes import end_with_parent
from redline.loadtesting.job import Job, Outcome, Parcel, Sent, outcome_of

_LOOK_S = 0.02


def run_job(job: Job, parcel: Parcel) -> Outcome:
    """Run one window in this process, which gevent patches: importing locust does that."""
    import gevent
    from locust.env import Environment

    sent: list[Sent] = []
    before, start = time.process_time(), time.perf_counter()
    environment = Environment(
        user_classes=[_user(job, parcel)], host=f"http://{parcel.host}:{parcel.port}", stop_timeout=job.timeout_s
    )

    def note(response_time: float, exception: Exception | None, response: Any = None, **_: Any) -> None:
        now = time.perf_counter() - start
        begun = now - response_time / 1000
        sent.append(Sent(begun, begun, now, _status(response, exception)))

    environment.events.request.add_listener(note)
    runner = environment.create_local_runner()
    users = job.users or 1
    runner.start(users, spawn_rate=users)
    end = job.lead_s + job.seconds
    wanted = sys.maxsize if job.requests is None else job.requests
    while time.perf_counter() - start < end and sum(one.done_s > job.lead_s for one in sent) < wanted:
        gevent.sleep(_LOOK_S if job.requests is not None else max(0.0, end - (time.perf_counter() - start)))
    runner.stop()  # users end what they have begun
    elapsed_s, used_s = time.perf_counter() - start, time.process_time() - before
    runner.quit()
    return outcome_of(job, sent, elapsed_s=elapsed_s, client_cpu_s=used_s)


def _user(job: Job, parcel: Parcel) -> type[Any]:
    from locust import FastHttpUser, constant, task

    bodies: Iterator[bytes] = itertools.cycle(parcel.bodies[job.first :] + parcel.bodies[: job.first])

    class Caller(FastHttpUser):  # type: ignore[misc]
        wait_time = constant(0)
        connection_timeout = network_timeout = job.timeout_s

        @task  # type: ignore[untyped-decorator]
        def call(self) -> None:
            """Send the next body."""
            self.client.post(parcel.path, data=next(bodies), headers=dict(parcel.headers), name="infer")

    return Caller


def _status(response: Any, exception: Exception | None) -> str:
    code = getattr(response, "status_code", 0) or 0
    if code:
        return str(code)
    if isinstance(exception, TimeoutError) or "timed out" in str(exception):
        return "timeout"
    return "refused" if isinstance(exception, ConnectionRefusedError) else "broken"


def main(result: Path, line: str) -> None:
    """Run the job in ``line`` and write its outcome."""
    from gevent import monkey

    monkey.patch_all()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    end_with_parent()
    logging.getLogger("locust").setLevel(logging.ERROR)
    job = from_text(Job, line, where="the job")
    result.write_bytes(to_line(run_job(job, Parcel.load(Path(job.parcel)))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.read())
