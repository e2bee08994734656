"""Results of a separation, in memory or block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from separation.audio import AudioError, Reader
from separation.errors import Cancelled
from separation.inference.changes import Span
from separation.inference.direction import Array, Covariances, Direction, estimate_direction
from separation.inference.stream import Stream
from separation.presence import presence_word
from separation.query import query_name

if TYPE_CHECKING:
    from separation.query import Plain, Query

Watch = Callable[[Iterable[Tensor], str, int | None], Iterable[Tensor]]
"""Passes on the blocks of one pass over a file, to show progress or to stop: (blocks, stage, samples per channel)."""
Progress = Callable[[float], bool | None]
"""Called with the completed fraction, 0 to 1; returns False to cancel."""

SHARES = {"measuring": 0.05, "separating": 0.05, "separated": 0.9}
"""Of the progress: reading the file for its level, reading it again, and separating it."""


def describe(waveform: Tensor, sample_rate: int) -> str:
    """Return for example "2 channels, 10.0 s at 44100 Hz, peak -3.1 dB"."""
    channels, samples = waveform.shape
    peak = float(waveform.abs().max()) if samples else 0.0
    level = f"{20 * math.log10(peak):.1f} dB" if peak else "none, silent"
    plural = "" if channels == 1 else "s"
    return f"{channels} channel{plural}, {samples / sample_rate:.1f} s at {sample_rate} Hz, peak {level}"


def players(waveforms: dict[str, Tensor], sample_rate: int) -> str:
    """Return HTML with an audio player (16-bit wav) for each waveform (channels, time), for notebooks."""
    import base64
    import io

    import soundfile

    html = []
    for name, waveform in waveforms.items():
        file, loudest = io.BytesIO(), max(1.0, float(waveform.abs().max()) if waveform.numel() else 0.0)
        soundfile.write(file, (waveform / loudest).T.numpy(), sample_rate, format="WAV", subtype="PCM_16")
        data = base64.b64encode(file.getvalue()).decode()
        html.append(f'<div>{name}<br><audio controls src="data:audio/wav;base64,{data}"></audio></div>')
    return "".join(html)


def describe_presence(queries: Iterable[Any], presence: Iterable[float]) -> str:
    """Return for example "rain: presence 0.98 (present), wind: presence 0.02 (absent)"."""
    return ", ".join(
        query_name(query) + ("" if math.isnan(each) else f": presence {each:.2f} ({presence_word(each)})")
        for query, each in zip(queries, presence, strict=True)
    )


@dataclass(frozen=True, repr=False)
class Separation:
    """Result of a separation, with target + residual == mixture.

    Attributes:
        target: (channels, time) float32.
        residual: (channels, time) float32.
        sample_rate: Hz.
        presence: probability that the query occurs in the mixture, 0 to 1; NaN if the model does not estimate it.
        parts: the same of each sound that a sentence names, of which `presence` is the largest; empty for one sound.
    """

    target: Tensor
    residual: Tensor
    sample_rate: int
    presence: float
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str | None:
        """The presence in a word: "present", "uncertain" or "absent"; None if the model does not estimate it."""
        return presence_word(self.presence)

    def direction(self, array: Array | Any = "stereo") -> Direction:
        """Estimate where the target comes from in a recording of several channels.

        Args:
            array: what the channels are, see `direction.Array.parse`.

        Raises:
            ValueError: if the array is not valid, or has another number of channels.
        """
        array = Array.parse(array)
        array.check(len(self.target))
        found = Covariances(self.sample_rate, array.channels)
        found.push(self.target, self.residual)
        return estimate_direction(found.sums[0], found.sums[1], found.hertz, array)

    def __repr__(self) -> str:
        found = f"presence {self.presence:.2f} ({self.verdict}), " if self.verdict else ""
        return f"Separation({found}target: {describe(self.target, self.sample_rate)})"

    def _repr_html_(self) -> str:
        found = f"<div>presence {self.presence:.2f}: {self.verdict}</div>" if self.verdict else ""
        return found + players({"target": self.target, "residual": self.residual}, self.sample_rate)


@dataclass(frozen=True, repr=False)
class Remix:
    """A recording in which some sounds are louder, softer or removed.

    Attributes:
        waveform: (channels, time) float32; may exceed full scale.
        sample_rate: Hz.
        presence: probability of each of these sounds, in their order; NaN if the model does not estimate it.
        queries: the sounds.
    """

    waveform: Tensor
    sample_rate: int
    presence: list[float]
    queries: Sequence[Query | Plain]

    def __repr__(self) -> str:
        found = describe_presence(self.queries, self.presence)
        return f"Remix({found}, {describe(self.waveform, self.sample_rate)})"

    def _repr_html_(self) -> str:
        return players({"remix": self.waveform}, self.sample_rate)


def pass_on(blocks: Iterable[Tensor], stage: str, frames: int | None) -> Iterable[Tensor]:
    """A `Watch` that shows nothing."""
    return blocks


class FractionWatch:
    """A `Watch` that calls `progress` with the completed fraction and raises Cancelled when that returns False.

    `step` samples are passed on between two calls; when all is separated, the fraction is `end`.
    """

    def __init__(self, progress: Progress, step: int, end: float = 1.0) -> None:
        self.progress, self.step, self.end = progress, step, end
        self.completed = dict.fromkeys(SHARES, 0.0)

    def __call__(self, blocks: Iterable[Tensor], stage: str, frames: int | None) -> Iterator[Tensor]:
        done = 0
        for piece in (piece for block in blocks for piece in block.split(self.step, dim=-1)):
            self.tell(stage, done / frames if frames else 0.0)
            yield piece
            done += piece.shape[-1]
        self.tell(stage, 1.0)

    def tell(self, stage: str, completed: float) -> None:
        """Note the completed fraction of a stage of `SHARES`."""
        self.completed[stage] = min(1.0, completed)
        whole = sum(share * self.completed[name] for name, share in SHARES.items())
        answer = np.asarray(self.progress(self.end * min(1.0, whole)))
        if answer.dtype == bool and not answer.all():  # also NumPy's and PyTorch's False
            raise Cancelled("The separation was cancelled.")


def separate_blocks(
    stream: Stream, blocks: Iterable[Tensor], sample_rate: int, span: Span | None, weights: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Separate a recording, or a span of it, that is given in blocks (channels, n).

    Args:
        stream: separates the queries, followed by the sounds to be changed.
        blocks: of the recording.
        sample_rate: of the recording, Hz.
        span: targets are silent outside it.
        weights: share of each changed sound that is removed (sounds,); None without such sounds.

    Yields:
        Mixture (channels, m) and targets (queries, channels, m). If sounds are changed, the last target is the sum of
        what is removed from them.
    """
    pairs = stream.separate(blocks) if span is None else separate_span(stream, blocks, sample_rate, span)
    for mixture, targets in pairs:
        if weights is not None:
            queries = len(targets) - len(weights)
            lost = torch.zeros_like(mixture)
            if weights.any():  # otherwise the result is the mixture, bit by bit
                lost = torch.tensordot(weights, targets[queries:], 1)
            targets = torch.cat([targets[:queries], lost[None]])
        yield mixture, targets


