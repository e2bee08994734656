"""Reading audio files: libsndfile for what it reads correctly, PyAV for everything else."""

from __future__ import annotations

import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio.containers import ContainerDecoder, measure_bit_rate, open_container
from separation.audio.formats import COMPRESSION, READABLE
from separation.audio.joining import Decoder, JoinedDecoder, Span, open_view, warn_of_loss
from separation.audio.layouts import MASKS, SNDFILE, VORBIS_ORDER, describe_layout
from separation.audio.mpeg import MPEG_SUFFIXES, MpegDecoder
from separation.audio.ogg import find_links
from separation.audio.sizes import repair_sizes
from separation.audio.tags import measure_tag
from separation.audio.waveform import MAX_CHANNELS, MAX_RATE, MIN_RATE
from separation.errors import AudioError, reason

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from separation.audio.carried import Carried

CHUNK = 16_384  # frames per call of libsndfile
BLOCK_SECONDS = 10.0
BLOCK_VALUES = 2_000_000  # most samples in a block, all channels together
UNKNOWN_FRAMES = 2**62
GET_CHANNEL_MAP = 0x1100  # libsndfile's SFC_GET_CHANNEL_MAP_INFO, which soundfile has no function for
SIZED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "OGG", "FLAC", "SDS")  # see sizes.py and ogg.py
OTHER_MAGIC = (b"RIFF", b"OggS", b"fLaC", b"FORM")
CONTAINER_MAGIC = (b"\x1aE\xdf\xa3", b"\0\0\1\xba")
"""First bytes of files that are not MPEG audio, whatever their suffix is; libsndfile may rely on the suffix."""


