"""One file from disk to disk: measure its level, separate it block by block, give all its outputs
their names together.

Memory does not grow with the file's length or with what is written: the mixture is held only for as
long as the separator holds back the target that belongs to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from separation.audio import Reader
from separation.audio.formats import (
    FORMATS,
    Format,
    find_format,
    find_subtype,
    natural_format,
    refusal,
)
from separation.audio.writing import commit
from separation.errors import AudioError, reason
from separation.inputs import Source
from separation.naming import Namer, slug
from separation.tracks import Delay, Item, Record, Track

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_SECONDS = 10.0
BLOCK_VALUES = 2_000_000
"""Most samples in a block, all channels together: keeps many-channel recordings from taking much
memory."""


@dataclass(frozen=True)
class Settings:
    """What holds for every file.

    Attributes:
        items: the queries.
        output: folder for everything; None: beside each input.
        format, subtype: None: by the input.
        overwrite: whether existing outputs are replaced.
        plot: whether a PNG is drawn for each query.
    """

    items: tuple[Item, ...]
    output: Path | None = None
    format: str | None = None
    subtype: str | None = None
    overwrite: bool = False
    plot: bool = False


class Observer(Protocol):
    """What a job tells about itself."""

    def notice(self, sentence: str) -> None:
        """Something worth knowing that is no error."""

    def detail(self, sentence: str) -> None:
        """Something for --verbose."""

    def watch(self, label: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """A place for progress: the value is called with the amount done."""


@dataclass
class Job:
    """Everything that one file needs: `run` does it.

    Attributes:
        obtain: gives the Separator, which is not loaded before there is something to separate.
        settings: see there.
        namer: hands out the outputs' names.
        observer: is told what happens.
        query: what the separator is asked for under a query's name.
    """

    obtain: Callable[[], Any]
    settings: Settings
    namer: Namer
    observer: Observer
    query: Callable[[str], Any] = str

    def run(self, source: Source, path: Path, record: Record) -> None:
        """Separates the file at `path` and fills `record`.

        Raises:
            AudioError: one plain sentence; nothing was written then.
        """
        began = time.monotonic()
        try:
            with Reader(path) as reader, ExitStack() as stack:
                tracks = self._plan(source, reader)
                seconds = block_seconds(reader)
                frames, level = self._measure(source, reader, seconds)
                record.duration = round(frames / reader.sample_rate, 6)
                for track in tracks:
                    track.open(reader, frames, stack)
                presence = self._separate(source, reader, tracks, seconds, frames, level)
                self._finish(tracks, record, presence)
                if reader.warning:
                    record.warnings.append(reader.warning)
        finally:
            record.seconds = round(time.monotonic() - began, 3)

    def _plan(self, source: Source, reader: Reader) -> list[Track]:
        folder = self.settings.output or (Path() if source.piped else source.path.parent)
        entry, subtype = self._choose_format(source, reader)
        tracks = []
        for item in self.settings.items:
            part = slug(item.query)
            first = part if item.target else f"not_{part}"
            wanted = {
                "target": (item.target, part, entry.suffix),
                "residual": (item.residual, f"not_{part}", entry.suffix),
                "picture": (self.settings.plot, first, ".png"),
            }
            paths = {
                kind: self.namer.claim(folder, source.stem, name, suffix)
                for kind, (yes, name, suffix) in wanted.items()
                if yes
            }
            tracks.append(Track(item, entry, subtype, self.settings.overwrite, source.label, paths))
        for path in (path for track in tracks for path in track.paths.values()):
            self._check_destination(path)
        return tracks

    def _check_destination(self, path: Path) -> None:
        """Says no before the work rather than after it."""
        if self.namer.is_input(path):
            raise AudioError(f"{path} would be written over, but it is one of the inputs.")
        if path.exists() and not self.settings.overwrite:
            raise AudioError(f"{path} exists already; --overwrite replaces it.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"The folder {path.parent} cannot be made: {reason(error)}.") from None

    def _choose_format(self, source: Source, reader: Reader) -> tuple[Format, str]:
        rate, channels = reader.sample_rate, reader.channels
        if self.settings.format:
            entry = find_format(self.settings.format)
            subtype = find_subtype(entry, self.settings.subtype)
            if why := refusal(entry, subtype, rate, channels):
                raise AudioError(f"{source.label} cannot be written as {entry.name}: {why}.")
            return entry, subtype
        natural = natural_format(reader.container, reader.subtype, source.path.suffix)
        entry, default = natural or (FORMATS["wav"], "FLOAT")
        subtype = find_subtype(entry, self.settings.subtype) if self.settings.subtype else default
        why = refusal(entry, subtype, rate, channels)
        if why or (natural is None and reader.container is not None):
            why = why or f"{reader.container} is read, but not written"
            self.observer.notice(f"{source.label}: {why}, so its outputs are wav.")
            return FORMATS["wav"], "FLOAT"
        return entry, subtype

    def _measure(self, source: Source, reader: Reader, seconds: float) -> tuple[int, float]:
        """First pass: (samples per channel, level)."""
        frames = 0

        def counted() -> Iterator[Tensor]:
            nonlocal frames
            with self.observer.watch(f"measuring {source.label}", reader.frames) as progress:
                for block in reader.blocks(seconds):
                    frames += block.shape[-1]
                    progress(frames)
                    yield block

        blocks = counted()
        level = float(self.obtain().level(blocks))
        # The level may be known before the end; the length is not.
        for _ in blocks:
            pass
        rate = reader.sample_rate
        form = f"{rate} Hz, {reader.channels} channels, {frames / rate:.3f} s"
        self.observer.detail(f"{source.label}: {form}, level {20 * math.log10(max(level, 1e-12)):.1f} dB.")
        return frames, level

    def _separate(
        self,
        source: Source,
        reader: Reader,
        tracks: list[Track],
        seconds: float,
        frames: int,
        level: float,
    ) -> list[float]:
        """Second pass: writes every track; returns the presence of each query."""
        queries = [self.query(track.item.query) for track in tracks]
        stream = self.obtain().stream(queries, reader.sample_rate, reader.channels, level)
        held = Delay(reader.channels)
        written = 0

        def write(targets: Tensor) -> None:
            nonlocal written
            mixture = held.take(targets.shape[-1])
            written += mixture.shape[-1]
            for track, target in zip(tracks, targets, strict=True):
                track.write(mixture, target)

        arrived = 0
        with self.observer.watch(f"separating {source.label}", frames) as progress:
            for block in reader.blocks(seconds):
                arrived += block.shape[-1]
                held.put(block)
                write(stream.push(block).detach().cpu())
                progress(arrived)
            if arrived != frames:
                raise AudioError(f"{source.label} changed while it was being read.")
            write(stream.flush().detach().cpu())
        if written != frames:
            raise RuntimeError(f"the separator returned {written} samples for {frames}")
        return [float(value) for value in stream.presence]

    def _finish(self, tracks: list[Track], record: Record, presence: list[float]) -> None:
        for track in tracks:
            track.finish()
        commit([pending for track in tracks for pending in track.pending()])
        for track, value in zip(tracks, presence, strict=True):
            track.report(record, None if math.isnan(value) else round(value, 4))


def block_seconds(reader: Reader) -> float:
    """Length of a block: ten seconds, less for very many channels."""
    return min(BLOCK_SECONDS, BLOCK_VALUES / (reader.sample_rate * reader.channels))