def separate_span(
    stream: Stream, blocks: Iterable[Tensor], sample_rate: int, span: Span
) -> Iterator[tuple[Tensor, Tensor]]:
    """Separate a span of a recording. The network processes only the span and the context that it depends on."""
    first, last = stream.limit(span.begin, span.end)

    def cut() -> Iterator[tuple[bool, Tensor]]:
        """Cut blocks at the edges of the part that the network processes; yield whether each is inside."""
        position = 0
        for block in blocks:
            length = block.shape[-1]
            cuts = sorted({min(max(0, int(edge)), length) for edge in (first - position, min(last - position, length))})
            for piece in torch.tensor_split(block, cuts, dim=-1):
                if piece.shape[-1]:
                    yield first <= position < last, piece
                    position += piece.shape[-1]

    done = 0
    for inside, pieces in groupby(cut(), key=lambda pair: pair[0]):
        parts = (piece for _, piece in pieces)
        silent = ((piece, torch.zeros(stream.queries, *piece.shape)) for piece in parts)
        for mixture, targets in stream.separate(parts) if inside else silent:
            envelope = span.envelope(done, mixture.shape[-1], sample_rate)
            done += mixture.shape[-1]
            yield mixture, torch.where(envelope > 0, targets * envelope, 0.0)


@dataclass(eq=False)
class FileSeparation:
    """Separates a file of any length in constant memory. Made by `Separator.separate_file`.

    Iterate over it once. Each item is a part of the mixture (channels, n) and its targets (queries, channels, n) on the
    CPU, in order and without gaps. The residual of a target is mixture - target. If sounds are removed or changed, the
    last target is what they lose: its residual is the cleaned recording or the remix.

    Attributes:
        frames: samples per channel.
        level: of the recording, see `levels.measure_level`.
        queries: the sounds of `presence`.
        outputs: written files, in order.
        done: samples per channel that are separated.
    """

    stream: Stream
    reader: Reader
    frames: int
    level: float
    watch: Watch = pass_on
    span: Span | None = None
    weights: Tensor | None = None
    queries: Sequence[Query | Plain] = ()
    outputs: list[Path] = field(default_factory=list)
    done: int = field(default=0, init=False)

    @property
    def presence(self) -> list[float]:
        """Probability of each query to occur in the processed part; NaN if the model does not estimate it."""
        return self.stream.presence

    @property
    def parts(self) -> list[dict[str, float]]:
        """Presence of each sound that a query names, see `Separation.parts`."""
        return self.stream.part_presence

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the file for the second time and separate it.

        Raises:
            AudioError: if the file can no longer be read, or its length has changed.
        """
        read = self.done = 0

        def blocks() -> Iterator[Tensor]:
            nonlocal read
            for block in self.watch(self.reader.blocks(), "separating", self.frames):
                read += block.shape[-1]
                yield block
            if read != self.frames:
                raise AudioError(f"{self.reader.path} changed while it was being read.")

        for mixture, targets in separate_blocks(
            self.stream, blocks(), self.reader.sample_rate, self.span, self.weights
        ):
            self.done += targets.shape[-1]
            yield mixture, targets
            if isinstance(self.watch, FractionWatch):
                self.watch.tell("separated", self.done / self.frames)
        if self.done != self.frames:
            raise RuntimeError(f"the separator returned {self.done} samples for {self.frames}")

    def __repr__(self) -> str:
        reader, files = self.reader, ", ".join(map(str, self.outputs)) or "nothing written"
        seconds = f"{self.frames / reader.sample_rate:.1f} s at {reader.sample_rate} Hz"
        found = describe_presence(self.queries, self.presence if self.done else [math.nan] * len(self.queries))
        return (
            f"FileSeparation({str(reader.path)!r}, {seconds}, {found}, {files if self.done else 'not separated yet'})"
        )

    def _repr_html_(self) -> str:
        if not self.outputs:
            return f"<code>{self!r}</code>"
        from separation.audio import read

        waveforms = {path.name: read(path)[0] for path in self.outputs}
        return players(waveforms, self.reader.sample_rate)
