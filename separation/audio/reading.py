"""Reading audio files: libsndfile where it is right, PyAV for everything else."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio.containers import ContainerDecoder, truncation_warning
from separation.audio.formats import READABLE
from separation.errors import AudioError, reason

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CHUNK = 16_384  # frames per call of libsndfile
BLOCK_SECONDS = 10.0
BLOCK_VALUES = 2_000_000  # most samples in a block, all channels together
UNKNOWN_FRAMES = 2**62
DECLARED_SIZE = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)  # in libsndfile's log of a header


class Reader:
    """An audio file that can be read block by block, any number of times.

    libsndfile reads it, except for what it reads wrongly or not at all: MPEG audio (a file without a length header, or
    made of several, would be cut), chained Ogg (all but its first part would be lost), and other containers.

    Args:
        path: the file.
        stream: which audio stream of a container with several, from 0.

    Attributes:
        path: the file.
        sample_rate: in Hz.
        channels: number of channels.
        frames: samples per channel according to the header, None if unknown. For compressed and damaged files this
            is an estimate; count what `blocks` yields where it matters.
        container, subtype: libsndfile's names for the kind of file; None for containers that only PyAV reads.

    Raises:
        AudioError: if the file is missing, empty, unreadable or not audio.
    """

    def __init__(self, path: str | os.PathLike[str], stream: int = 0) -> None:
        self.path = Path(path)
        self._decoder = _open_decoder(self.path, stream)
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.frames = self._decoder.frames
        self.container = self._decoder.container
        self.subtype = self._decoder.subtype

    @property
    def warning(self) -> str | None:
        """A sentence if the file turned out to be cut short or damaged when it was read to its end, else None."""
        return self._decoder.warning

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all samples from the start as arrays (time, channels) of any length, unchecked."""
        return self._decoder.chunks()

    def blocks(self, seconds: float | None = None) -> Iterator[Tensor]:
        """Yield all samples from the start as tensors (channels, time) of `seconds`, the last one shorter.

        By default a block is ten seconds long, and less for very many channels, so that it needs little memory.

        Raises:
            AudioError: if the file holds no samples, or at the first sample that is not finite.
        """
        import numpy as np
        import torch

        if seconds is None:
            seconds = min(BLOCK_SECONDS, BLOCK_VALUES / (self.sample_rate * self.channels))
        size = max(1, round(seconds * self.sample_rate))
        start = 0
        for block in _regroup(self.chunks(), size):
            if not np.isfinite(block).all():
                frame, channel = (int(index) for index in np.argwhere(~np.isfinite(block))[0])
                kind = "NaN (not a number)" if np.isnan(block[frame, channel]) else "infinite"
                where = f"at {(start + frame) / self.sample_rate:.6f} s, channel {channel + 1}"
                raise AudioError(f"{self.path} has a sample that is {kind} {where}; it cannot be separated.")
            start += len(block)
            yield torch.from_numpy(block.T.copy())
        if start == 0:
            raise AudioError(f"{self.path} holds no audio: its length is zero.")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: no file stays open between two runs of `blocks`."""


def read(path: str | os.PathLike[str]) -> tuple[Tensor, int]:
    """Read a whole audio file.

    Warns if the file is cut short or damaged and only a part of it could be read.

    Returns:
        The waveform (channels, time), float32 with full scale at 1.0, and its sample rate in Hz.

    Raises:
        AudioError: as `Reader`.
    """
    import torch

    reader = Reader(path)
    waveform = torch.cat(list(reader.blocks()), dim=1)
    if reader.warning:
        warnings.warn(reader.warning, stacklevel=2)
    return waveform, reader.sample_rate


def _regroup(chunks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield arrays (time, channels) of exactly `size` frames, the last one shorter."""
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


