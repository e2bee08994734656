"""The files of `separate`: its inputs, the names of its outputs, and their writers."""

from __future__ import annotations

import glob
import math
import os
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio import Reader, Writer, formats
from separation.audio.writing import PendingFile
from separation.cli_options import STANDARD, Request
from separation.errors import AudioError, reason

if TYPE_CHECKING:
    from torch import Tensor

NAME_BYTES = 255  # longest file name of the common file systems
SLUG_BYTES = 100
SEPARATED = ("outputs", "targets", "residuals", "plots", "presence", "verdict", "sounding", "hints", "scale")

# Inputs


@dataclass(frozen=True)
class Input:
    """One input: its path (- for standard input), name in messages, stem of its outputs' names, whether it can be read
    only once (a pipe), and why it cannot be used, if it cannot.
    """

    path: Path
    label: str
    stem: str
    piped: bool = False
    error: str | None = None


class InputFinder:
    """Expands command line arguments to inputs; folders are searched if `recursive`.

    Files that look like outputs of an earlier run with the same slugs (`parts`), and the folder `output`, are left out
    of folders and patterns; `notice` is told so.
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
            path = Path(argument)
            if argument == STANDARD:
                entries = [Input(path, "standard input", "stdin", piped=True)]
            elif os.path.isdir(path):
                entries = self._search(path)
            elif os.path.lexists(path) or not glob.has_magic(argument):
                entries = [inspect_file(path)]
            else:
                matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
                entries = [] if matches else [inspect_file(path, f"{argument} matches no file.")]
                for match in self._without_results(matches, argument):
                    if not match.is_dir():
                        entries.append(inspect_file(match))
                    elif self.recursive:
                        entries += self._search(match)
            for entry in entries:
                found.setdefault(f"\0{entry.label}" if entry.error else os.path.realpath(entry.path), entry)
        return list(found.values())

    def _search(self, folder: Path) -> list[Input]:
        """Audio files in a folder and its subfolders, without hidden ones."""
        if not self.recursive:
            return [inspect_file(folder, f"{folder} is a folder. Add -r to search it and its subfolders.")]
        files, suffixes = [], formats.READABLE | formats.FFMPEG_SUFFIXES
        for where, folders, names in os.walk(folder):
            kept = [name for name in sorted(folders) if not name.startswith(".")]
            folders[:] = [name for name in kept if os.path.realpath(os.path.join(where, name)) != self.output]
            paths = [Path(where, name) for name in sorted(names) if not name.startswith(".")]
            files += [path for path in paths if path.suffix.lower().lstrip(".") in suffixes]
        inputs = [inspect_file(path) for path in self._without_results(files, folder)]
        return inputs or [inspect_file(folder, f"{folder} contains no audio files.")]

    def _without_results(self, files: list[Path], where: Path | str) -> list[Path]:
        """Paths without those that an earlier run with the same queries has written."""
        results = {path for path in files if looks_like_output(path, self.parts)}
        if results:
            self.notice(f"{where}: skipped outputs of an earlier run ({len(results)}), such as {min(results).name}.")
        return [path for path in files if path not in results]


def inspect_file(path: Path, error: str | None = None) -> Input:
    """A file as an input, after a look at whether it exists and of which kind it is, unless it has an `error`."""
    kind = stat.S_IFREG
    try:
        kind = kind if error else path.stat().st_mode
    except FileNotFoundError:
        error = f"{path} does not exist."
    except OSError as failure:
        error = f"{path} cannot be read: {reason(failure)}."
    except ValueError:
        error = f"{path!s} cannot be read: the name is not valid."
    # A named pipe, such as <(command) in a shell, can be read only once, but two passes are needed.
    return Input(path, str(path), path.stem, not stat.S_ISREG(kind), error)


def copy_pipe(source: Input, folder: Path) -> Path:
    """Copy a piped input, which is read twice, to a file in `folder`; raise AudioError if it is empty or unreadable."""
    handle, name = tempfile.mkstemp(source.path.suffix, "stdin-", folder)
    standard = source.path == Path(STANDARD)
    try:
        with os.fdopen(handle, "wb") as copy, nullcontext() if standard else open(source.path, "rb") as pipe:
            shutil.copyfileobj(pipe or sys.stdin.buffer, copy)
            size = copy.tell()
    except OSError as error:
        raise AudioError(f"{source.label} cannot be read: {reason(error)}.") from error
    if not size:
        raise AudioError(f"{source.label} is empty: it has 0 bytes.")
    return Path(name)


# Names of outputs


def slug(query: str) -> str:
    """Convert a query to a part of a file name: lower case, letters and digits of any script, words joined by "_".

    A query without letters and digits becomes "query"; a long one is cut after a word.
    """
    text = unicodedata.normalize("NFC", query).lower()
    # Marks (M) are parts of letters in many scripts.
    words = "".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in text).split()
    while len("_".join(words).encode()) > SLUG_BYTES and len(words) > 1:
        words.pop()
    return cut_name("_".join(words), SLUG_BYTES) or "query"


def cut_name(text: str, limit: int) -> str:
    """The longest beginning of `text` that takes at most `limit` bytes in a file name."""
    while len(os.fsencode(text)) > limit:
        text = text[:-1]
    return text


def output_name(stem: str, part: str, suffix: str, number: int = 1) -> str:
    """`stem.part.suffix`, or `stem.part.number.suffix` from the second on; a stem that is too long is cut."""
    tail = f".{part}{suffix}" if number == 1 else f".{part}.{number}{suffix}"
    return cut_name(stem, NAME_BYTES - len(os.fsencode(tail))) + tail


def looks_like_output(path: Path, parts: set[str]) -> bool:
    """Whether a file is named like an earlier output of these slugs: mix.dog_barking.wav beside some mix.*."""
    pieces = path.name.split(".")[:-1]
    if len(pieces) > 2 and pieces[-1].isdecimal():
        pieces.pop()
    if len(pieces) < 2 or pieces[-1] not in parts:
        return False
    stem = ".".join(pieces[:-1])
    return any(other.stem == stem and other != path for other in path.parent.iterdir())


class Namer:
    """Assigns output paths, each only once and none that is an input; `notice` is told when a name needs a number."""

    def __init__(
        self, inputs: Iterable[Path] = (), overwrite: bool = False, notice: Callable[[str], None] = lambda _: None
    ) -> None:
        self.inputs, self.overwrite, self.notice = {identity(path) for path in inputs}, overwrite, notice
        self.assigned: set[str] = set()

    def claim(self, folder: Path, stem: str, part: str, suffix: str) -> Path:
        """Return `folder/stem.part.suffix`, with a number if this run has assigned that path already."""
        number, path = 1, folder / output_name(stem, part, suffix)
        while identity(path) in self.assigned:
            number += 1
            path = folder / output_name(stem, part, suffix, number)
        self.assigned.add(identity(path))
        if number > 1:
            first = output_name(stem, part, suffix)
            self.notice(f"{first} is already the name of another output, so this one is called {path.name}.")
        return path

    def check_destination(self, path: Path) -> None:
        """Create the folder of an output; raise AudioError if the output is an input, exists or cannot be written."""
        if identity(path) in self.inputs:
            raise AudioError(f"{path} would be overwritten, but it is one of the inputs.")
        if path.exists() and not self.overwrite:
            raise AudioError(f"{path} already exists. Add --overwrite to replace it.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"The folder {path.parent} cannot be created: {reason(error)}.") from None


def identity(path: Path) -> str:
    """The same text for two paths that are one file on some file system: links resolved, case and accents folded."""
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


# Outputs


@dataclass
class Record:
    """The result for one input. `as_json` is the line that --json prints."""

    input: str
    outputs: list[str] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    residuals: dict[str, str] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)
    presence: dict[str, float | None] = field(default_factory=dict)
    verdict: dict[str, str | None] = field(default_factory=dict)
    sounding: list[str] = field(default_factory=list)
    hints: list[dict[str, Any]] = field(default_factory=list)
    scale: dict[str, float] = field(default_factory=dict)
    duration: float | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    heard: list[dict[str, Any]] | None = None
    rest: str | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields of a separation, those of a list of sounds, or both if everything listed is separated."""
        hidden = {"heard", "rest"} if self.heard is None else set() if self.rest else {*SEPARATED, "rest"}
        hidden -= {"plots"} if self.plots else set()
        return {name: value for name, value in vars(self).items() if name not in hidden}


