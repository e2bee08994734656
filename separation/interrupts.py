"""SIGTERM and SIGHUP end the command like SIGINT: by an exception, so that temporary files are removed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise SystemExit with status 128 + number on SIGTERM and SIGHUP while entered in the main thread.

    SIGINT raises KeyboardInterrupt as always. A signal that is ignored, as nohup arranges, stays ignored.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
