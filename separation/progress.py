"""A progress bar for a terminal, one line that rewrites itself."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

PATIENCE = 1.0
"""Seconds before a bar appears: short work needs none."""

INTERVAL = 0.1


class Progress:
    """Shows how much of one file is done and how long the rest will take.

    Args:
        label: what is being worked on.
        total: the amount of work, in any unit; None or 0 when unknown.
        stream: where to; nothing is shown unless it is a terminal.
        enabled: False shows nothing either way.
    """

    def __init__(self, label: str, total: float | None, stream: TextIO, enabled: bool = True) -> None:
        self.label, self.total, self.stream = label, total, stream
        self.enabled = enabled and stream.isatty()
        self._began = time.monotonic()
        self._next = self._began + PATIENCE
        self._shown = False

    def update(self, done: float) -> None:
        """Tells how much is done by now."""
        now = time.monotonic()
        if not self.enabled or now < self._next:
            return
        self._next = now + INTERVAL
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r" + self._line(done, now - self._began)[:width].ljust(width))
        self.stream.flush()
        self._shown = True

    def _line(self, done: float, elapsed: float) -> str:
        if not self.total:
            return f"{self.label}  {clock(elapsed)}"
        share = min(1.0, done / self.total)
        left = f", {clock(elapsed / share - elapsed)} left" if share else ""
        bar = "#" * round(24 * share)
        return f"[{bar:<24}] {share:4.0%}{left}  {self.label}"

    def close(self) -> None:
        """Clears the line."""
        if self._shown:
            self.stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self.stream.flush()
            self._shown = False


def clock(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
