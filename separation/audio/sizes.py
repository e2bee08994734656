"""Sizes in the headers of wav, RF64, W64, AIFF, CAF and AU files that are wrong because nobody finished them.

A program that is killed or writes into a pipe leaves 0 or the largest number where the size of the sound should be. The
sound then reaches to the end of the file, or to the chunks that are behind it.

Other containers are compared with what they say about their own size.
"""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from separation.audio.joining import Span

MAX_CHUNKS = 1000
MAX_BEHIND = 100  # chunks, and places where they may begin
BEHIND = 1 << 18  # bytes at the end in which chunks behind unfinished sound are looked for
CHUNK_NAME = re.compile(
    rb"LIST|id3 |ID3 |bext|iXML|_PMX|axml|cue |smpl|inst|PEAK|fact|JUNK|junk|acid|afsp|info|free|NAME|AUTH|ANNO|MARK"
)
SLACK = 16  # bytes behind the chunks that nobody misses
ASF, ASF_PROPERTIES = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11"
SEGMENT = b"\x18\x53\x80\x67"  # of Matroska
MAX_BOXES, TRANSPORT = 100_000, 188  # boxes of an MP4 file that are counted, and bytes of a packet of MPEG-TS


class Layout(NamedTuple):
    """How a kind of file is made of chunks: where the first is, and its name, size, padding and the sound's name.

    `own` is the number of bytes that the size of a chunk counts besides its contents, and `lead` that of the bytes in
    front of the sound in its chunk.
    """

    first: int
    name: int
    width: int
    order: Literal["little", "big"]
    align: int
    sound: bytes
    own: int = 0
    lead: int = 0


LAYOUTS = {
    b"RIFF": Layout(12, 4, 4, "little", 2, b"data"),
    b"RF64": Layout(12, 4, 4, "little", 2, b"data"),
    b"BW64": Layout(12, 4, 4, "little", 2, b"data"),
    b"RIFX": Layout(12, 4, 4, "big", 2, b"data"),
    b"FORM": Layout(12, 4, 4, "big", 2, b"SSND", lead=8),
    b"caff": Layout(8, 4, 8, "big", 1, b"data", lead=4),
    b"riff": Layout(40, 16, 8, "little", 8, b"data\xf3\xac\xd3\x11\x8c\xd1\0\xc0O\x8e\xdb\x8a", own=24),
}


@dataclass(frozen=True)
class Sound:
    """Where the sound of a file is and how long its header says it is, in bytes.

    `size_at` and `width` are the place of the size, `start` is where the sound begins with the layout's `lead` bytes,
    and `block` is the number of bytes of all channels of a sample (1: not known).
    """

    layout: Layout
    size_at: int
    start: int
    stated: int
    width: int
    block: int = 1


def find_sound(file: BinaryIO, size: int) -> Sound | None:
    """Find the sound in a file; None if it is of another kind or has none."""
    file.seek(0)
    head = file.read(48)
    if head[:4] in (b".snd", b"dns."):
        order: Literal["little", "big"] = "big" if head[:1] == b"." else "little"
        start, stated = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
        return Sound(Layout(0, 0, 4, order, 1, b""), 8, start, stated, 4) if 24 <= start <= size else None
    layout = LAYOUTS.get(head[:4])
    if layout is None:
        return None
    at, block, large = layout.first, 1, None
    for _ in range(MAX_CHUNKS):
        if at + layout.name + layout.width > size:
            return None
        file.seek(at)
        data = file.read(layout.name + layout.width + 40)
        stated = int.from_bytes(data[layout.name :][: layout.width], layout.order)
        body = data[layout.name + layout.width :]
        if data[:4] == b"ds64":  # the sizes of RF64
            large = at + 16, int.from_bytes(body[8:16], "little")
        elif data[:4] == b"fmt ":
            block = int.from_bytes(body[12:14], layout.order) or 1
        elif data[: layout.name] == layout.sound:
            size_at, start = at + layout.name, at + layout.name + layout.width
            if large and stated in (0, 2**32 - 1):
                return Sound(layout, large[0], start, large[1], 8, block)
            return Sound(layout, size_at, start, stated - layout.own, layout.width, block)
        at += layout.name + layout.width + max(0, stated - layout.own)
        at += -at % layout.align
    return None


def is_chunks(file: BinaryIO, layout: Layout, at: int, size: int) -> bool:
    """Whether nothing but chunks is between a place and the end of the file."""
    for _ in range(MAX_BEHIND):
        if size - at < SLACK or not layout.name:
            return size - at < SLACK
        file.seek(at)
        head = file.read(layout.name + layout.width)
        stated = int.from_bytes(head[layout.name :], layout.order) - layout.own
        if head[:4] in LAYOUTS or not re.fullmatch(rb"[ -~]{4}", head[:4]) or stated < 0:
            return False
        at += layout.name + layout.width + stated
        if at > size + 1:
            return False
        at += -at % layout.align
    return False


