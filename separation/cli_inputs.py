"""The inputs of `separate`: files, patterns, folders and standard input."""

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
from separation.cli_outputs import looks_like_output
from separation.errors import AudioError, reason

STANDARD = "-"
"""Standard input as an input, standard output as an output."""


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        path: a file, a named pipe, or - for standard input.
        label: its name in messages and in the JSON record.
        stem: the beginning of its outputs' names.
        piped: whether it can be read only once.
        error: why it cannot be used, in one sentence; None if it can.
    """

    path: Path
    label: str
    stem: str
    piped: bool = False
    error: str | None = None


def unusable(name: str | Path, error: str) -> Input:
    """An argument that cannot be used, with the reason."""
    return Input(Path(name), str(name), Path(name).stem, error=error)


class InputFinder:
    """Expands command line arguments to inputs.

    Args:
        recursive: whether to search folders.
        parts: slugs of this run's outputs. Files that look like outputs of an earlier run are left out of folders and
            patterns.
        output: output folder, which is not searched.
        notice: called with one sentence about files that are left out.
    """

    def __init__(
        self,
        recursive: bool = False,
        parts: Iterable[str] = (),
        output: Path | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.recursive, self.parts, self.notice = recursive, set(parts), notice
        self.output = os.path.realpath(output) if output else None

    def find(self, arguments: Iterable[str]) -> list[Input]:
        """All inputs in order, each once."""
        found: dict[str, Input] = {}
        for argument in arguments:
            for entry in self._expand(argument):
                found.setdefault(f"\0{entry.label}" if entry.error else os.path.realpath(entry.path), entry)
        return list(found.values())

    def _expand(self, argument: str) -> Iterator[Input]:
        path = Path(argument)
        if argument == STANDARD:
            yield Input(path, "standard input", "stdin", piped=True)
        elif os.path.isdir(path):
            yield from self._search(path)
        elif os.path.lexists(path) or not glob.has_magic(argument):
            yield inspect_file(path)
        else:
            matches = sorted(glob.glob(argument, recursive=True))
            if not matches:
                yield unusable(argument, f"{argument} matches no file.")
            for path in self._without_results(map(Path, matches), argument):
                if not path.is_dir():
                    yield inspect_file(path)
                elif self.recursive:
                    yield from self._search(path)

    def _search(self, folder: Path) -> Iterator[Input]:
        """Audio files in a folder and its subfolders, without hidden ones."""
        if not self.recursive:
            yield unusable(folder, f"{folder} is a folder. Add -r to search it and its subfolders.")
            return
        files = []
        for where, folders, names in os.walk(folder):
            kept = [name for name in sorted(folders) if not name.startswith(".")]
            folders[:] = [name for name in kept if os.path.realpath(os.path.join(where, name)) != self.output]
            paths = [Path(where, name) for name in sorted(names) if not name.startswith(".")]
            files += [path for path in paths if path.suffix.lower().lstrip(".") in READABLE | FFMPEG_SUFFIXES]
        inputs = self._without_results(files, folder)
        if not inputs:
            yield unusable(folder, f"{folder} contains no audio files.")
        yield from map(inspect_file, inputs)

    def _without_results(self, paths: Iterable[Path], where: Path | str) -> list[Path]:
        """Paths without those that an earlier run with the same queries has written."""
        files = list(paths)
        results = [path for path in files if looks_like_output(path, self.parts)]
        if results:
            self.notice(f"{where}: skipped outputs of an earlier run ({len(results)}), such as {min(results).name}.")
        return [path for path in files if path not in results]


def inspect_file(path: Path) -> Input:
    """A file as an input, after a look at whether it exists and of which kind it is."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return unusable(path, f"{path} does not exist.")
    except OSError as error:
        return unusable(path, f"{path} cannot be read: {reason(error)}.")
    except ValueError:
        return unusable(path, f"{path!s} cannot be read: the name is not valid.")
    # A named pipe, such as <(command) in a shell, can be read only once, but two passes are needed.
    return Input(path, str(path), path.stem, piped=not stat.S_ISREG(kind))


def copy_pipe(source: Input, folder: Path) -> Path:
    """Copy a piped input to a new file in `folder`, because it is read twice; return that file.

    Raises:
        AudioError: if the pipe is empty, or cannot be read or copied.
    """
    handle, name = tempfile.mkstemp(source.path.suffix, "stdin-", folder)
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