def choose_format(
    label: str, reader: Reader, name: str | None, subtype: str | None, notice: Callable[[str], None]
) -> tuple[formats.Format, str]:
    """Format and sample type of an input's outputs: the requested ones (AudioError if impossible), its own, or wav."""
    if name:
        entry = formats.find_format(name)
        chosen = formats.find_subtype(entry, subtype)
        if why := formats.refusal(entry, chosen, reader.sample_rate, reader.channels):
            raise AudioError(f"{label} cannot be written as {entry.name}: {why}.")
        return entry, chosen
    natural = formats.natural_format(reader.container, reader.subtype, reader.path.suffix)
    entry, default = natural or (formats.FORMATS["wav"], "FLOAT")
    chosen = formats.find_subtype(entry, subtype) if subtype else default
    why = formats.refusal(entry, chosen, reader.sample_rate, reader.channels)
    if why or (natural is None and reader.container is not None):
        notice(f"{label}: {why or f'{reader.container} can be read but not written'}, so its outputs are wav.")
        return formats.FORMATS["wav"], "FLOAT"
    return entry, chosen


def plan_paths(
    requests: Iterable[Request], folder: Path, stem: str, suffix: str, plot: bool, namer: Namer
) -> list[dict[str, Path]]:
    """Output paths of every request on one input, by kind of file; raise AudioError if one is taken."""
    plans = []
    for request in requests:
        part = slug(request.name)
        rest = f"not_{part}"
        wanted = {
            "target": (request.target, part, suffix),
            "residual": (request.residual, rest, suffix),
            "picture": (plot, part if request.target else rest, ".png"),
        }
        plans.append({kind: namer.claim(folder, stem, *names) for kind, (yes, *names) in wanted.items() if yes})
    for path in (path for paths in plans for path in paths.values()):
        namer.check_destination(path)
    return plans


