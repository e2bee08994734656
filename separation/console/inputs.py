"""The inputs of `separate`."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from separation.audio import formats
from separation.console.options import STANDARD
from separation.errors import AudioError, reason
from separation.outputs.names import recording_stem
from separation.outputs.origins import OriginIndex, identity

NAMED = 3  # skipped files that a message names
EARLIER = "an output of an earlier run"
NOT_A_FILE = "is a socket or device, not a recording."


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        path: "-" for standard input.
        label: name in messages.
        stem: first part of its outputs' names.
        piped: whether it can be read only once.
        error: why it cannot be used, or None.
        folder: its folder within the folder that was searched.
    """

    path: Path
    label: str
    stem: str
    piped: bool = False
    error: str | None = None
    folder: Path = Path()


class InputFinder:
    """Expands command line arguments to inputs; folders are searched if `recursive`.

    In folders and patterns, outputs of earlier runs are passed over: files that are named like an output for one of the
    slugs `parts` beside its recording, files that a run has recorded as made from one of the inputs, and the folder
    `output`. `notice` is called with a sentence about all that was passed over; `passed` has the reasons by name.
    """

    def __init__(
        self,
        recursive: bool = False,
        parts: Iterable[str] = (),
        output: Path | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.recursive, self.parts, self.notice = recursive, frozenset(parts), notice
        self.output = os.path.realpath(output) if output else None
        self.passed: dict[str, str] = {}
        self.stems: dict[Path, set[str]] = {}

    def find(self, arguments: Iterable[str]) -> list[Input]:
        """Return all inputs in order, each once."""
        found: dict[str, Input] = {}
        searched: set[str] = set()
        for argument in arguments:
            path, named = Path(argument), True
            if argument == STANDARD:
                entries = [Input(path, "standard input", "stdin", piped=True)]
            elif os.path.isdir(path):
                entries, named = self._search(path), False
            elif not os.path.lexists(path) and "://" in argument:
                entries = [inspect_file(path, f"{argument} is an address: download it and name the file.")]
            elif os.path.lexists(path) or not glob.has_magic(argument):
                entries = [inspect_file(path)]
            else:
                matches, named = [Path(match) for match in sorted(glob.glob(argument, recursive=True))], False
                entries = [] if matches else [inspect_file(path, f"{argument} matches no file.")]
                for match in matches:
                    if not match.is_dir():
                        entries += self._inspect_found(match)
                    elif self.recursive:
                        entries += self._search(match)
                    else:
                        self.passed[str(match)] = "a folder; -r searches it"
            for entry in entries:
                key = f"\0{entry.label}" if entry.error else os.path.realpath(entry.path)
                searched |= set() if named or key in found else {key}
                if found.setdefault(key, entry).label != entry.label:
                    self.passed[entry.label] = f"the same file as {found[key].label}"
        origins, inputs = OriginIndex(), {identity(key) for key, entry in found.items() if not entry.error}
        for key in [key for key in found if key in searched and not found[key].error]:
            origin = origins.find(found[key].path)
            recording = identity(origin.path) if origin else ""
            if recording in inputs and recording != identity(key):
                self.passed[found.pop(key).label] = EARLIER
        if self.passed:
            names = [f"{name} ({why})" for name, why in list(self.passed.items())[:NAMED]]
            more = f" and {len(self.passed) - NAMED} more; -v names all" if len(self.passed) > NAMED else ""
            self.notice(f"passed over {len(self.passed)}: {', '.join(names)}{more}.")
        return list(found.values())

    def _search(self, folder: Path) -> list[Input]:
        """Return the audio files in a folder and its subfolders, without hidden ones."""
        if not self.recursive:
            return [inspect_file(folder, f"{folder} is a folder. Add -r to search it and its subfolders.")]

        def report(error: OSError) -> None:
            self.passed[str(error.filename)] = reason(error)

        found, suffixes = [], formats.READABLE | formats.FFMPEG_SUFFIXES
        for where, folders, names in os.walk(folder, onerror=report):
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            for path in [Path(where, name) for name in folders]:
                if path.is_symlink():
                    self.passed[str(path)] = "a link to a folder"
                elif os.path.realpath(path) == self.output:
                    folders.remove(path.name)
                    self.passed[str(path)] = "the folder of the outputs"
            for path in (Path(where, name) for name in sorted(names) if not name.startswith(".")):
                if path.suffix.lower().lstrip(".") in suffixes:
                    found += self._inspect_found(path)
                else:
                    self.passed[str(path)] = "unknown suffix"
        inputs = [replace(entry, folder=entry.path.parent.relative_to(folder)) for entry in found]
        return inputs or [inspect_file(folder, f"{folder} contains no audio files.")]

    def _inspect_found(self, path: Path) -> list[Input]:
        """Return a file in a folder or pattern as an input; pass over outputs, and what could block when opened."""
        if stem := recording_stem(path.name, self.parts):
            if path.parent not in self.stems:
                self.stems[path.parent] = {other.stem for other in path.parent.iterdir()}
            if stem in self.stems[path.parent]:
                self.passed[str(path)] = EARLIER
                return []
        entry = inspect_file(path)
        if entry.piped or entry.error == f"{path} {NOT_A_FILE}":
            self.passed[str(path)] = "a pipe, socket or device"
            return []
        return [entry]


def inspect_file(path: Path, error: str | None = None) -> Input:
    """Return a path as an input. Its kind is checked unless an `error` is known already."""
    kind = stat.S_IFREG
    try:
        kind = kind if error else path.stat().st_mode
    except FileNotFoundError:
        error = f"{path} is a link to a file that does not exist." if path.is_symlink() else f"{path} does not exist."
    except OSError as failure:
        error = f"{path} cannot be read: {reason(failure)}."
    except ValueError:
        error = f"{path!s} cannot be read: the name is not valid."
    # An open file of this process, such as /dev/stdin or /dev/fd/63, may be of any kind.
    opened = str(path) == "/dev/stdin" or path.parent in (Path("/dev/fd"), Path("/proc/self/fd"))
    if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind) or opened):
        error = f"{path} {NOT_A_FILE}"
    # A named pipe, such as <(command) in a shell, can be read only once, but two passes are needed.
    return Input(path, str(path), path.stem, not stat.S_ISREG(kind), error)


def copy_pipe(source: Input, folder: Path) -> Path:
    """Copy a piped input, which is read twice, to a file in `folder`; raise AudioError if it is empty or unreadable."""
    standard = source.path == Path(STANDARD)
    if standard and sys.stdin is None:
        raise AudioError(f"{source.label} is closed.")
    try:
        handle, name = tempfile.mkstemp(source.path.suffix, "stdin-", folder)
        with os.fdopen(handle, "wb") as copy, nullcontext() if standard else open(source.path, "rb") as pipe:
            shutil.copyfileobj(pipe or sys.stdin.buffer, copy)
            size = copy.tell()
    except OSError as error:
        raise AudioError(f"{source.label} cannot be read: {reason(error)}.") from error
    if not size:
        raise AudioError(f"{source.label} is empty: it has 0 bytes.")
    return Path(name)
