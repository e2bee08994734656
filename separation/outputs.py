"""The output files of a separation: their names, formats and writers; `planning.py` puts them together."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Container, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from separation.audio import Reader, Writer, formats
from separation.audio.remux import Film, FilmWriter
from separation.audio.writing import PendingFile
from separation.errors import AudioError, reason
from separation.origins import CURRENT, OTHER, UNKNOWN, Origin, OriginIndex, identity
from separation.process import make_folder, printable, remove_empty
from separation.records import Record

if TYPE_CHECKING:
    from torch import Tensor

    from separation.query import Query

NAME_BYTES = 255  # longest file name of the common file systems
SLUG_BYTES = 100
WITHOUT, REMIX, REST = "without", "remix", "rest"
"""Names of a recording without several sounds, of one in which levels were changed, and without all sounds found."""


@dataclass(frozen=True)
class Request:
    """One query and the files to write for it.

    Attributes:
        name: unique name, in file names and records.
        query: the sound to extract or change.
        target: whether the target is written.
        residual: whether the residual is written.
        gain: in dB, for a sound that is changed together with others and has no file of its own.
        rest: name of the residual's file; None: a name from the query.
    """

    name: str
    query: str | Query
    target: bool
    residual: bool
    gain: float | None = None
    rest: str | None = None


# Names


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
    """Return the longest prefix of `text` that takes at most `limit` bytes in a file name."""
    while len(os.fsencode(text)) > limit:
        text = text[:-1]
    return text


def output_name(stem: str, part: str, suffix: str, number: int = 1) -> str:
    """Return `stem.part.suffix`, or `stem.part.number.suffix` from number 2 on; a long stem is cut."""
    tail = f".{part}{suffix}" if number == 1 else f".{part}.{number}{suffix}"
    return cut_name(stem, NAME_BYTES - len(os.fsencode(tail))) + tail


def recording_stem(name: str, parts: Container[str]) -> str | None:
    """Return "mix" for a name such as mix.dog_barking.wav or mix.dog_barking.2.wav if "dog_barking" is in `parts`."""
    pieces = name.split(".")[:-1]
    if len(pieces) > 2 and pieces[-1].isdecimal():
        pieces.pop()
    return ".".join(pieces[:-1]) if len(pieces) > 1 and pieces[-1] in parts else None


class Namer:
    """Assigns unique output paths that are not inputs and hold no output of another recording.

    Args:
        inputs: files that are never overwritten.
        overwrite: whether other existing files may be.
        notice: called if a name needs a number.
        option: what messages call `overwrite`.
        skip: whether outputs that exist and are up to date are to be left alone.
    """

    def __init__(
        self,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        notice: Callable[[str], None] = lambda _: None,
        option: str = "--overwrite",
        skip: bool = False,
    ) -> None:
        self.inputs, self.overwrite, self.notice = {identity(path) for path in inputs}, overwrite, notice
        self.option, self.skip, self.origins = option, skip, OriginIndex()
        self.assigned: dict[str, int] = {}
        self.created: list[Path] = []

    def claim(self, folder: Path, stem: str, part: str, suffix: str, origin: Origin | None = None) -> Path:
        """Return `folder/stem.part.suffix`, with a number if this run has assigned that path, or it has another origin.

        An output of another recording keeps its name also if it has been removed meanwhile.
        """
        path = first = folder / output_name(stem, part, suffix)
        number, why = 1, ""
        while (used := identity(path) in self.assigned) or self.origins.compare(path, origin) == OTHER:
            why = why or ("is already the name of another output" if used else "was made from another recording")
            number = max(number, self.assigned.get(identity(path), 1)) + 1
            path = folder / output_name(stem, part, suffix, number)
        self.assigned[identity(path)] = number
        if identity(first) in self.assigned:
            self.assigned[identity(first)] = number  # where the next search begins
        if why and not (self.skip and path.exists()):
            self.notice(f"{first.name} {why}, so this one is called {path.name}.")
        return path

    def check_destination(self, path: Path, origin: Origin | None = None) -> None:
        """Create the folder of an output; raise AudioError if the output is an input, exists or cannot be written."""
        if identity(path) in self.inputs:
            raise AudioError(f"{path} would be overwritten, but it is one of the inputs.")
        if os.path.exists(path) and not self.overwrite:
            why = self.origins.compare(path, origin)
            known = why if self.skip and why not in (CURRENT, UNKNOWN) else "already exists"
            raise AudioError(f"{path} {known}. Add {self.option} to replace it.")
        try:
            self.created += make_folder(path.parent)
        except OSError as error:
            raise AudioError(f"The folder {path.parent} cannot be created: {reason(error)}.") from None

    def remove_empty_folders(self) -> None:
        """Remove folders that `check_destination` has created, as far as they are empty."""
        remove_empty(self.created)


# Formats and files


def choose_format(
    label: str,
    reader: Reader,
    name: str | None,
    subtype: str | None,
    notice: Callable[[str], None],
    bit_rate: int | None = None,
) -> tuple[formats.Format, str]:
    """Return format and sample type of the outputs: those requested, else the input's, else wav.

    Raises:
        AudioError: if the format cannot hold the audio, and was requested, or the bit rate.
    """
    size = reader.sample_rate, reader.channels
    if name:
        entry = formats.find_format(name)
        chosen = formats.find_subtype(entry, subtype)
        if why := formats.refusal(entry, chosen, *size):
            raise AudioError(f"{label} cannot be written as {entry.name}: {why}.")
    else:
        natural = formats.natural_format(reader.container, reader.subtype, reader.path.suffix)
        entry, default = natural or (formats.FORMATS["wav"], "FLOAT")
        chosen = formats.find_subtype(entry, subtype) if subtype else default
        why = formats.refusal(entry, chosen, *size)
        if why or (natural is None and reader.container is not None):
            notice(f"{label}: {why or f'{reader.container} can be read but not written'}, so its outputs are wav.")
            entry, chosen = formats.FORMATS["wav"], "FLOAT"
    if why := formats.refusal(entry, chosen, *size, bit_rate):
        raise AudioError(f"{label} cannot be written with this bit rate: {why}.")
    return entry, chosen


@dataclass
class QueryOutputs:
    """The output files of one query and one input: "target", "residual" and "picture", as far as in `paths`.

    Closing `stack` removes files that have not been committed.
    """

    request: Request
    paths: dict[str, Path]
    label: str
    reader: Reader
    frames: int
    form: tuple[formats.Format, str]
    overwrite: bool
    stack: ExitStack
    clip: str | None = None
    film: Film | None = None
    bit_rate: int | None = None
    gain: float = 1.0
    picture: PendingFile | None = None

    def __post_init__(self) -> None:
        rate, (entry, subtype) = self.reader.sample_rate, self.form
        bits = self.bit_rate
        if bits is None and subtype == self.reader.subtype and self.reader.bit_rate:
            low, high = formats.bit_rate_range(subtype, rate, self.reader.channels)
            bits = min(max(self.reader.bit_rate, low), high)
        common = (
            rate, self.reader.channels, entry.name, subtype, self.overwrite, self.frames, self.reader.channel_mask,
            self.clip, bits, self.reader.carried,
        )  # fmt: skip
        self.writers: dict[str, Writer] = {}
        for kind in (kind for kind in ("target", "residual") if kind in self.paths):
            path, part = self.paths[kind], self.request.name
            title = str(self.request.query) if self.request.rest else part if kind == "target" else f"without {part}"
            self.writers[kind] = (
                FilmWriter(path, self.film, self.reader, self.overwrite, self.clip, title)
                if self.film
                else Writer(path, *common, title)
            )
            self.stack.callback(self.writers[kind].discard)
        if "picture" in self.paths:
            from separation.plot import Spectrogram

            self.picture = PendingFile(self.paths["picture"], self.overwrite)
            self.stack.callback(self.picture.discard)
            rest = self.request.rest
            panels = {"target": "removed" if rest else "target", "residual": rest or "residual"}
            if rest == REMIX:  # a picture of the changes of all sounds together is hard to read
                del panels["target"]
            self.panels = {"mixture": "mixture", **panels}
            self.spectra = {kind: Spectrogram(rate, self.frames) for kind in self.panels}

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
        """Largest absolute sample of files that are scaled down to full scale; 0 for others."""
        return max((writer.peak for writer in self.writers.values() if writer.spooled), default=0.0)

    def finish(self, peak: float) -> list[PendingFile]:
        """Complete all files under their temporary names and return them, ready to commit.

        If `peak`, over all files that add up to the input, exceeds full scale, all are divided by it.
        """
        self.gain = 1.0 / max(1.0, peak)
        for writer in self.writers.values():
            writer.gain = self.gain
            writer.finish()
        files = [writer.pending for writer in self.writers.values()]
        if self.picture:
            from separation.plot import draw

            panels = {self.panels[kind]: spectrum.decibels() for kind, spectrum in self.spectra.items()}
            name = printable(Path(self.label).name)
            title = f"{name}: {self.request.query}" if self.request.rest else f"“{self.request.name}” in {name}"
            with self.picture.explained(), open(self.picture.temporary, "wb") as file:
                draw(file, panels, title, self.frames / self.reader.sample_rate, self.spectra["mixture"].edges)
            self.picture.finish()
            files.append(self.picture)
        return files

    def report(self, record: Record, presence: float | None) -> None:
        """Add the files, the gain, what they do not carry and, unless it is None, the presence to the record."""
        name, paths = self.request.name, {kind: str(path) for kind, path in self.paths.items()}
        if presence is not None:
            record.enter_presence(name, presence)
        if self.gain != 1.0:
            record.scale[name] = self.gain
        loudest = max((writer.peak for writer in self.writers.values()), default=0.0)
        if self.gain == 1.0 and loudest > 1.0 and (self.clip or self.request.rest):
            path, excess = paths.get("residual", paths.get("target")), 20 * math.log10(loudest)
            cut = self.clip == "clamp" or any(writer.limited for writer in self.writers.values())
            advice = "peaks were clipped" if cut else "players may clip its peaks (--clip rescale turns it down)"
            record.warnings.append(f"{path} exceeds full scale by {excess:.2f} dB: {advice}.")
        for kind, entries in (("target", record.targets), ("residual", record.residuals)):
            if kind in paths:
                record.outputs.append(paths[kind])
                if self.request.rest is None:
                    entries[name] = paths[kind]
        if self.request.rest == REMIX:
            record.remix = paths["residual"]
        elif "residual" in paths and not self.request.target:
            removed = set(record.residuals) - set(record.targets)
            record.rest = paths["residual"] if self.request.rest or len(removed) == 1 else None
        record.plots += [paths["picture"]] if "picture" in paths else []
        if (left_out := self.reader.carried.warning) and left_out not in record.warnings:
            record.warnings.append(left_out)


def blend_of(requests: Iterable[Request]) -> list[Request]:
    """Return the request for the file that requests with gains share: a remix, or the input without their sounds."""
    gains = [(request.name, request.gain) for request in requests if request.gain is not None]
    if any(gain > -math.inf for _, gain in gains):
        title = ", ".join(f"{name} {gain:+g} dB" for name, gain in gains)
        return [Request(REMIX, title, False, True, rest=REMIX)]
    title = f"without {', '.join(name for name, _ in gains)}"
    return [Request(WITHOUT, title, False, True, rest=WITHOUT)] if gains else []
