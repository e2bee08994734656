"""Audio in and out, block by block: files of any length in constant memory.

    with Reader("mix.flac") as reader:
        for block in reader.blocks(seconds=10.0):   # (channels, time) float32, full scale 1.0
            ...

    with Writer("target.wav", reader.sample_rate, reader.channels) as writer:
        writer.write(block)                         # the file appears when it is complete

wav, flac, ogg, opus, mp3, aiff and a few more are read through libsndfile, everything else through
the ffmpeg program where that is installed. Samples are never wrapped or clipped without a word: a
wav file is float32 by default, and for a format that ends at full scale the Writer turns the whole
file down by one factor (`Writer.gain`).

Neither torch nor numpy nor soundfile is loaded until audio is.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from separation.decode import CHUNK, open_decoder
from separation.encode import Encoder, Shield
from separation.formats import (
    UNLIMITED,
    AudioError,
    container_of,
    find_format,
    find_subtype,
    refusal,
)
from separation.pending import PendingFile, commit

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["AudioError", "Reader", "Writer", "read", "resample", "write"]


class Reader:
    """An audio file, read block by block as often as wanted.

    Attributes:
        path: the file.
        sample_rate: in Hz.
        channels: their number.
        frames: samples per channel as the header has it, None when unknown. For compressed formats
            and damaged files this is an estimate: count what `blocks` yields where it matters.
        container, subtype: libsndfile's names of what the file is, None when ffmpeg reads it.
        warning: a sentence when the file turned out to be cut short or damaged, after `blocks` has
            ended; else None.

    Raises:
        AudioError: one plain sentence, for a file that is missing, empty, unreadable, not audio, or
            needs ffmpeg.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._decoder = open_decoder(self.path)
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.frames = self._decoder.frames
        self.container = self._decoder.container
        self.subtype = self._decoder.subtype

    @property
    def warning(self) -> str | None:
        """What was odd about the file, once it has been read; see the class."""
        return self._decoder.warning

    def blocks(self, seconds: float = 10.0) -> Iterator[Tensor]:
        """Every sample from the start: tensors (channels, time) of `seconds`, the last one shorter.

        Raises:
            AudioError: for a file without samples, or at the first sample that is not a finite
                number.
        """
        import torch

        size = max(1, round(seconds * self.sample_rate))
        start = 0
        for block in _regroup(self._decoder.chunks(), size):
            self._check_finite(block, start)
            start += len(block)
            yield torch.from_numpy(block.T.copy())
        if start == 0:
            raise AudioError(f"{self.path} holds no audio: its length is zero.")

    def _check_finite(self, block: np.ndarray, start: int) -> None:
        import numpy as np

        finite = np.isfinite(block)
        if finite.all():
            return
        frame, channel = (int(index) for index in np.argwhere(~finite)[0])
        kind = "NaN (not a number)" if np.isnan(block[frame, channel]) else "infinite"
        where = f"at {(start + frame) / self.sample_rate:.6f} s, channel {channel + 1}"
        raise AudioError(f"{self.path} has a sample that is {kind} {where}; it cannot be separated.")

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is left open between two blocks() runs."""


def _regroup(chunks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Arrays (time, channels) of exactly `size` frames, the last one shorter."""
    import numpy as np

    waiting: list[np.ndarray] = []
    count = 0
    for chunk in chunks:
        while count + len(chunk) >= size:
            split = size - count
            yield np.concatenate([*waiting, chunk[:split]])
            waiting, count, chunk = [], 0, chunk[split:]
        if len(chunk):
            waiting.append(chunk)
            count += len(chunk)
    if count:
        yield np.concatenate(waiting)


