"""The page's temporary folder: everything people send and get lies in it, under names that nobody can guess.

No path holds a word that a person typed: a folder is 128 random bits, a file in it has a fixed name.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

from page.limits import Refusal
from separation.audio.formats import FFMPEG_SUFFIXES, READABLE

TOKEN = re.compile(r"[0-9a-f]{32}")
SUFFIXES = READABLE | FFMPEG_SUFFIXES
GONE = "This is no longer here: files are removed after a while. Please start again."


class Store:
    """Folders that are handed out by token and removed when they are no longer used.

    Args:
        root: where; a new temporary folder, removed by `close`, when not given.
        keep_minutes: how long a folder outlives its last use.
    """

    def __init__(self, root: Path | None = None, keep_minutes: float = 60.0) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="separation-page-")) if root is None else root
        self.keep_seconds = keep_minutes * 60
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_often, name="sweeper", daemon=True)
        self._sweeper.start()

    def new(self) -> Path:
        """An empty folder; its name is the token."""
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def folder(self, token: object) -> Path:
        """The folder of a token, which counts as used now.

        Raises:
            Refusal: there is none.
        """
        folder = self.root / token if isinstance(token, str) and TOKEN.fullmatch(token) else None
        if folder is None or not folder.is_dir():
            raise Refusal(GONE)
        folder.touch()
        return folder

    def recording(self, file: object) -> Path:
        """The path of an upload as Gradio describes it ({"path": ...}).

        Raises:
            Refusal: it is none of this page's files.
        """
        path = Path(str(file.get("path"))) if isinstance(file, dict) else None
        if path is None or path.parent.parent != self.root or not path.is_file():
            raise Refusal(GONE if path else "Please choose a recording first.")
        return self.folder(path.parent.name) / path.name

    def place(self, filename: str) -> Path:
        """Where an upload is put; only a known suffix is kept of its own name."""
        suffix = Path(filename).suffix.lower()
        return self.new() / f"recording{suffix if suffix.lstrip('.') in SUFFIXES else ''}"

    def forget(self, token: object) -> None:
        """Removes a folder, if it is there."""
        if isinstance(token, str) and TOKEN.fullmatch(token):
            shutil.rmtree(self.root / token, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what has not been used for a while."""
        oldest = time.time() - self.keep_seconds
        for entry in list(self.root.iterdir()):
            if entry.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)

    def _sweep_often(self) -> None:
        while not self._closed.wait(min(60.0, self.keep_seconds / 4)):
            try:
                self.sweep()
            except OSError:
                continue  # somebody else removed it first

    def close(self) -> None:
        """Removes everything."""
        self._closed.set()
        shutil.rmtree(self.root, ignore_errors=True)
