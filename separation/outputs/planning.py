"""Planning and writing of the output files of one input, for the command and for Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from separation.audio import Reader, Writer, formats
from separation.audio.remux import Film, FilmWriter, plan_films
from separation.audio.writing import PendingFile, commit
from separation.errors import AudioError
from separation.outputs.names import REMIX, REST, Namer, Request, slug
from separation.outputs.origins import CURRENT, UNKNOWN, Origin, digest
from separation.outputs.records import Record, decibels
from separation.process import printable, remove_leftovers

if TYPE_CHECKING:
    from torch import Tensor

    from separation.inference.results import FileSeparation


@dataclass(frozen=True)
class OutputOptions:
    """How outputs are written.

    Attributes:
        format: name of a format; None: as the input, if possible.
        subtype: sample type; None: the format's default.
        bit_rate: of mp3, Vorbis, Opus and films in bits per second; None: as the input.
        clip: one of `formats.CLIPS`.
        sound_only: whether no film is written.
        plot: whether spectrograms are drawn.
    """

    format: str | None = None
    subtype: str | None = None
    bit_rate: int | None = None
    clip: str | None = None
    sound_only: bool = False
    plot: bool = False


class OutputPlan:
    """The files that are written for one input: their format and names, and from which recording they come.

    Args:
        label: the input's name in messages.
        reader: of the input.
        requests: what is written.
        options: how.
        namer: assigns the names.

    Attributes:
        paths: of each request, by kind of file.
        origins: of each request; None: not known.

    Raises:
        AudioError: if the requested format or the container cannot hold the sound.
    """

    def __init__(
        self, label: str, reader: Reader, requests: Sequence[Request], options: OutputOptions, namer: Namer
    ) -> None:
        self.label, self.reader, self.requests, self.options, self.namer = label, reader, requests, options, namer
        self.films: list[Film | None] = [None] * len(requests)
        if not (options.format or options.sound_only):
            targets = [request.target for request in requests]
            self.films = plan_films(label, reader, targets, options.bit_rate, namer.notice)
        bits = None if all(self.films) else options.bit_rate
        self.form = choose_format(label, reader, options.format, options.subtype, namer.notice, bits)
        self.paths: list[dict[str, Path]] = []
        self.origins: list[Origin | None] = [None] * len(requests)

    def claim_paths(self, folder: Path, stem: str, recording: Path | None, how: object = None) -> None:
        """Claim a path for each file.

        Args:
            folder: of the outputs.
            stem: first part of their names.
            recording: the input; None: it was piped.
            how: options that samples depend on, besides those of the plan; None: not known.
        """
        if recording and (origin := Origin.find(recording)):
            options = self.options.subtype, self.options.bit_rate, self.options.clip, how
            asked = [(each.query, each.gain, each.rest, *options) for each in self.requests]
            digests = [digest(*each) if how is not None else "" for each in asked]
            self.origins = [replace(origin, how=each) for each in digests]
        for request, film, each in zip(self.requests, self.films, self.origins, strict=True):
            part, suffix = slug(request.name), (film.form if film else self.form)[0].suffix
            rest = request.rest or f"not_{part}"
            wanted = {
                "target": (request.target, part, suffix),
                "residual": (request.residual, rest, suffix),
                "picture": (self.options.plot, part if request.target else rest, ".png"),
            }
            claim = partial(self.namer.claim, folder, stem, origin=each)
            self.paths.append({kind: claim(*names) for kind, (yes, *names) in wanted.items() if yes})

    def is_done(self) -> bool:
        """Return whether all files exist and, as far as is known, are what would be written again.

        What killed processes have left beside them is removed.
        """
        for folder in {path.parent for paths in self.paths for path in paths.values()}:
            remove_leftovers(folder)
        return all(
            path.is_file() and self.namer.origins.compare(path, origin) in (CURRENT, UNKNOWN)
            for paths, origin in zip(self.paths, self.origins, strict=True)
            for path in paths.values()
        )

    def check(self) -> None:
        """Create the folders; raise AudioError if a file is an input, exists or cannot be written."""
        for paths, origin in zip(self.paths, self.origins, strict=True):
            for path in paths.values():
                self.namer.check_destination(path, origin)

    def open(self, frames: int, stack: ExitStack) -> list[QueryOutputs]:
        """Open all files under temporary names; closing `stack` removes those that were not finished."""
        each = zip(self.requests, self.paths, self.films, strict=True)
        return [QueryOutputs(self, request, paths, film, frames, stack) for request, paths, film in each]

    def finish(self, outputs: Sequence[QueryOutputs], add_up: bool = False, record: bool = True) -> None:
        """Complete all files; either all appear or none. With `record`, note from which recording they come."""
        peaks = [output.peak for output in outputs]
        if add_up:
            peaks = [max(peaks)] * len(peaks)
        commit([pending for output, peak in zip(outputs, peaks, strict=True) for pending in output.finish(peak)])
        for paths, origin in zip(self.paths, self.origins, strict=True):
            if origin and (record or self.namer.origins.shares_name(self.reader.path)):
                self.namer.origins.record(paths.values(), origin)


def fill_outputs(file: FileSeparation, outputs: Sequence[QueryOutputs], add_up: bool = False) -> None:
    """Separate, and write the samples to the temporary files of the outputs.

    If the files `add_up` to the mixture, the last output is the residual of all targets.
    """
    for mixture, targets in file:
        for output, target in zip(outputs, targets, strict=False):
            output.write(mixture, target)
        if add_up:
            outputs[-1].write(mixture, mixture - targets.sum(0))


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

    plan: OutputPlan
    request: Request
    paths: dict[str, Path]
    film: Film | None
    frames: int
    stack: ExitStack
    gain: float = 1.0
    energy: float = 0.0  # of the target, or what is left where that is the only file, summed over channels
    picture: PendingFile | None = None

    def __post_init__(self) -> None:
        reader, (entry, subtype), overwrite = self.plan.reader, self.plan.form, self.plan.namer.overwrite
        rate, bits, clip = reader.sample_rate, self.plan.options.bit_rate, self.plan.options.clip
        if bits is None and subtype == reader.subtype and reader.bit_rate:
            low, high = formats.bit_rate_range(subtype, rate, reader.channels)
            bits = min(max(reader.bit_rate, low), high)
        self.writers: dict[str, Writer] = {}
        for kind in (kind for kind in ("target", "residual") if kind in self.paths):
            path, part = self.paths[kind], self.request.name
            title = str(self.request.query) if self.request.rest else part if kind == "target" else f"without {part}"
            if self.film:
                self.writers[kind] = FilmWriter(path, self.film, reader, overwrite, clip, title)
            else:
                self.writers[kind] = Writer(
                    path, rate, reader.channels, entry.name, subtype, overwrite, self.frames, reader.channel_mask,
                    clip, bits, reader.carried, title,
                )  # fmt: skip
            self.stack.callback(self.writers[kind].discard)
        if "picture" in self.paths:
            from separation.plot import Spectrogram

            self.picture = PendingFile(self.paths["picture"], overwrite)
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
        self.energy += float(signals["residual" if self.request.rest else "target"].norm()) ** 2
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
            name = printable(Path(self.plan.label).name)
            title = f"{name}: {self.request.query}" if self.request.rest else f"“{self.request.name}” in {name}"
            with self.picture.explained(), open(self.picture.temporary, "wb") as file:
                draw(file, panels, title, self.frames / self.plan.reader.sample_rate, self.spectra["mixture"].edges)
            self.picture.finish()
            files.append(self.picture)
        return files

    def report(self, record: Record, presence: float | None) -> None:
        """Add the files, the gain, what they do not carry and, unless it is None, the presence to the record."""
        name, paths = self.request.name, {kind: str(path) for kind, path in self.paths.items()}
        if presence is not None:
            record.enter_presence(name, presence)
        kind = {None: name, REMIX: REMIX}.get(self.request.rest, REST)
        record.levels.setdefault(kind, decibels(math.sqrt(self.energy / max(1, self.frames))))
        if self.gain != 1.0:
            record.scale[name] = self.gain
        clip = self.plan.options.clip
        loudest = max((writer.peak for writer in self.writers.values()), default=0.0)
        if self.gain == 1.0 and loudest > 1.0 and (clip or self.request.rest):
            path, excess = paths.get("residual", paths.get("target")), 20 * math.log10(loudest)
            cut = clip == "clamp" or any(writer.limited for writer in self.writers.values())
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
        if (left_out := self.plan.reader.carried.warning) and left_out not in record.warnings:
            record.warnings.append(left_out)
