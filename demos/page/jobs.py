"""Background jobs: several recordings at the same time, in turns; each can be stopped."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from page.limits import Refusal

PATIENCE = 20.0  # seconds without a question about a job after which its page counts as closed and the job is stopped


class Cancelled(Exception):
    """The job was stopped."""


class Turn:
    """A lock that is given in the order of requests, so that a long recording does not block a short one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests = self._finished = 0

    def __enter__(self) -> None:
        with self._changed:
            number = self._requests
            self._requests += 1
            self._changed.wait_for(lambda: self._finished == number)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._finished += 1
            self._changed.notify_all()


class Progress:
    """How much of a recording is done, with an estimate between two segments.

    Args:
        rate: expected seconds of work per second of recording.
        step: seconds of recording that are processed at a time.
    """

    def __init__(self, rate: float, step: float) -> None:
        self.rate, self.step = rate, step
        self.total, self.done = 0.0, 0.0  # seconds of recording
        self.began: float | None = None
        self.stage = "reading"

    def begin(self, total: float) -> None:
        """Start the clock; the recording has `total` seconds."""
        self.total, self.began, self.stage = total, time.monotonic(), "separating"

    def fraction(self) -> float:
        """From 0 to 1, at most one step ahead of what is known to be done."""
        if self.began is None or not self.total:
            return 0.0
        known = self.done / self.total
        expected = (time.monotonic() - self.began) / max(self.total * self.rate, 1e-3)
        estimate = 1 - math.exp(-1.5 * expected)  # slows down, but never stops
        return min(0.99, max(known, min(estimate, known + 0.95 * self.step / self.total)))

    def left(self) -> float | None:
        """Seconds until the end; None if unknown."""
        if self.began is None or self.done >= self.total:
            return None
        elapsed, fraction = time.monotonic() - self.began, self.fraction()
        return elapsed * (1 - fraction) / fraction if self.done else max(0.0, self.total * self.rate - elapsed) or None


class Ticket:
    """A job, as seen by the user who waits for it. Its `token` cannot be guessed."""

    def __init__(self, progress: Progress) -> None:
        self.token = secrets.token_hex(16)
        self.progress = progress
        self.future: Future[Any] = Future()
        self.stopped = threading.Event()
        self.seen = time.monotonic()  # when somebody last asked about the job

    def stop(self) -> None:
        """End the work at its next check, or before it begins."""
        self.stopped.set()
        self.future.cancel()

    def check(self) -> None:
        """Called by the work between two steps.

        Raises:
            Cancelled: the job was stopped, or nobody waits for it any more.
        """
        if self.stopped.is_set() or time.monotonic() - self.seen > PATIENCE:
            raise Cancelled


class Desk:
    """Accepts jobs: `active` of them run at the same time, up to `waiting` more wait in line.

    Jobs are submitted from one thread; other threads only add, remove or look up one entry of `_open`.
    """

    def __init__(self, active: int, waiting: int) -> None:
        self.active, self.waiting = active, waiting
        self._pool = ThreadPoolExecutor(active, thread_name_prefix="job")
        self._open: dict[str, Ticket] = {}

    def submit(self, ticket: Ticket, work: Callable[[], Any]) -> None:
        """Start `work`, or put it in line.

        Raises:
            Refusal: the line is full.
        """

        def run() -> Any:
            ticket.check()
            return work()

        if len(self._open) >= self.active + self.waiting:
            raise Refusal(f"{len(self._open)} recordings are waiting already. Please try again in a few minutes.")
        self._open[ticket.token] = ticket
        ticket.future = self._pool.submit(run)
        ticket.future.add_done_callback(lambda _: self._open.pop(ticket.token, None))

    def ahead(self, ticket: Ticket) -> int:
        """Number of jobs that must end before this one begins; 0 if it has begun."""
        tokens = list(self._open)
        if ticket.future.running() or ticket.future.done() or ticket.token not in tokens:
            return 0
        return max(1, tokens.index(ticket.token) + 1 - self.active)

    def stop(self, token: str) -> bool:
        """Stop a job; return whether there was one."""
        ticket = self._open.get(token)
        if ticket is not None:
            ticket.stop()
        return ticket is not None

    def close(self) -> None:
        """Stop all jobs and wait for their end."""
        for token in list(self._open):
            self.stop(token)
        self._pool.shutdown(wait=True, cancel_futures=True)
