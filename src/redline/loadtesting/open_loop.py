"""Our own generator of load, in a process of its own: open loop (a schedule) or closed loop (users).

``python -m redline.loadtesting.open_loop`` reads one :class:`Job` a line and answers each with one outcome a line.
"""

from __future__ import annotations

import gc
import heapq
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from redline.core.plain import from_text, to_line
from redline.core.processes import end_with_parent
from redline.loadtesting.http_client import BrokenReplyError, Connection
from redline.loadtesting.job import Job, Outcome, Parcel, Sent, outcome_of

_IN = select.EPOLLIN | select.EPOLLRDHUP
_OUT = select.EPOLLOUT


class Wire:
    """Connections to one server: requests go out, ends of requests come in.

    Each connection carries one request at a time. ``ended`` is called with every request that was answered, timed
    out or failed.
    """

    def __init__(
        self, parcel: Parcel, job: Job, ended: Callable[[Sent], None], *, clock: Callable[[], float], most: int
    ) -> None:
        self._parcel, self._requests, self._ended, self._clock = parcel, parcel.raw(), ended, clock
        self._timeout_s, self._most, self._next = job.timeout_s, most, job.first
        self._poll = select.epoll()
        self._all: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._busy: dict[int, tuple[Connection, Sent, bytes]] = {}
        self._deadlines: list[tuple[float, int, int]] = []
        self._count = 0
        self._numbers: dict[int, int] = {}

    @property
    def busy(self) -> int:
        """Requests under way."""
        return len(self._busy)

    @property
    def free(self) -> bool:
        """Whether one more request could go out now."""
        return len(self._busy) < self._most

    def send(self, one: Sent) -> None:
        """Send the next request in turn."""
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._start(one, request)

    def wait(self, until: float) -> None:
        """Wait for answers, at most until ``until`` or the first deadline, and deal with all that came."""
        if self._deadlines:
            until = min(until, self._deadlines[0][0])
        # epoll itself counts in milliseconds, select in microseconds: it waits for the epoll.
        select.select([self._poll], [], [], max(0.0, until - self._clock()))
        for descriptor, events in self._poll.poll(0):
            self._event(descriptor, events)
        self._give_up()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._all.values():
            connection.close()
        self._poll.close()

    def _start(self, one: Sent, request: bytes) -> None:
        try:
            connection = self._idle.pop() if self._idle else self._connect()
        except OSError:
            self._finish(one, "refused")
            return
        descriptor = connection.sock.fileno()
        self._busy[descriptor] = (connection, one, request)
        self._count += 1
        self._numbers[descriptor] = self._count
        heapq.heappush(self._deadlines, (one.sent_s + self._timeout_s, self._count, descriptor))
        try:
            whole = connection.begin(request)
        except OSError as error:
            self._failed(descriptor, error)
            return
        if not whole:
            self._poll.modify(descriptor, _IN | _OUT)

    def _connect(self) -> Connection:
        connection = Connection(self._parcel.host, self._parcel.port)
        descriptor = connection.sock.fileno()
        self._all[descriptor] = connection
        self._poll.register(descriptor, _IN)
        return connection

    def _event(self, descriptor: int, events: int) -> None:
        found = self._busy.get(descriptor)
        if found is None:
            self._drop(descriptor)  # the server closed it while it was idle, or talks without being asked
            return
        connection, one, _ = found
        try:
            if events & _OUT and connection.go_on_sending():
                self._poll.modify(descriptor, _IN)
            if events & ~_OUT and connection.receive():
                self._answered(descriptor, connection, one)
        except (OSError, BrokenReplyError) as error:
            self._failed(descriptor, error)

    def _answered(self, descriptor: int, connection: Connection, one: Sent) -> None:
        del self._busy[descriptor]
        if connection.reply.keep_alive:
            self._idle.append(connection)
        else:
            self._drop(descriptor)
        self._finish(one, str(connection.reply.status))

    def _failed(self, descriptor: int, error: Exception) -> None:
        connection, one, request = self._busy.pop(descriptor)
        fresh = not connection.used
        begun = connection.reply.begun
        self._drop(descriptor)
        if not fresh and not begun:
            self._start(one, request)  # closed between two requests, as any server may: once more, on a new one
        elif isinstance(error, ConnectionRefusedError):
            self._finish(one, "refused")
        else:
            self._finish(one, "broken")

    def _give_up(self) -> None:
        now = self._clock()
        while self._deadlines:
            deadline, number, descriptor = self._deadlines[0]
            under_way = self._numbers.get(descriptor) == number and descriptor in self._busy
            if under_way and deadline > now:
                return
            heapq.heappop(self._deadlines)
            if under_way:
                _, one, _ = self._busy.pop(descriptor)
                self._drop(descriptor)
                self._finish(one, "timeout")

    def _drop(self, descriptor: int) -> None:
        connection = self._all.pop(descriptor, None)
        if connection is None:
            return
        if connection in self._idle:
            self._idle.remove(connection)
        self._poll.unregister(descriptor)
        connection.close()

    def _finish(self, one: Sent, status: str) -> None:
        one.done_s, one.status = self._clock(), status
        self._ended(one)


