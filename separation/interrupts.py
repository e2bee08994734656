"""Ctrl-C, a polite kill and a closed terminal end the work at once, but never in the middle of a C library's callback.

A KeyboardInterrupt that is raised inside a callback from C is printed and lost. So the handler
raises immediately except inside `shield`, where it waits until the shield ends.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

INTERRUPTED = 130
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """Handles SIGINT, SIGTERM and SIGHUP while it is entered; does nothing outside the main thread."""

    def __init__(self) -> None:
        self._depth = 0
        self._waiting: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                # A shell starts background jobs with SIGINT ignored, nohup starts its own so; that is kept.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Holds a signal back until the block ends."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._waiting is not None:
                number, self._waiting = self._waiting, None
                _stop(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._waiting = number
        else:
            _stop(number)


def _stop(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