class Writer:
    """Writes an audio file that appears, complete, when the `with` block ends well, and not at all
    otherwise.

    Args:
        path: where it will stand.
        sample_rate: in Hz.
        channels: their number.
        format: "wav", "flac", "ogg", "opus", "mp3", "aiff", "caf" or "w64"; None: by the path's
            suffix.
        subtype: libsndfile's name of the sample type, None: the format's default (wav: FLOAT, flac:
            PCM_24).
        overwrite: whether a file that exists may be replaced.
        frames: the number of samples per channel where it is known; above 4 GB a wav file becomes
            RF64.
        shield: entered around each call into the encoder, for a program that handles signals (see
            `interrupts`).

    Attributes:
        peak: largest absolute sample so far.
        gain: the factor on all samples when the file is encoded. None: 1, or just enough to stay
            within full scale in a format that cannot go beyond it (with a warning). Has no meaning
            for FLOAT and DOUBLE.
        limited: whether the format ends at full scale. Such a file is first kept as float32 beside
            its destination, because the factor is known at the end only.

    Raises:
        AudioError: one plain sentence, when the format cannot hold the audio or the file cannot be
            written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        format: str | None = None,
        subtype: str | None = None,
        overwrite: bool = False,
        frames: int | None = None,
        shield: Shield = nullcontext,
    ) -> None:
        self.path = Path(path)
        self._shield = shield
        self.sample_rate, self.channels = sample_rate, channels
        self.format = find_format(format or self.path.suffix or "wav")
        self.subtype = find_subtype(self.format, subtype)
        if why := refusal(self.format, self.subtype, sample_rate, channels):
            raise AudioError(f"{self.path} cannot be written: {why}.")
        self.limited = self.subtype not in UNLIMITED
        self.peak = 0.0
        self.frames = 0
        self.gain: float | None = None
        self._expected = frames
        self.pending = PendingFile(self.path, overwrite)
        self._spool: BinaryIO | None = None
        self._encoder: Encoder | None = None
        try:
            with self.pending.explained():
                if self.limited:
                    self._spool = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
                else:
                    self._encoder = self._encode(frames)
        except BaseException:
            self.discard()
            raise

    def _encode(self, frames: int | None) -> Encoder:
        container = container_of(self.format, self.subtype, self.channels, frames)
        return Encoder(
            self.pending.file,
            self.sample_rate,
            self.channels,
            container,
            self.subtype,
            self._shield,
        )

    def write(self, block: Tensor) -> None:
        """Appends samples (channels, time).

        Raises:
            AudioError: when the disk is full or fails.
        """
        import numpy as np

        samples = np.ascontiguousarray(block.detach().to("cpu").numpy().T, dtype=np.float32)
        if not len(samples):
            return
        self.peak = max(self.peak, float(samples.max()), -float(samples.min()))
        self.frames += len(samples)
        with self.pending.explained():
            if self._spool is not None:
                self._spool.write(samples.data)
            elif self._encoder is not None:
                self._encoder.write(samples)

    def finish(self) -> None:
        """Encodes what is left and makes sure that all of it is on the disk, still under a
        temporary name.
        """
        with self.pending.explained():
            if self._spool is not None:
                self._encode_spool(self._spool)
            if self._encoder is not None:
                self._encoder.close()
        self.pending.finish()

    def _encode_spool(self, spool: BinaryIO) -> None:
        import numpy as np

        gain = np.float32(self._automatic_gain() if self.gain is None else self.gain)
        spool.seek(0)
        self._encoder = self._encode(self.frames)
        while data := spool.read(CHUNK * 4 * self.channels):
            self._encoder.write(np.frombuffer(data, np.float32).reshape(-1, self.channels) * gain)

    def _automatic_gain(self) -> float:
        if self.peak <= 1.0:
            return 1.0
        gain = 1.0 / self.peak
        warnings.warn(
            f"{self.path} was turned down by a factor of {gain:.3f} to stay within full scale.",
            stacklevel=5,
        )
        return gain

    def discard(self) -> None:
        """Forgets everything that is not committed."""
        if self._spool is not None:
            with suppress(OSError):
                self._spool.close()
        if self._encoder is not None:
            self._encoder.abandon()
        self.pending.discard()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
                commit([self.pending])
        finally:
            self.discard()


def read(path: str | os.PathLike[str]) -> tuple[Tensor, int]:
    """A whole audio file: (waveform (channels, time) float32 with full scale at 1.0, sample rate in
    Hz).

    Warns when the file is cut short and only its beginning could be read.

    Raises:
        AudioError: one plain sentence that names the file.
    """
    import torch

    with Reader(path) as reader:
        waveform = torch.cat(list(reader.blocks()), dim=1)
    if reader.warning:
        warnings.warn(reader.warning, stacklevel=2)
    return waveform, reader.sample_rate


def write(
    path: str | os.PathLike[str],
    waveform: Tensor,
    sample_rate: int,
    format: str | None = None,
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a waveform (channels, time) or (time,); see `Writer` for the arguments and what is
    raised.
    """
    waveform = waveform[None] if waveform.ndim == 1 else waveform
    channels, frames = waveform.shape
    with Writer(path, sample_rate, channels, format, subtype, overwrite, frames) as writer:
        writer.write(waveform)


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Changes the sample rate with a linear-phase filter (soxr, "very high quality").

    Args:
        waveform: (channels, time).
        source_rate: its rate in Hz.
        target_rate: the wanted rate in Hz.

    Returns:
        (channels, ceil(time * target_rate / source_rate)), float32, aligned with the input.

    Raises:
        ValueError: for a rate that is not positive.
    """
    if min(source_rate, target_rate) <= 0:
        raise ValueError(f"sample rates are positive, not {source_rate} and {target_rate}")
    if source_rate == target_rate:
        return waveform
    import numpy as np
    import soxr
    import torch

    channels, time = waveform.shape
    wanted = -(-time * target_rate // source_rate)
    result = np.zeros((wanted, channels), np.float32)
    if time:
        samples = np.ascontiguousarray(waveform.detach().to("cpu", torch.float32).numpy().T)
        filtered = soxr.resample(samples, source_rate, target_rate, quality="VHQ")[:wanted]
        result[: len(filtered)] = filtered
    return torch.from_numpy(result.T.copy()).to(waveform.device)
