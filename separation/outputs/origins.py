"""Which recording each output was made from, kept in a hidden file of the output folder.

Outputs are named after their recording, and recordings in different folders may have one name. With this record, a
later run neither replaces the output of another recording nor takes it for its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from separation.audio.formats import READABLE

INDEX = ".separate.jsonl"  # one line of JSON for each output, in its folder; the last line for a name counts
UNKNOWN, CURRENT, OTHER = "unknown", "current", "another recording"


def identity(path: str | os.PathLike[str]) -> str:
    """Return the same text for paths that may be one file: links resolved, case and Unicode form folded."""
    return fold(os.path.realpath(path))


@dataclass(frozen=True)
class Origin:
    """A recording, and how it is processed.

    Attributes:
        path: of the recording.
        size: its bytes.
        modified: when it was last changed, in nanoseconds.
        how: digest of the options that the output depends on; "": not known.
    """

    path: Path
    size: int
    modified: int
    how: str = ""

    @classmethod
    def find(cls, path: Path) -> Origin | None:
        """Return the origin of outputs of `path`; None if it is no file."""
        with suppress(OSError):
            state = path.stat()
            return cls(path, state.st_size, state.st_mtime_ns)
        return None

    def is_same_recording(self, other: Origin) -> bool:
        """Return whether both are one file, or this one was moved and is the other now."""
        mine, others = ((each.path.name, each.size, each.modified) for each in (self, other))
        return identity(self.path) == identity(other.path) or (mine == others and not self.path.exists())


def open_index(folder: Path, flags: int) -> FileIO:
    """Open the index of a folder; raise OSError if it is a link, pipe or device."""
    extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(folder / INDEX, flags | extra, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("not a regular file")
    return FileIO(handle, "ab" if flags & os.O_APPEND else "rb")


class OriginIndex:
    """Origins of the outputs in any number of folders, each read when it is first asked for."""

    def __init__(self) -> None:
        self.folders: dict[Path, dict[str, Origin]] = {}
        self.stems: dict[Path, Counter[str]] = {}

    def find(self, output: Path) -> Origin | None:
        """Return the recorded origin of an output."""
        if output.parent not in self.folders:
            self.folders[output.parent] = dict(self._read(output.parent))
        return self.folders[output.parent].get(fold(output.name))

    def _read(self, folder: Path) -> Iterable[tuple[str, Origin]]:
        lines: list[str] = []
        with suppress(OSError), open_index(folder, os.O_RDONLY) as file:
            lines = file.read().decode("utf-8", "surrogateescape").splitlines()
        for line in lines:
            # A process may have been killed while it wrote, and anybody can write into the file.
            with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                entry: dict[str, Any] = json.loads(line)
                origin = Origin(folder / entry["input"], int(entry["size"]), int(entry["modified"]), entry["how"])
                identity(origin.path)  # a path that cannot be is a ValueError
                yield fold(entry["output"]), origin

    def compare(self, output: Path, origin: Origin | None) -> str:
        """Return UNKNOWN, CURRENT, OTHER, or half a sentence about why the output is out of date."""
        found = self.find(output) if origin else None
        if origin is None or found is None:
            return UNKNOWN
        if not found.is_same_recording(origin):
            return OTHER
        if (found.size, found.modified) != (origin.size, origin.modified):
            return f"was made before {origin.path} changed"
        return "was made with other options" if found.how and origin.how and found.how != origin.how else CURRENT

    def record(self, outputs: Iterable[Path], origin: Origin) -> None:
        """Add outputs in one write, so that several processes may share a folder; an error changes nothing."""
        for output in outputs:
            self.find(output)
            self.folders[output.parent][fold(output.name)] = origin
            with suppress(OSError, ValueError):
                recording = os.path.realpath(origin.path)
                with suppress(ValueError):  # another drive
                    recording = os.path.relpath(recording, os.path.realpath(output.parent))
                entry = {"output": output.name, "input": recording} | {
                    name: getattr(origin, name) for name in ("size", "modified", "how")
                }
                with open_index(output.parent, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
                    file.write(f"\n{json.dumps(entry)}".encode())  # after a line that another process did not finish

    def shares_name(self, recording: Path) -> bool:
        """Return whether another recording in the same folder has the same name but for its suffix."""
        folder = recording.parent
        if folder not in self.stems:
            names: list[str] = []
            with suppress(OSError):
                names = [fold(name) for name in os.listdir(folder)]
            self.stems[folder] = Counter(Path(name).stem for name in names if Path(name).suffix.lstrip(".") in READABLE)
        return self.stems[folder][fold(recording.stem)] > 1


def fold(name: str) -> str:
    """Return the same text for names that may be one file."""
    return unicodedata.normalize("NFC", name).casefold()


def digest(*options: object) -> str:
    """Return twelve digits that differ if the options do."""
    return hashlib.sha256(repr(options).encode("utf-8", "surrogatepass")).hexdigest()[:12]
