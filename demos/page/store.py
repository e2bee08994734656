"""The page's temporary folder, with everything that users send and get.

No path contains a word that a user typed: a folder's name is 128 random bits, the files in it have fixed names.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

from page.limits import Refusal
from separation import process
from separation.audio.formats import FFMPEG_SUFFIXES, READABLE

TOKEN = re.compile(r"[0-9a-f]{32}")
SUFFIXES = READABLE | FFMPEG_SUFFIXES
GONE = "This is no longer here: files are removed after a while. Please start again."


class Store:
    """Folders that are found by token and removed `keep_minutes` after their last use; `close` removes all."""

    def __init__(self, root: Path | None = None, keep_minutes: float = 60.0) -> None:
        self.root = root or Path(tempfile.mkdtemp(prefix="separation-page-"))
        process.TEMPORARY.add(self.root)
        self.keep_seconds = keep_minutes * 60
        self._closed = threading.Event()
        threading.Thread(target=self.sweep, name="sweeper", daemon=True).start()

    def new(self) -> Path:
        """Create an empty folder; its name is the token."""
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def folder(self, token: object) -> Path:
        """Return the folder of a token and mark it as used.

        Raises:
            Refusal: there is no such folder.
        """
        folder = self.root / token if isinstance(token, str) and TOKEN.fullmatch(token) else None
        if folder is None or not folder.is_dir():
            raise Refusal(GONE)
        folder.touch()
        return folder

    def upload(self, file: object) -> Path:
        """Return the path of an uploaded file that Gradio describes as {"path": ...}.

        Raises:
            Refusal: it is not a file of this page.
        """
        path = Path(str(file.get("path"))) if isinstance(file, dict) else None
        if path is None or path.parent.parent != self.root or not path.is_file():
            raise Refusal(GONE if path else "Please choose a recording first.")
        return self.folder(path.parent.name) / path.name

    def place(self, filename: str) -> Path:
        """Return a new path for an upload; of its own name, only a known suffix is kept."""
        suffix = Path(filename).suffix.lower()
        return self.new() / f"recording{suffix if suffix.lstrip('.') in SUFFIXES else ''}"

    def forget(self, token: object) -> None:
        """Remove a folder, if it exists."""
        if isinstance(token, str) and TOKEN.fullmatch(token):
            shutil.rmtree(self.root / token, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what was not used for a while, from time to time until the end."""
        while not self._closed.wait(min(60.0, self.keep_seconds / 4)):
            oldest = time.time() - self.keep_seconds
            with contextlib.suppress(OSError):  # it was removed at the same time
                for entry in list(self.root.iterdir()):
                    if entry.stat().st_mtime < oldest:
                        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove everything."""
        self._closed.set()
        process.remove(self.root)
