"""MPEG audio (mp3, mp2, mp1), frame by frame.

Such files may be joined, tagged in the middle, cut, or recorded from the middle of a stream, and often do not state
their length. Every frame states its own size, so frames are located here, and FFmpeg's decoder gets only frames. Tags
and padding between frames are skipped; any other bytes there count as damage.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from separation.audio.joining import Piece, skip, unify, warn_of_loss
from separation.audio.tags import measure_tag, skip_tags
from separation.errors import AudioError

if TYPE_CHECKING:
    import numpy as np

MPEG_SUFFIXES = (".mp3", ".mp2", ".mp1", ".mpa")
RATES = (44100, 48000, 32000)
BITRATES = {  # kbit/s, by version 1 (else 2 and 2.5) and layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
LARGEST_FRAME, SMALLEST_FRAME = 2881, 24  # bytes
WINDOW = 1 << 14  # bytes to look ahead: more than three frames
LANDMARK = re.compile(rb"\xff[\xe2-\xff]|ID3[\2-\4]|APETAGEX|TAG|LYRICSBEGIN|3DI[\2-\4]")
DECODER_DELAY = 529  # samples that every decoder adds at the start
PREROLL = 10  # frames that a decoder needs before what it decodes is right


class Frame(NamedTuple):
    """Contents of a frame header; size in bytes."""

    layer: int
    rate: int
    channels: int
    size: int
    samples: int


class Header(NamedTuple):
    """Contents of the Xing, Info or VBRI frame at the start of a recording; None where it states nothing."""

    frames: int | None
    size: int | None
    delay: int
    padding: int


@functools.lru_cache(4096)
def parse_frame(head: bytes) -> Frame | None:
    """Parse the four bytes of a frame header; return None if they are not one."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate == 3 or head[2] >> 4 in (0, 15):
        return None
    first, padding = version == 3, head[2] >> 1 & 1
    hertz = RATES[rate] >> (0 if first else 3 - version if version == 2 else 2)
    bits = 1000 * BITRATES[first, layer][head[2] >> 4]
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    size = 4 * (12 * bits // hertz + padding) if layer == 1 else samples // 8 * bits // hertz + padding
    return Frame(layer, hertz, 1 if head[3] >> 6 == 3 else 2, size, samples)


def parse_header(data: bytes) -> Header | None:
    """Parse a Xing, Info or VBRI frame; return None for a frame of sound."""
    if data[36:40] == b"VBRI":
        return Header(int.from_bytes(data[50:54], "big"), int.from_bytes(data[46:50], "big"), 0, 0)
    found = re.search(rb"Xing|Info", data[13:42])
    if not found:
        return None
    at = 13 + found.end()
    flags, at = int.from_bytes(data[at : at + 4], "big"), at + 4
    fields: list[int | None] = []
    for bit, length in ((1, 4), (2, 4), (4, 100), (8, 4)):
        fields.append(int.from_bytes(data[at : at + 4], "big") if flags & bit else None)
        at += length if flags & bit else 0
    gap = int.from_bytes(data[at + 21 : at + 24], "big")  # of the encoder: two numbers of 12 bits
    if not gap:
        return Header(fields[0], fields[1], 0, 0)
    return Header(fields[0], fields[1], (gap >> 12) + DECODER_DELAY, max(0, (gap & 4095) - DECODER_DELAY))


def find_frames(file: BinaryIO) -> Iterator[tuple[Frame | None, bytes]]:
    """Yield the frames of a file with their bytes, and other bytes, except tags, with None.

    Bytes count as frames if three follow each other, or fewer up to a tag or the end.
    """
    size = os.fstat(file.fileno()).st_size
    data, at, ended, kind = b"", 0, False, None

    def is_frame(place: int) -> bool:
        frame = first = parse_frame(data[place : place + 4])
        for _ in range(2):
            if frame is None or first is None or frame[:2] != first[:2]:
                return False
            place += frame.size
            if measure_tag(data, place) or (ended and place == len(data)):
                return True
            frame = parse_frame(data[place : place + 4])
        return frame is not None and first is not None and frame[:2] == first[:2]

    while True:
        if len(data) - at < WINDOW and not ended:
            more = file.read(1 << 18)
            data, at, ended = data[at:] + more, 0, not more
            continue
        if at >= len(data):
            return
        tag = measure_tag(data, at)
        if tag and file.tell() - len(data) + at + tag <= size:  # otherwise not a tag, or a wrong size
            beyond = at + tag - len(data)
            if beyond > 0:
                file.seek(beyond, os.SEEK_CUR)
            at, kind = min(at + tag, len(data)), None
            continue
        frame = parse_frame(data[at : at + 4])
        if frame and (frame[:3] == kind or is_frame(at)):
            if at + frame.size > len(data):
                yield None, data[at:]
                return
            yield frame, data[at : at + frame.size]
            at, kind = at + frame.size, frame[:3]
            continue
        limit = len(data) if ended else len(data) - WINDOW // 2
        places = (found.start() for found in LANDMARK.finditer(data, at + 1, limit))
        end = next((place for place in places if measure_tag(data, place) or is_frame(place)), max(limit, at + 1))
        yield None, data[at:end]
        at, kind = end, None


@dataclass
class _Recording:
    """One of the recordings that a file consists of, while it is decoded."""

    header: Header
    frames: int = 0
    size: int = 0
    skipped: int = 0

    @property
    def short(self) -> bool:
        """Whether there is less than the header states."""
        if self.header.size:
            return self.size + LARGEST_FRAME < self.header.size
        return self.frames + 1 < (self.header.frames or 0)


class MpegDecoder:
    """Decodes MPEG audio; see `Reader` for the attributes.

    Raises:
        AudioError: if the file holds no frame.
    """

    container: str | None = "MP3"
    channel_mask = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warning: str | None = None
        self.frames: int | None = None
        with open(path, "rb") as file:
            frame, data = next((item for item in find_frames(file) if item[0]), (None, b""))
            header = parse_header(data)
            end = skip_tags(file, skip_tags(file, 0) + (header.size or 0)) if header else 0
            size = os.fstat(file.fileno()).st_size
        if frame is None:
            raise AudioError(f"{path} holds no audio that can be read: there are no MPEG audio frames in it.")
        self.sample_rate, self.channels = frame.rate, frame.channels
        self.subtype: str | None = f"MPEG_LAYER_{'I' * frame.layer}"
        self._samples, self._delay = frame.samples, header.delay if header else 0
        # The header counts if it covers the whole file, and not only the first of several joined files.
        if header and header.frames and end >= size > header.frames * SMALLEST_FRAME:
            self.frames = max(0, header.frames * frame.samples - header.delay - header.padding)

    def chunks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield all samples from sample `start` on, in arrays (time, channels) of any length."""
        self.warning, self._lost, self._short = None, b"", False
        notes: list[str] = []
        # If the length is known, all frames are of one kind, and those far before the start need no decoding.
        passed = 0 if self.frames is None else max(0, (start + self._delay) // self._samples - PREROLL)
        chunks = unify(self.path, self._pieces(passed), self.sample_rate, self.channels, notes)
        frames = yield from skip(chunks, start, passed and passed * self._samples - self._delay)
        stated = self.frames if self._short else None
        damaged = bool(self._lost) or self._short
        self.warning = warn_of_loss(self.path, frames, self.sample_rate, stated, damaged, notes)

    def _pieces(self, passed: int) -> Iterator[Piece]:
        """Yield unconverted samples with their rate, from frame `passed` on."""
        import av
        import numpy as np

        decoder: Any = None
        kind: tuple[int, ...] | None = None
        part, held = _Recording(Header(None, None, 0, 0)), None
        with open(self.path, "rb") as file:
            for frame, data in find_frames(file):
                if frame is None:
                    # Bytes before the first frame may be the end of another.
                    if part.frames or len(data) > LARGEST_FRAME:
                        self._lost = self._lost or data.strip(b"\0")
                    continue
                header = parse_header(data)
                if header or frame[:3] != kind:
                    if held is not None and kind:
                        whole = header and part.frames == part.header.frames
                        yield kind[1], held[: len(held) - part.header.padding] if whole else held
                        held = None
                    decoder, kind = av.CodecContext.create(f"mp{frame.layer}float", "r"), frame[:3]
                if header:
                    self._short |= part.short
                    part = _Recording(header, size=frame.size)
                    continue
                part.frames, part.size = part.frames + 1, part.size + frame.size
                if passed > 0:
                    passed, part.skipped = passed - 1, part.header.delay
                    continue
                try:
                    frames = decoder.decode(av.Packet(data)) if decoder else []
                except av.error.FFmpegError:
                    self._lost = self._lost or (data if part.frames > 1 else b"")
                    continue
                for decoded in frames:
                    samples = decoded.to_ndarray().T
                    skip = min(len(samples), part.header.delay - part.skipped)
                    part.skipped += skip
                    samples = samples[skip:] if held is None else np.concatenate([held, samples[skip:]])
                    split = max(0, len(samples) - part.header.padding)
                    yield frame.rate, samples[:split]
                    held = samples[split:]
        self._short |= part.short
        if held is not None and kind:
            whole = part.frames == part.header.frames
            yield kind[1], held[: len(held) - part.header.padding] if whole else held