def run_open(job: Job, parcel: Parcel, *, clock: Callable[[], float]) -> list[Sent]:
    """Send what is due when it is due; what could not be sent before the window is over is dropped."""
    sent: list[Sent] = []
    wire = Wire(parcel, job, lambda _: None, clock=clock, most=job.connections)
    due, position, end = job.due, 0, job.lead_s + job.seconds
    try:
        while True:
            now = clock()
            while position < len(due) and due[position] <= now and wire.free:
                sent.append(Sent(due[position], clock()))
                wire.send(sent[-1])
                position += 1
                now = clock()
            if now >= end:
                position = len(due)  # all of it was due, and no connection was free
            more = position < len(due)
            if not more and not wire.busy:
                break
            wire.wait(min(end, due[position]) if more and wire.free else end if more else now + job.timeout_s)
    finally:
        wire.close()
    return sent


def run_closed(job: Job, parcel: Parcel, *, clock: Callable[[], float]) -> list[Sent]:
    """Keep so many requests under way: each answer is followed by the next request at once."""
    sent: list[Sent] = []
    measured = 0
    answered: deque[Sent] = deque()
    wire = Wire(parcel, job, answered.append, clock=clock, most=job.users or 1)
    end = job.lead_s + job.seconds
    wanted = job.requests if job.requests is not None else sys.maxsize

    def send() -> None:
        now = clock()
        sent.append(Sent(now, now))
        wire.send(sent[-1])

    try:
        for _ in range(job.users or 1):
            send()
        while wire.busy or answered:
            while answered:
                one = answered.popleft()
                measured += one.done_s > job.lead_s
                if one.status in ("refused", "broken"):
                    time.sleep(0.001)  # a server that is gone must not make a busy loop
                if measured < wanted and clock() < end:
                    send()
            if wire.busy:
                wire.wait(clock() + job.timeout_s)
    finally:
        wire.close()
    return sent


def run_job(job: Job, parcel: Parcel) -> Outcome:
    """Run one window in this process."""
    before, start = time.process_time(), time.perf_counter()

    def clock() -> float:
        return time.perf_counter() - start

    sent = (run_open if job.users is None else run_closed)(job, parcel, clock=clock)
    return outcome_of(job, sent, elapsed_s=clock(), client_cpu_s=time.process_time() - before)


def main(lines: Iterable[str]) -> None:
    """Answer every job with an outcome until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    end_with_parent()
    load = cache(lambda path: Parcel.load(Path(path)))
    for line in lines:
        job = from_text(Job, line, where="the job")
        parcel = load(job.parcel)
        gc.collect()
        gc.disable()
        outcome = run_job(job, parcel)
        gc.enable()
        sys.stdout.write(to_line(outcome).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    socket.setdefaulttimeout(10)
    main(sys.stdin)