def _open_decoder(path: Path, stream: int) -> SoundFileDecoder | ContainerDecoder:
    head, size = _read_head(path)
    # MPEG audio: eleven bits of ones, then a version and a layer, which AAC does not have.
    if path.suffix.lower() == ".mp3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] > 0xE1 and head[1] & 6):
        # A header may state the length of the whole file, not of the first of several that were joined.
        at = max(head[:200].find(b"Xing"), head[:200].find(b"Info"))
        has_frames_and_bytes = at >= 0 and head[at + 7 : at + 8] != b"" and head[at + 7] & 3 == 3
        exact = has_frames_and_bytes and size < 1.1 * int.from_bytes(head[at + 12 : at + 16], "big")
        return ContainerDecoder(path, stream, exact)
    if stream:
        return ContainerDecoder(path, stream)
    import soundfile

    try:
        if head[:4] == b"OggS" and _is_chained(path):
            return ContainerDecoder(path, stream)
        return SoundFileDecoder(path)
    except (soundfile.LibsndfileError, TypeError) as error:
        # soundfile raises TypeError for .raw, which has no header.
        if head[:4] in (b"RIFF", b"RF64") and head.partition(b"fmt ")[2][6:8] == b"\0\0":
            raise AudioError(f"{path} has zero channels, so there is no audio in it.") from None
        detail = str(getattr(error, "error_string", "it has no header")).rstrip(".")
    try:
        return ContainerDecoder(path, stream)
    except AudioError:
        if path.suffix.lower().lstrip(".") not in READABLE:
            raise
        raise AudioError(f"{path} is damaged or not audio: it cannot be read as {path.suffix} ({detail}).") from None


def _read_head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes behind ID3 tags and the number of all bytes there; raise AudioError if there is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            if not head:
                raise AudioError(f"{path} is empty: it has 0 bytes.")
            size = os.fstat(file.fileno()).st_size
            while head[:3] == b"ID3" and len(head) >= 10:
                tag = 10 + functools.reduce(lambda total, byte: total << 7 | byte & 127, head[6:10], 0)
                file.seek(tag - len(head), os.SEEK_CUR)
                head = file.read(4096)
                size -= tag
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise AudioError(f"{path} is a folder, not an audio file.") from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {reason(error)}.") from None
    return head, size


def _is_chained(path: Path) -> bool:
    """Whether an Ogg file consists of several recordings: a stream begins behind pages of another one."""
    began = False
    with open(path, "rb") as file:
        while len(header := file.read(27)) == 27 and header[:4] == b"OggS":
            first = bool(header[5] & 2)
            if first and began:
                return True
            began |= not first
            file.seek(sum(file.read(header[26])), os.SEEK_CUR)
    return False


class SoundFileDecoder:
    """Decodes a file with libsndfile; see `Reader` for the attributes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warning: str | None = None
        with self._open() as file:
            self.sample_rate: int = file.samplerate
            self.channels: int = file.channels
            self.frames: int | None = file.frames if file.frames < UNKNOWN_FRAMES else None
            self.container: str | None = file.format
            self.subtype: str | None = file.subtype
            log = file.extra_info
        # A program that writes into a pipe cannot know the size and states the largest number.
        sizes = [(int(stated), int(actual)) for stated, actual in DECLARED_SIZE.findall(log)]
        self._cut_short = "lacks an end-of-stream" in log or any(
            stated > actual and stated % 2**31 <= 2**31 - 2**16 for stated, actual in sizes
        )

    def _open(self) -> Any:
        import soundfile

        file = soundfile.SoundFile(str(self.path) if sys.platform == "win32" else os.fsencode(self.path))
        # soundfile seeks after every read to where it already is, and the Opus decoder starts anew there: some 1,600
        # samples after each seam come out wrong.
        file.seekable = lambda: False
        return file

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all samples from the start, in arrays (time, channels)."""
        import soundfile

        self.warning = None
        got, damaged = 0, self._cut_short
        with self._open() as file:
            while True:
                try:
                    chunk = file.read(CHUNK, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    if got == 0:
                        detail = str(error.error_string).rstrip(".")
                        raise AudioError(f"{self.path} is damaged and cannot be decoded ({detail}).") from None
                    damaged = True
                    break
                if not len(chunk):
                    break
                got += len(chunk)
                yield chunk
        total = self.frames if self.frames is not None and got < self.frames else None
        if damaged or total is not None:
            of = None if total is None else total / self.sample_rate
            self.warning = truncation_warning(self.path, got / self.sample_rate, of)
