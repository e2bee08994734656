"""Work in the background: several recordings at once, in turns, each of which can be stopped."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from page.limits import Refusal

PATIENCE = 20.0
"""Seconds after which a job that nobody asks about is stopped: its page was closed."""


class Cancelled(Exception):
    """Somebody stopped the work."""


class Turn:
    """A lock that is handed on in the order of asking, so that a long recording does not keep out a short one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            gate = threading.Event()
            self._waiting.append(gate)
        gate.wait()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


class Progress:
    """How much of a recording is done, and a guess between two segments.

    Args:
        rate: seconds of work for a second of recording, as far as is known.
        step: seconds of recording that are worked on at a time.
    """

    def __init__(self, rate: float, step: float) -> None:
        self.rate, self.step = rate, step
        self.total = 0.0
        self.done = 0.0
        self.began: float | None = None
        self.stage = "reading"

    def begin(self, total: float) -> None:
        """The work begins: `total` seconds of recording."""
        self.total, self.began, self.stage = total, time.monotonic(), "separating"

    def fraction(self) -> float:
        """From 0 to 1; never more than one step ahead of what is known to be done."""
        if self.began is None or not self.total:
            return 0.0
        known = self.done / self.total
        expected = (time.monotonic() - self.began) / max(self.total * self.rate, 1e-3)
        guess = 1 - math.exp(-1.5 * expected)  # slows down, but never stands still
        return min(0.99, max(known, min(guess, known + 0.95 * self.step / self.total)))

    def left(self) -> float | None:
        """Seconds that the rest will take, None while nobody knows."""
        if self.began is None:
            return None
        elapsed, fraction = time.monotonic() - self.began, self.fraction()
        if self.done >= self.total:
            return None
        return elapsed * (1 - fraction) / fraction if self.done else max(0.0, self.total * self.rate - elapsed) or None


class Ticket:
    """One job, as the person sees it who waits for it.

    Attributes:
        token: its name, which nobody can guess.
        progress: see there.
    """

    def __init__(self, progress: Progress) -> None:
        self.token = secrets.token_hex(16)
        self.progress = progress
        self.future: Future[Any] = Future()
        self._stopped = threading.Event()
        self._watched = time.monotonic()

    def stop(self) -> None:
        """Ends the work at the next occasion, or before it begins."""
        self._stopped.set()
        self.future.cancel()

    def watched(self) -> None:
        """Somebody still waits for it."""
        self._watched = time.monotonic()

    def check(self) -> None:
        """Called by the work between two steps.

        Raises:
            Cancelled: it was stopped, or nobody waits for it any more.
        """
        if self._stopped.is_set() or time.monotonic() - self._watched > PATIENCE:
            raise Cancelled


class Desk:
    """Takes jobs in, `active` of them at once, the others in a line.

    Args:
        active, waiting: how many there may be.
    """

    def __init__(self, active: int, waiting: int) -> None:
        self.active, self.waiting = active, waiting
        self._pool = ThreadPoolExecutor(active, thread_name_prefix="job")
        self._guard = threading.Lock()
        self._open: dict[str, Ticket] = {}

    def submit(self, ticket: Ticket, work: Callable[[], Any]) -> None:
        """Begins `work`, or lets it wait.

        Raises:
            Refusal: the line is full.
        """

        def run() -> Any:
            ticket.check()
            return work()

        with self._guard:
            if len(self._open) >= self.active + self.waiting:
                raise Refusal(f"{len(self._open)} recordings are waiting already. Please try again in a few minutes.")
            self._open[ticket.token] = ticket
            ticket.future = self._pool.submit(run)
        ticket.future.add_done_callback(lambda _: self._close(ticket))

    def _close(self, ticket: Ticket) -> None:
        with self._guard:
            self._open.pop(ticket.token, None)

    def ahead(self, ticket: Ticket) -> int:
        """How many jobs have to end before this one begins; 0 when it has begun."""
        with self._guard:
            tokens = list(self._open)
            begun = ticket.future.running() or ticket.future.done()
        return 0 if begun or ticket.token not in tokens else max(1, tokens.index(ticket.token) + 1 - self.active)

    def stop(self, token: str) -> bool:
        """Stops a job; whether there was one."""
        with self._guard:
            ticket = self._open.get(token)
        if ticket is not None:
            ticket.stop()
        return ticket is not None

    def close(self) -> None:
        """Stops everything."""
        for token in list(self._open):
            self.stop(token)
        self._pool.shutdown(wait=True, cancel_futures=True)
