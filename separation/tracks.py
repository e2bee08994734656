"""What is written for one query on one file, and what is reported about it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio import Reader, Writer
from separation.audio.formats import Format
from separation.audio.writing import PendingFile

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Item:
    """One query and what is written for it."""

    query: str
    target: bool = True
    residual: bool = False


SEPARATED = ("outputs", "targets", "residuals", "plots", "presence", "path_presence", "scale")
"""What a record says of a file that was separated, not only listened to."""


@dataclass
class Record:
    """What became of one input; `as_json` is the line that --json prints."""

    input: str
    outputs: list[str] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    residuals: dict[str, str] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)
    presence: dict[str, float | None] = field(default_factory=dict)
    path_presence: list[float | None] = field(default_factory=list)
    scale: dict[str, float] = field(default_factory=dict)
    duration: float | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    heard: list[dict[str, Any]] | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data, in the order in which a person reads it."""
        hidden = ("path_presence", "heard") if self.heard is None else SEPARATED
        return {name: value for name, value in vars(self).items() if name not in hidden}


@dataclass
class Track:
    """The outputs of one query on one file.

    Attributes:
        item: the query.
        format, subtype: of the audio files.
        overwrite: whether existing files are replaced.
        label: what the input is called.
        paths: where "target", "residual" and "picture" go, those that are wanted.
    """

    item: Item
    format: Format
    subtype: str
    overwrite: bool
    label: str
    paths: dict[str, Path]

    def open(self, reader: Reader, frames: int, stack: ExitStack) -> None:
        """Starts the outputs; whatever is not committed is gone when `stack` closes."""
        self.gain = 1.0
        self.seconds = frames / reader.sample_rate
        self.writers: dict[str, Writer] = {}
        for kind in ("target", "residual"):
            if kind in self.paths:
                writer = Writer(
                    self.paths[kind], reader.sample_rate, reader.channels,
                    self.format.name, self.subtype, self.overwrite, frames,
                )  # fmt: skip
                stack.callback(writer.discard)
                self.writers[kind] = writer
        self.canvas: PendingFile | None = None
        if "picture" in self.paths:
            from separation.plot import Spectrogram

            self.canvas = PendingFile(self.paths["picture"], self.overwrite)
            stack.callback(self.canvas.discard)
            self.spectra = {kind: Spectrogram(reader.sample_rate, frames) for kind in ("mixture", "target", "residual")}

    def write(self, mixture: Tensor, target: Tensor) -> None:
        """Appends (channels, time) of both; the residual is their difference."""
        signals = {"mixture": mixture, "target": target, "residual": mixture - target}
        for kind, writer in self.writers.items():
            writer.write(signals[kind])
        if self.canvas is not None:
            for kind, spectrum in self.spectra.items():
                spectrum.push(signals[kind])

    def finish(self) -> None:
        """Encodes and draws, all still under temporary names."""
        peak = max(writer.peak for writer in self.writers.values())
        if peak > 1.0 and any(writer.limited for writer in self.writers.values()):
            self.gain = 1.0 / peak
        for writer in self.writers.values():
            writer.gain = self.gain
            writer.finish()
        if self.canvas is not None:
            self._draw(self.canvas)

    def _draw(self, canvas: PendingFile) -> None:
        from separation.plot import draw

        panels = {kind: spectrum.decibels() for kind, spectrum in self.spectra.items()}
        title = f"“{self.item.query}” in {Path(self.label).name}"
        with canvas.explained(), open(canvas.temporary, "wb") as file:
            draw(file, panels, title, self.seconds, self.spectra["mixture"].edges)
        canvas.finish()

    def pending(self) -> list[PendingFile]:
        """What waits for its name."""
        files = [writer.pending for writer in self.writers.values()]
        return files if self.canvas is None else [*files, self.canvas]

    def report(self, record: Record, presence: float | None) -> None:
        """Enters what was written into the record."""
        query = self.item.query
        record.presence[query] = presence
        if self.gain != 1.0:
            record.scale[query] = self.gain
        for kind, entries in (("target", record.targets), ("residual", record.residuals)):
            if kind in self.paths:
                entries[query] = str(self.paths[kind])
                record.outputs.append(str(self.paths[kind]))
                record.path_presence.append(presence if kind == "target" or not self.item.target else None)
        if "picture" in self.paths:
            record.plots.append(str(self.paths["picture"]))


class Delay:
    """Samples (channels, time) that wait for what belongs to them: first in, first out, in any
    pieces.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._blocks: list[Tensor] = []

    def put(self, block: Tensor) -> None:
        """Appends at the end."""
        self._blocks.append(block)

    def take(self, count: int) -> Tensor:
        """Removes `count` samples from the beginning, or all when there are fewer."""
        import torch

        taken = [torch.zeros(self._channels, 0)]
        while count > 0 and self._blocks:
            first = self._blocks.pop(0)
            taken.append(first[:, :count])
            if first.shape[-1] > count:
                self._blocks.insert(0, first[:, count:])
            count -= taken[-1].shape[-1]
        return torch.cat(taken, dim=1)
