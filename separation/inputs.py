"""What the command line names, as a list of files: paths, globs, folders, and standard input."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from separation.audio.formats import FFMPEG_SUFFIXES, READABLE
from separation.errors import AudioError, reason
from separation.naming import looks_like_output

STANDARD = "-"
"""Standard input as an input, standard output as an output."""


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        path: what the user called it, or the file that holds what came through a pipe.
        label: what messages call it.
        stem: what its outputs' names begin with.
        piped: whether it came through a pipe and `path` is a temporary copy.
    """

    path: Path
    label: str
    stem: str
    piped: bool = False


@dataclass(frozen=True)
class Unusable:
    """An argument that names nothing that can be read, and why in one sentence."""

    label: str
    error: str


class Finder:
    """Turns arguments into sources.

    Args:
        recursive: whether folders are searched.
        parts: slugs of this run's outputs; files in folders that look like earlier results are left
            out.
        output: the output folder, which is never searched.
        notice: is told, in one sentence, what was left out.
    """

    def __init__(
        self,
        recursive: bool = False,
        parts: Iterable[str] = (),
        output: Path | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.recursive = recursive
        self.parts = set(parts)
        self.output = os.path.realpath(output) if output else None
        self.notice = notice

    def find(self, arguments: Iterable[str]) -> list[Source | Unusable]:
        """All inputs in order, each once."""
        seen: set[str] = set()
        found: list[Source | Unusable] = []
        for entry in (entry for argument in arguments for entry in self._expand(argument)):
            key = os.path.realpath(entry.path) if isinstance(entry, Source) else f"\0{entry.label}"
            if key not in seen:
                seen.add(key)
                found.append(entry)
        return found

    def _expand(self, argument: str) -> Iterator[Source | Unusable]:
        path = Path(argument)
        if argument == STANDARD:
            yield Source(Path(STANDARD), "standard input", "stdin", piped=True)
        elif os.path.isdir(path):
            yield from self._folder(path)
        elif os.path.lexists(path) or not glob.has_magic(argument):
            yield self._file(path)
        else:
            yield from self._pattern(argument)

    def _file(self, path: Path) -> Source | Unusable:
        try:
            kind = path.stat().st_mode
        except FileNotFoundError:
            return Unusable(str(path), f"{path} does not exist.")
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else "the name is not one"
            return Unusable(str(path), f"{path} cannot be read: {why}.")
        # A fifo (such as <(command) in a shell) can be read once only, and two passes are needed.
        return Source(path, str(path), path.stem, piped=not stat.S_ISREG(kind))

    def _pattern(self, pattern: str) -> Iterator[Source | Unusable]:
        matches = sorted(glob.glob(pattern, recursive=True))
        if not matches:
            yield Unusable(pattern, f"{pattern} matches no file.")
        for path in self._without_results(map(Path, matches), pattern):
            if not path.is_dir():
                yield self._file(path)
            elif self.recursive:
                yield from self._folder(path)

    def _folder(self, folder: Path) -> Iterator[Source | Unusable]:
        if not self.recursive:
            yield Unusable(str(folder), f"{folder} is a folder; -r goes through it and its subfolders.")
            return
        inputs = self._without_results(self._walk(folder), folder)
        if not inputs:
            yield Unusable(str(folder), f"{folder} holds no audio files.")
        yield from (self._file(path) for path in inputs)

    def _without_results(self, paths: Iterable[Path], where: Path | str) -> list[Path]:
        """Files that were found, without those that an earlier run of these queries has made."""
        files = list(paths)
        results = {path for path in files if looks_like_output(path, self.parts)}
        if results:
            first = min(results).name
            self.notice(f"{where}: left out {len(results)} that look like earlier results, such as {first}.")
        return [path for path in files if path not in results]

    def _walk(self, folder: Path) -> Iterator[Path]:
        known = READABLE | FFMPEG_SUFFIXES
        for where, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not self._skipped(Path(where, name)))
            for name in sorted(names):
                path = Path(where, name)
                if path.suffix.lower().lstrip(".") in known and not name.startswith("."):
                    yield path

    def _skipped(self, folder: Path) -> bool:
        return folder.name.startswith(".") or os.path.realpath(folder) == self.output


def spool(source: Source, folder: Path) -> Path:
    """Copies what comes through a pipe into a file, because it is read twice; returns that file.

    Raises:
        AudioError: when nothing came, or it cannot be kept.
    """
    handle, name = tempfile.mkstemp(prefix="stdin-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as copy:
            if source.path == Path(STANDARD):
                shutil.copyfileobj(sys.stdin.buffer, copy)
            else:
                with open(source.path, "rb") as pipe:
                    shutil.copyfileobj(pipe, copy)
            size = copy.tell()
    except OSError as error:
        raise AudioError(f"{source.label} cannot be read: {reason(error)}.") from error
    if not size:
        raise AudioError(f"{source.label} is empty: it has 0 bytes.")
    return Path(name)