@dataclass
class QueryOutputs:
    """The output files of one query on one input: those of "target", "residual" and "picture" that are in `paths`.

    Closing `stack` removes whatever has not been committed.
    """

    request: Request
    paths: dict[str, Path]
    label: str
    reader: Reader
    frames: int
    form: tuple[formats.Format, str]
    overwrite: bool
    stack: ExitStack
    gain: float = 1.0
    picture: PendingFile | None = None

    def __post_init__(self) -> None:
        rate, (entry, subtype) = self.reader.sample_rate, self.form
        common = (rate, self.reader.channels, entry.name, subtype, self.overwrite, self.frames)
        self.writers: dict[str, Writer] = {}
        for kind in (kind for kind in ("target", "residual") if kind in self.paths):
            self.writers[kind] = Writer(self.paths[kind], *common)
            self.stack.callback(self.writers[kind].discard)
        if "picture" in self.paths:
            from separation.plot import Spectrogram

            self.picture = PendingFile(self.paths["picture"], self.overwrite)
            self.stack.callback(self.picture.discard)
            self.spectra = {kind: Spectrogram(rate, self.frames) for kind in ("mixture", "target", "residual")}

    def write(self, mixture: Tensor, target: Tensor) -> None:
        """Append samples (channels, time) of both; the residual is their difference."""
        signals = {"mixture": mixture, "target": target, "residual": mixture - target}
        for kind, writer in self.writers.items():
            writer.write(signals[kind])
        if self.picture:
            for kind, spectrum in self.spectra.items():
                spectrum.push(signals[kind])

    @property
    def peak(self) -> float:
        """Largest sample of a format that ends at full scale, 0 for other formats."""
        return max((writer.peak for writer in self.writers.values() if writer.limited), default=0.0)

    def finish(self, peak: float) -> list[PendingFile]:
        """Complete all files under their temporary names and return them, ready to commit.

        If the peak, that of all files that add up to the input, exceeds full scale, they are turned down by one factor.
        """
        self.gain = 1.0 / max(1.0, peak)
        for writer in self.writers.values():
            writer.gain = self.gain
            writer.finish()
        files = [writer.pending for writer in self.writers.values()]
        if self.picture:
            from separation.plot import draw

            panels = {kind: spectrum.decibels() for kind, spectrum in self.spectra.items()}
            title = f"“{self.request.name}” in {Path(self.label).name}"
            with self.picture.explained(), open(self.picture.temporary, "wb") as file:
                draw(file, panels, title, self.frames / self.reader.sample_rate, self.spectra["mixture"].edges)
            self.picture.finish()
            files.append(self.picture)
        return files

    def report(self, record: Record, presence: float) -> None:
        """Enter the files, the presence and the gain into the record."""
        from separation.stream import presence_word

        name, paths = self.request.name, {kind: str(path) for kind, path in self.paths.items()}
        record.presence[name] = None if math.isnan(presence) else round(presence, 4)
        record.verdict[name] = presence_word(presence)
        if self.gain != 1.0:
            record.scale[name] = self.gain
        for kind, entries in (("target", record.targets), ("residual", record.residuals)):
            if kind in paths:
                entries[name] = paths[kind]
                record.outputs.append(paths[kind])
        record.plots += [paths["picture"]] if "picture" in paths else []
