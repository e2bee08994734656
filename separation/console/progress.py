"""The progress of `separate` over all its inputs, on one line of a terminal, and the summary at the end."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from separation.audio import Reader
from separation.process import printable

PROGRESS_DELAY = 1.0  # seconds before the line appears
REDRAW_SECONDS = 0.1


def describe_run(counts: Mapping[str, int], files: int, seconds: float) -> str:
    """Return for example "12 files in 1:23: 10 done, 2 skipped because their outputs exist; 3 passed over."."""
    kinds = {"done": "done", "failed": "failed", "skipped": "skipped because their outputs exist"}
    parts = [f"{counts[kind]} {words}" for kind, words in kinds.items() if counts[kind] or kind == "done"]
    passed = f"; {counts['passed over']} passed over" if counts["passed over"] else ""
    return f"{files} file{'s' * (files != 1)} in {clock(seconds)}: {', '.join(parts)}{passed}."


def clock(seconds: float) -> str:
    """Return for example "1:23" or "2:01:23"."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class ProgressLine:
    """One line on a terminal for the whole run: the share that is done, by duration, and the time left.

    Args:
        wanted: whether it may be shown; it is if standard error is a terminal, after `PROGRESS_DELAY` seconds.
    """

    def __init__(self, wanted: bool) -> None:
        self.shown = wanted and sys.stderr.isatty()
        self.files: Sequence[Path] = ()
        self.seconds: dict[Path, float] = {}  # of each file
        self.part = self.computed = self.left_out = self.opened = self.began = self.drawn = 0.0
        self.number = self.width = 0
        self.stage, self.current = "", Path()

    def start(self, files: Sequence[Path]) -> None:
        """Begin with a run over files; another thread finds out how long they are."""
        self.files, self.opened = files, time.monotonic()
        if len(files) == 1:
            self.seconds[files[0]] = 1.0
        elif self.shown:
            threading.Thread(target=self._measure_files, daemon=True).start()

    def _measure_files(self) -> None:
        for path in self.files:
            if self.shown:
                self.seconds[path] = 0.0
                with suppress(Exception):
                    reader = Reader(path)
                    self.seconds[path] = (reader.frames or 0) / reader.sample_rate

    def begin(self, path: Path) -> None:
        """Begin with one file."""
        self.current, self.part = path, 0.0
        self.began = self.began or time.monotonic()

    def end(self, path: Path, computed: bool) -> None:
        """End one file, which was computed or left out."""
        self.number, self.part = self.number + 1, 0.0
        if computed:
            self.computed += self.seconds.get(path, 0.0)
        else:
            self.left_out += self.seconds.get(path, 0.0)

    def move(self, stage: str, label: str, share: float) -> None:
        """Show that a share of a stage of the current file is done."""
        now, same = time.monotonic(), stage == self.stage
        if not self.shown or now - self.opened < PROGRESS_DELAY or (same and now - self.drawn < REDRAW_SECONDS):
            return
        self.stage, self.drawn = stage, now
        self.part = {"measuring": 0.05 * share, "separating": 0.05 + 0.95 * share}.get(stage, self.part)
        done = self.computed + self.part * self.seconds.get(self.current, 0.0)
        total = sum(list(self.seconds.values())) - self.left_out
        known = len(self.seconds) >= len(self.files) and done > 0 and total > 0
        left = f"{done / total:4.0%}  {clock((now - self.began) * max(0.0, total / done - 1))}" if known else "  0%  ?"
        count = f"file {self.number + 1} of {len(self.files)}  " if len(self.files) > 1 else ""
        text = printable(f"{left} left  {count}{stage} {label}")[: shutil.get_terminal_size().columns - 1]
        self._write(text)

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(self.width)}")
        sys.stderr.flush()
        self.width = len(text)

    def clear(self) -> None:
        """Remove the line, before something else is printed; it comes back with the next `move`."""
        if self.width:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()
            self.stage = ""

    def close(self) -> None:
        """Remove the line for good."""
        self.clear()
        self.shown = False
