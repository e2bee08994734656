"""One file from disk to the list of sounds that are probably in it: its level is measured, then it is heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio import Reader
from separation.inputs import Source
from separation.job import Observer, block_seconds
from separation.tracks import Record

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Listening:
    """Does for `--list` what `Job` does for queries.

    Attributes:
        obtain: gives the Separator.
        observer: is told what happens.
    """

    obtain: Callable[[], Any]
    observer: Observer

    def run(self, source: Source, path: Path, record: Record) -> None:
        """Hears the file at `path` and fills `record`.

        Raises:
            AudioError: one plain sentence.
        """
        began = time.monotonic()
        with Reader(path) as reader:
            level = float(self.obtain().level(self._blocks(reader, f"measuring {source.label}")))
            listener = self.obtain().listener(reader.sample_rate, level)
            frames = 0
            for block in self._blocks(reader, f"hearing {source.label}"):
                frames += block.shape[-1]
                listener.push(block)
            found = self.obtain().heard(listener)
            record.duration = round(frames / reader.sample_rate, 6)
            record.heard = [asdict(sound) | {"probability": round(sound.probability, 4)} for sound in found]
            if reader.warning:
                record.warnings.append(reader.warning)
        record.seconds = round(time.monotonic() - began, 3)

    def _blocks(self, reader: Reader, label: str) -> Iterator[Tensor]:
        """The recording's blocks (channels, time), with progress."""
        done = 0
        with self.observer.watch(label, reader.frames) as progress:
            for block in reader.blocks(block_seconds(reader)):
                done += block.shape[-1]
                progress(done)
                yield block