def repair_sizes(path: Path) -> tuple[list[Span], str | None, bool]:
    """Find out how much sound a file holds whose header may be wrong about that.

    Returns:
        what a decoder should get instead of the file (nothing: the file itself), a sentence about bytes that are not
        read, and whether the file is cut short.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        sound = find_sound(file, size)
        if sound is None or sound.start + sound.layout.lead >= size:
            return [], None, False
        layout, start, stated = sound.layout, sound.start, sound.stated
        rest, top = size - start, 2 ** (8 * sound.width)
        # The largest signed and unsigned number, or nearly.
        largest = stated > rest and min(abs(stated - top), abs(stated - top // 2)) <= 1 << 16
        if stated > rest and not largest:
            return _patch(sound, rest, size), None, True
        if largest or (stated <= layout.lead and not is_chunks(file, layout, start + max(0, stated), size)):
            return _patch(sound, _find_end(file, sound, size) - start, size), None, False
        if 0 < -stated % sound.block <= rest - stated < SLACK:  # only a part of the last sample is counted
            return _patch(sound, stated + -stated % sound.block, size), None, False
        end = start + stated
        if size - end < SLACK:
            return [], None, False
        if is_chunks(file, layout, end + -end % layout.align, size):
            # libsndfile takes chunks behind the sound of W64 for sound.
            return [(0, end)] if layout.name == 16 else [], None, False
        if (rest - stated) % 2**32 == 0 and sound.width == 4:  # more than four gigabytes
            return _patch(sound, rest, size), None, False
        file.seek(end)
        left = f"{path} has {size - end} bytes behind the sound that its header describes; they are not read."
        return [(0, end)], left if file.read(1 << 16).strip(b"\0") else None, False


def _find_end(file: BinaryIO, sound: Sound, size: int) -> int:
    """Where sound of unknown size ends: at the first of the chunks that reach to the end of the file, or there."""
    first = max(sound.start, size - BEHIND)
    file.seek(first)
    for found in islice(CHUNK_NAME.finditer(file.read(BEHIND)), MAX_BEHIND):
        at = first + found.start()
        if is_chunks(file, sound.layout, at, size) and size - at >= SLACK:
            return at
    return size


def _patch(sound: Sound, content: int, size: int) -> list[Span]:
    """The file with another size of its sound."""
    number = (content + sound.layout.own).to_bytes(sound.width, sound.layout.order)
    return [(0, sound.size_at), number, (sound.size_at + len(number), size)]


def compare_size(path: Path) -> tuple[str | None, bool]:
    """Compare the size of a container for FFmpeg with what it says about it.

    Returns:
        a sentence about another recording behind it, which is not read, and whether the file is cut short.
    """
    with suppress(OSError, OverflowError, ValueError, struct.error), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        stated = _state_size(file, file.read(4096), size)
        if stated is None:
            return None, False
        file.seek(0)
        first = file.read(8)
        file.seek(stated)
        begin = slice(4, 8) if first[4:8] == b"ftyp" else slice(0, 4)
        if size - stated > SLACK and file.read(8)[begin] == first[begin]:
            text = (
                f"{path} has {size - stated} bytes behind the recording that its header describes; they are not read."
            )
            return text, False
        return None, stated > size
    return None, False


def _state_size(file: BinaryIO, head: bytes, size: int) -> int | None:
    """What a container says about its size, in bytes; None if it says nothing that can be believed."""
    at = 0
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        while (part := head[:12])[:4] == b"RIFF" and part[8:12] == (b"AVIX" if at else b"AVI "):
            length = int.from_bytes(part[4:8], "little")
            at += 8 + length + length % 2
            file.seek(at)
            head = file.read(12)
            if not 12 < length < 2**32 - 1:
                return None
        return at
    if head[:8] == ASF and (found := head.find(ASF_PROPERTIES)) > 0:
        return int.from_bytes(head[found + 40 : found + 48], "little") or None
    if head[:3] == b"FLV" and (found := head.find(b"filesize\0")) > 0:
        return int(struct.unpack(">d", head[found + 9 : found + 17])[0]) or None
    if head[:4] == b"\x1aE\xdf\xa3" and (at := head.find(SEGMENT) + 4) > 4:
        width = 9 - head[at].bit_length()
        length = int.from_bytes(head[at : at + width], "big") - (1 << 7 * width)
        return at + width + length if 0 < length < (1 << 7 * width) - 1 else None
    if head[::TRANSPORT][:3] == b"GGG":
        return size + -size % TRANSPORT
    fragments = False
    for _ in range(MAX_BOXES if head[4:8] == b"ftyp" else 0):
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        fragments |= head[4:8] == b"moof"
        if at >= size or length < 8 or (at and head[4:8] == b"ftyp" and not fragments):
            return at
        at += length
    return None