class Reader:
    """An audio file that can be read block by block, any number of times.

    libsndfile decodes it, except for MPEG audio (`mpeg.py`) and other containers (`containers.py`). Recordings that are
    joined in an Ogg file are decoded one by one, by FFmpeg if damaged (`ogg.py`). Unfinished sizes in headers are
    repaired (`sizes.py`). If joined recordings differ in rate or channels, all are converted to those of the first.

    Args:
        path: the file.
        stream: which audio stream of a container with several, from 0, or its language; None: the one marked as
            default, or the first.

    Attributes:
        path: the file.
        sample_rate: in Hz.
        channels: number of channels, in the order of wav files.
        channel_mask: their loudspeakers, as in a wav file; 0 if not known.
        frames: samples per channel according to the header, None if unknown. For compressed and damaged files this
            is an estimate; count what `blocks` yields where it matters.
        container, subtype: libsndfile's names for the kind of file; None for containers that only PyAV reads.
        track, tracks, pictures: in a container, which audio stream it is (from 0), the languages of all of them, and
            whether there is a video stream.

    Raises:
        AudioError: if the file is missing, empty, unreadable or not audio.
    """

    def __init__(self, path: str | os.PathLike[str], stream: int | str | None = None) -> None:
        self.path = Path(path)
        with _explained(self.path):
            self._decoder = _open_decoder(self.path, stream)
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        if self.channels > MAX_CHANNELS or not MIN_RATE <= self.sample_rate <= MAX_RATE:
            claim, most = f"{self.channels} channels at {self.sample_rate} Hz", f"at most {MAX_CHANNELS} channels"
            raise AudioError(f"{self.path} claims {claim}; {most} at {MIN_RATE} to {MAX_RATE} Hz can be read.")
        self.channel_mask = self._decoder.channel_mask
        self.frames = self._decoder.frames
        self.container = self._decoder.container
        self.subtype = self._decoder.subtype
        self.track: int = getattr(self._decoder, "track", 0)
        self.tracks: list[str] = getattr(self._decoder, "tracks", [""])
        self.pictures: bool = getattr(self._decoder, "pictures", False)
        if self.container == "FLAC" and self.channels > 2:  # libsndfile does not read unusual loudspeakers
            self.channel_mask = self.carried.channel_mask or self.channel_mask

    @cached_property
    def carried(self) -> Carried:
        """Tags, covers and further chunks of the file, for `Writer`."""
        from separation.audio.carried import read_carried

        return read_carried(self.path, self.container, open_container)

    @cached_property
    def bit_rate(self) -> int | None:
        """Bits per second of mp3, Vorbis or Opus, estimated from the first minutes; None for others."""
        return measure_bit_rate(self.path) if self.subtype in COMPRESSION else None

    def accept_holes(self) -> None:
        """Do not count holes in the sound of a container as a loss: `FilmWriter` fills them."""
        if isinstance(self._decoder, ContainerDecoder):
            self._decoder.holes_count = False

    @property
    def timeline(self) -> list[tuple[int, float]]:
        """Samples from which on time does not go on as before, with their times in seconds: known once it was read."""
        return getattr(self._decoder, "timeline", [])

    @property
    def warning(self) -> str | None:
        """After reading to the end: a sentence if the file is damaged, truncated or of several kinds, else None."""
        return self._decoder.warning

    def chunks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield all samples from sample `start` on as arrays (time, channels) of any length, unchecked.

        Samples before the start are not decoded if the format allows it.
        """
        with _explained(self.path):
            yield from self._decoder.chunks(start)

    def blocks(self, seconds: float | None = None) -> Iterator[Tensor]:
        """Yield all samples from the start as tensors (channels, time) of `seconds`, the last one shorter.

        By default a block has ten seconds, or less if there are very many channels.

        Raises:
            AudioError: if the file can no longer be read or holds no samples, or at the first that is not finite.
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


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the error of a file that disappears or cannot be read further into an AudioError."""
    import soundfile

    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error.error_string).rstrip(".").lower()
        why = why if os.path.exists(path) else "it is not there any more"
        raise AudioError(f"{path} cannot be read: {why}.") from None


def _open_decoder(path: Path, stream: int | str | None) -> Decoder:
    head = _read_head(path)
    if head.startswith(CONTAINER_MAGIC) or head[4:8] == b"ftyp":
        return ContainerDecoder(path, stream)
    other = head.startswith(OTHER_MAGIC)
    # Eleven bits of ones begin a frame of MPEG audio or AAC; libsndfile would print what it finds wrong with them.
    frame = head[:1] == b"\xff" and head[1:2] >= b"\xe0"
    if not other and (frame or path.suffix.lower() in MPEG_SUFFIXES):
        with suppress(AudioError):
            return MpegDecoder(path)
        return ContainerDecoder(path, stream)
    if stream:
        return ContainerDecoder(path, stream)
    import soundfile

    try:
        if head[:4] == b"OggS":
            return _open_ogg(path)
        spans, note, cut = repair_sizes(path)
        if path.suffix.lower() in MPEG_SUFFIXES:  # a view has no suffix
            spans = spans or [(0, path.stat().st_size)]
        return SoundFileDecoder(path, spans, note, cut)
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


def _open_ogg(path: Path) -> Decoder:
    """Open each of the recordings that an Ogg file consists of."""
    import soundfile

    parts: list[Decoder] = []
    failed = False
    for link in find_links(path):
        try:
            if link.streams == 1 and not link.damaged:
                with suppress(soundfile.LibsndfileError):
                    parts.append(SoundFileDecoder(path, link.spans))
                    continue
            parts.append(ContainerDecoder(path, 0, link.spans, link.damaged))
        except AudioError:
            if not parts:
                raise
            failed = True
    if len(parts) == 1 and not failed:
        return parts[0]
    return JoinedDecoder(path, parts, failed) if parts else ContainerDecoder(path)


def _read_head(path: Path) -> bytes:
    """Return the first bytes after ID3 tags; raise AudioError if the file is empty or cannot be read."""
    try:
        if not stat.S_ISREG(mode := os.stat(path).st_mode) and not stat.S_ISDIR(mode):
            raise AudioError(f"{path} is a pipe, socket or device; it must be copied to a file to be read.")
        with open(path, "rb") as file:
            head = file.read(4096)
            if not head:
                raise AudioError(f"{path} is empty: it has 0 bytes.")
            while head[:3] == b"ID3" and (tag := measure_tag(head, 0)):
                file.seek(tag - len(head), os.SEEK_CUR)
                head = file.read(4096)
    except FileNotFoundError:
        what = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise AudioError(f"{path} {what}.") from None
    except ValueError:
        raise AudioError(f"{path!s} cannot be read: the name is not valid.") from None
    except IsADirectoryError:
        raise AudioError(f"{path} is a folder, not an audio file.") from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {reason(error)}.") from None
    return head


class SoundFileDecoder:
    """Decodes a file, or spans of it, with libsndfile; see `Reader` for the attributes.

    Args:
        path: the file.
        spans: parts of the file, and other bytes, to read instead of it.
        note: a sentence about bytes that are not read.
        cut: whether the file is known to be truncated.
    """

    def __init__(self, path: Path, spans: Sequence[Span] = (), note: str | None = None, cut: bool = False) -> None:
        self.path, self._spans, self._notes, self._cut = path, spans, [note] if note else [], cut
        self.warning: str | None = None
        with self._open() as file:
            self.sample_rate: int = file.samplerate
            self.channels: int = file.channels
            self.frames: int | None = file.frames if file.frames < UNKNOWN_FRAMES else None
            self.container: str | None = file.format
            self.subtype: str | None = file.subtype
            self.channel_mask, self._order = self._find_layout(file)
            log = "" if self.container in SIZED else file.extra_info
        if self.container == "NIST":
            with open(path, "rb") as head:
                log += head.read(1024).decode("latin-1")
        # libsndfile counts what is there, but logs what the header says.
        stated = [int(number) for number in re.findall(r"(?:Frames|Cols|sample_count -i)[ :]+(\d{1,12})\b", log)]
        self.frames = max([self.frames, *stated]) if self.frames is not None else None
        pairs = re.findall(r"(\d{1,12}) \(?should be (\d{1,12})\b", log)
        self._cut |= "seems to be a truncated" in log.lower() or any(int(old) > int(new) for old, new in pairs)

    def _find_layout(self, file: Any) -> tuple[int, list[int] | None]:
        """Return the channel mask of an open file and the order that sorts its channels as in wav files."""
        import soundfile

        if self.container in ("OGG", "FLAC"):
            return MASKS.get(self.channels, 0), VORBIS_ORDER.get(self.channels) if self.container == "OGG" else None
        numbers = soundfile._ffi.new("int[]", self.channels)
        size = self.channels * soundfile._ffi.sizeof("int")
        if self.container == "AIFF" or not soundfile._snd.sf_command(file._file, GET_CHANNEL_MAP, numbers, size):
            return 0, None
        return describe_layout([SNDFILE.get(number, "") for number in numbers])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import soundfile

        with ExitStack() as stack:
            name = str(self.path) if sys.platform == "win32" else os.fsencode(self.path)
            view = stack.enter_context(open_view(self.path, self._spans)) if self._spans else None
            file = stack.enter_context(soundfile.SoundFile(view or name))
            # soundfile seeks to the current position after every read, which resets the Opus decoder: about 1,600
            # samples after each position would be wrong.
            file.seekable = lambda: False
            yield file

    def chunks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield all samples from sample `start` on, in arrays (time, channels).

        FFmpeg continues where libsndfile fails.
        """
        import soundfile

        self.warning, detail = None, ""
        got = start
        with self._open() as file:
            if (file.samplerate, file.channels) != (self.sample_rate, self.channels):
                raise AudioError(f"{self.path} changed while it was being read.")
            try:
                skip = 0 if self.frames else start
                if start and self.frames:
                    file.seek(min(start, self.frames))
                while len(chunk := file.read(CHUNK, dtype="float32", always_2d=True)):
                    chunk, skip = chunk[skip:], max(0, skip - len(chunk))
                    got += len(chunk)
                    yield chunk if self._order is None else chunk[:, self._order]
            except soundfile.LibsndfileError as error:
                detail = str(error.error_string).rstrip(".")
        slack = 2 * 1152 if self.subtype == "MPEG_LAYER_III" else 0  # in wav, FFmpeg counts the delay of the encoder
        if detail:
            slack = 0
            with suppress(AudioError):
                decoder = ContainerDecoder(self.path, 0, self._spans, damaged=True)
                if (decoder.sample_rate, decoder.channels) == (self.sample_rate, self.channels):
                    for chunk in decoder.chunks(got):
                        got += len(chunk)
                        yield chunk
            if not got:
                raise AudioError(f"{self.path} is damaged and cannot be decoded ({detail}).")
        total = self.frames if self.frames is not None and got < self.frames - slack else None
        self.warning = warn_of_loss(self.path, got, self.sample_rate, total, self._cut or bool(detail), self._notes)
