"""Files that consist of several recordings, and views of parts of files."""

from __future__ import annotations

import bisect
import io
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from separation.errors import AudioError

if TYPE_CHECKING:
    import numpy as np

Piece = tuple[int, "np.ndarray"]
"""A sample rate, and samples (time, channels)."""
Span = bytes | tuple[int, int]
"""Bytes, or start and end of a byte range of a file."""
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class Decoder(Protocol):
    """Interface of the decoders; see `Reader` for the attributes."""

    sample_rate: int
    channels: int
    frames: int | None
    container: str | None
    subtype: str | None
    channel_mask: int
    warning: str | None

    def chunks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield all samples from sample `start` on, in arrays (time, channels) of any length."""


class _View(io.RawIOBase):
    """Concatenated spans of a file, as a file."""

    def __init__(self, path: Path, spans: Sequence[Span]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115
        self._spans, self._at = spans, 0
        lengths = [len(span) if isinstance(span, bytes) else span[1] - span[0] for span in spans]
        self._ends = list(accumulate(lengths))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence, self._ends[-1])
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        number = bisect.bisect_right(self._ends, self._at)
        if number == len(self._ends):
            return 0
        span, count = self._spans[number], min(len(buffer), self._ends[number] - self._at)
        if isinstance(span, bytes):
            start = self._at - self._ends[number] + len(span)
            data = span[start : start + count]
        else:
            self._file.seek(span[1] - self._ends[number] + self._at)
            data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_view(path: Path, spans: Sequence[Span]) -> BinaryIO:
    """Open the concatenated spans of a file."""
    return io.BufferedReader(_View(path, spans), 1 << 16)


def warn_of_loss(
    path: Path | str, frames: int, rate: int, stated: int | None, damaged: bool, notes: Sequence[str], detail: str = ""
) -> str | None:
    """Return a warning for a file that was read to its end, or None.

    Args:
        path: the file, or what messages call it.
        frames: number of samples per channel that were read.
        rate: their rate, Hz.
        stated: number of samples according to the header, if more.
        damaged: whether samples were lost.
        notes: further sentences.
        detail: the decoder's message.
    """
    sentences = [note for note in notes if note]
    if damaged or stated is not None:
        total = "" if stated is None or stated <= frames else f" of {stated / rate:.3f} s"
        seconds = f"{frames / rate:.3f} s{total}"
        begin = f"{path} is cut short or damaged{detail}"
        sentences.insert(0, f"{begin}: only {seconds} can be read and are used.")
    return " ".join(sentences) or None


def skip(chunks: Iterable[np.ndarray], start: int, position: int = 0) -> Generator[np.ndarray, None, int]:
    """Yield samples (time, channels) from sample `start` on, the first chunk being at `position`; return the end."""
    for chunk in chunks:
        position += len(chunk)
        if position > start:
            yield chunk[max(0, len(chunk) - position + start) :]
    return position


def unify(path: Path, pieces: Iterator[Piece], rate: int, channels: int, notes: list[str]) -> Iterator[np.ndarray]:
    """Convert pieces to one sample rate and channel count and yield their samples (time, channels).

    If a conversion is needed, a sentence about it is appended to `notes`.

    Raises:
        AudioError: if a piece cannot be converted.
    """
    import av
    import numpy as np

    kind = (rate, channels)
    resampler: Any = None

    def convert(frame: Any) -> Iterator[np.ndarray]:
        for part in resampler.resample(frame) if resampler else ():
            yield part.to_ndarray().reshape(-1, channels)

    for piece_rate, piece in ((rate, piece) for rate, piece in pieces if len(piece)):
        samples = piece
        if channels != piece.shape[1] == 1:
            samples = np.repeat(piece, channels, axis=1)
        elif channels == 1 < piece.shape[1]:  # FFmpeg's own mix changes the level
            samples = piece.mean(axis=1, keepdims=True)
        count = samples.shape[1]
        if (piece_rate, piece.shape[1]) != kind:
            yield from convert(None)
            kind, resampler = (piece_rate, piece.shape[1]), None
            if kind != (rate, channels) and not notes:
                what = f"{rate} Hz, {channels} channel{'s' * (channels > 1)}"
                notes.append(
                    f"{path} consists of recordings of different kinds, all converted to that of the first: {what}."
                )
            if (piece_rate, count) != (rate, channels):
                resampler = av.AudioResampler("flt", LAYOUTS.get(channels, f"{channels}C"), rate)
        if resampler is None:
            yield samples
            continue
        layout = LAYOUTS.get(count, f"{count}C")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32).reshape(1, -1), "flt", layout)
        frame.sample_rate = piece_rate
        try:
            yield from convert(frame)
        except av.error.FFmpegError:
            raise AudioError(f"{path} has a part with {count} channels that cannot become {channels}.") from None
    yield from convert(None)


class JoinedDecoder:
    """Decodes a file that consists of several recordings; see `Reader` for the attributes.

    Args:
        path: the file.
        parts: decoders of the recordings.
        damaged: whether other recordings in it cannot be read.
    """

    def __init__(self, path: Path, parts: Sequence[Decoder], damaged: bool) -> None:
        self.path, self._parts, self._damaged = path, parts, damaged
        self.warning: str | None = None
        first = parts[0]
        self.sample_rate, self.channels, self.channel_mask = first.sample_rate, first.channels, first.channel_mask
        self.container, self.subtype = first.container, first.subtype
        lengths = [part.frames and round(part.frames * self.sample_rate / part.sample_rate) for part in parts]
        self.frames = None if None in lengths else sum(length or 0 for length in lengths)

    def chunks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield all samples from sample `start` on, in arrays (time, channels)."""
        self.warning = None
        notes: list[str] = []
        damaged = self._damaged

        def pieces() -> Iterator[Piece]:
            nonlocal damaged
            for part in self._parts:
                try:
                    yield from ((part.sample_rate, chunk) for chunk in part.chunks())
                    damaged |= part.warning is not None
                except AudioError:
                    damaged = True

        frames = yield from skip(unify(self.path, pieces(), self.sample_rate, self.channels, notes), start)
        self.warning = warn_of_loss(self.path, frames, self.sample_rate, None, damaged, notes)
