"""The output files of a separation: their names, their formats, and their writers."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio import Reader, Writer, formats
from separation.audio.remux import Film, FilmWriter
from separation.audio.writing import PendingFile, commit
from separation.errors import AudioError, reason
from separation.process import printable

if TYPE_CHECKING:
    from torch import Tensor

    from separation.query import Query
    from separation.results import FileSeparation

NAME_BYTES = 255  # longest file name of the common file systems
SLUG_BYTES = 100
WITHOUT, REMIX = "without", "remix"
"""Names of a recording without several sounds, and of one in which levels were changed."""
SEPARATED = ("outputs", "targets", "residuals", "plots", "presence", "verdict", "sounding", "hints", "scale")


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
    remix: str | None = None
    skipped: bool = False
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields of a separation, of a list of sounds, or of both for --all."""
        hidden = {"heard"} if self.heard is None else set() if self.rest else set(SEPARATED)
        hidden |= {name for name in ("rest", "remix") if getattr(self, name) is None}
        hidden -= {"plots"} if self.plots else set()
        hidden |= set() if self.skipped else {"skipped"}
        return {name: value for name, value in vars(self).items() if name not in hidden}

    def enter_presence(self, name: str, presence: float) -> None:
        """Set presence and verdict of a query."""
        from separation.presence import presence_word

        self.presence[name] = None if math.isnan(presence) else round(presence, 4)
        self.verdict[name] = presence_word(presence)


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


def looks_like_output(path: Path, parts: set[str]) -> bool:
    """Return whether a file is named like an output for one of these slugs: mix.dog_barking.wav beside a mix.*."""
    pieces = path.name.split(".")[:-1]
    if len(pieces) > 2 and pieces[-1].isdecimal():
        pieces.pop()
    if len(pieces) < 2 or pieces[-1] not in parts:
        return False
    stem = ".".join(pieces[:-1])
    return any(other.stem == stem and other != path for other in path.parent.iterdir())


class Namer:
    """Assigns unique output paths that are not inputs.

    `notice` is called if a name needs a number; `option` is what messages call `overwrite`.
    """

    def __init__(
        self,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        notice: Callable[[str], None] = lambda _: None,
        option: str = "--overwrite",
    ) -> None:
        self.inputs, self.overwrite, self.notice = {identity(path) for path in inputs}, overwrite, notice
        self.option = option
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
        if os.path.exists(path) and not self.overwrite:
            raise AudioError(f"{path} already exists. Add {self.option} to replace it.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"The folder {path.parent} cannot be created: {reason(error)}.") from None


def identity(path: Path) -> str:
    """Return the same text for paths that may be one file: links resolved, case and Unicode form folded."""
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


# Formats and files


def choose_format(
    label: str, reader: Reader, name: str | None, subtype: str | None, notice: Callable[[str], None]
) -> tuple[formats.Format, str]:
    """Return format and sample type of the outputs: those requested, else the input's, else wav.

    Raises:
        AudioError: if the requested format cannot hold the audio.
    """
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
    requests: Iterable[Request], folder: Path, stem: str, suffixes: Iterable[str], plot: bool, namer: Namer
) -> list[dict[str, Path]]:
    """Return the output paths of each request, by kind of file; each request has its suffix."""
    plans = []
    for request, suffix in zip(requests, suffixes, strict=True):
        part = slug(request.name)
        rest = request.rest or f"not_{part}"
        wanted = {
            "target": (request.target, part, suffix),
            "residual": (request.residual, rest, suffix),
            "picture": (plot, part if request.target else rest, ".png"),
        }
        plans.append({kind: namer.claim(folder, stem, *names) for kind, (yes, *names) in wanted.items() if yes})
    return plans


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
    gain: float = 1.0
    picture: PendingFile | None = None

    def __post_init__(self) -> None:
        rate, (entry, subtype) = self.reader.sample_rate, self.form
        common = (
            rate, self.reader.channels, entry.name, subtype, self.overwrite, self.frames, self.reader.channel_mask,
            self.clip,
        )  # fmt: skip
        self.writers: dict[str, Writer] = {}
        for kind in (kind for kind in ("target", "residual") if kind in self.paths):
            path, part = self.paths[kind], self.request.name
            title = part if kind == "target" or self.request.rest else f"without {part}"
            self.writers[kind] = (
                FilmWriter(path, self.film, self.reader, self.overwrite, self.clip, title)
                if self.film
                else Writer(path, *common)
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
        """Add the files, the gain and, unless it is None, the presence to the record."""
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


def blend_of(requests: Iterable[Request]) -> list[Request]:
    """Return the request for the file that requests with gains share: a remix, or the input without their sounds."""
    gains = {request.name: request.gain for request in requests if request.gain is not None}
    if any(gain > -math.inf for gain in gains.values()):
        title = ", ".join(f"{name} {gain:+g} dB" for name, gain in gains.items())
        return [Request(REMIX, title, False, True, rest=REMIX)]
    return [Request(WITHOUT, f"without {', '.join(gains)}", False, True, rest=WITHOUT)] if gains else []


def write_outputs(file: FileSeparation, outputs: Sequence[QueryOutputs], add_up: bool = False) -> None:
    """Write a separation to its files. Either all appear at the end or none.

    If the files `add_up` to the mixture, the last output is the residual of all targets.
    """
    for mixture, targets in file:
        for output, target in zip(outputs, targets, strict=False):
            output.write(mixture, target)
        if add_up:
            outputs[-1].write(mixture, mixture - targets.sum(0))
    peaks = [output.peak for output in outputs]
    if add_up:
        peaks = [max(peaks)] * len(peaks)
    commit([pending for output, peak in zip(outputs, peaks, strict=True) for pending in output.finish(peak)])
