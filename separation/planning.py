"""Planning and writing of the output files of one input, for the command and for Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from separation.audio import Reader
from separation.audio.remux import Film, plan_films
from separation.audio.writing import commit
from separation.origins import CURRENT, UNKNOWN, Origin, digest
from separation.outputs import Namer, QueryOutputs, Request, choose_format, slug
from separation.process import remove_leftovers

if TYPE_CHECKING:
    from separation.results import FileSeparation


@dataclass(frozen=True)
class OutputOptions:
    """How outputs are written.

    Attributes:
        format: name of a format; None: as the input, if possible.
        subtype: sample type; None: the format's default.
        bit_rate: of mp3, Vorbis, Opus and films in bits per second; None: as the input.
        clip: one of `writing.CLIPS`.
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
            os.path.lexists(path) and self.namer.origins.compare(path, origin) in (CURRENT, UNKNOWN)
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
        how = self.form, self.namer.overwrite, stack, self.options.clip
        return [
            QueryOutputs(
                request, paths, self.label, self.reader, frames, *how, film=film, bit_rate=self.options.bit_rate
            )
            for request, paths, film in zip(self.requests, self.paths, self.films, strict=True)
        ]

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
