"""Repair of sizes in the headers of wav, RF64, W64, AIFF, CAF and AU files whose writer did not finish them.

A program that is killed or writes to a pipe leaves 0 or the largest number as the size of the sound. The sound then
extends to the end of the file or to the chunks after it.

The size of other containers is compared with what their headers state.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

if TYPE_CHECKING:
    from separation.audio.joining import Span

MAX_CHUNKS = 1000
MAX_BEHIND = 100  # chunks after the sound, and positions at which the first may begin
MAX_LISTS = 1 << 14  # bytes of texts before the sound: libsndfile takes few, FFmpeg a time that grows with their square
BEHIND = 1 << 18  # bytes at the end of the file that are searched for chunks after unfinished sound
CHUNK_NAME = re.compile(
    rb"LIST|id3 |ID3 |bext|iXML|_PMX|axml|cue |smpl|inst|PEAK|fact|JUNK|junk|acid|afsp|info|free|NAME|AUTH|ANNO|MARK"
)
SLACK = 16  # bytes at the end of a file that may be ignored silently
ASF, ASF_PROPERTIES = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11"
SEGMENT = b"\x18\x53\x80\x67"  # of Matroska
MAX_BOXES, TRANSPORT = 100_000, 188  # boxes of an MP4 file that are counted, and bytes of a packet of MPEG-TS


class Layout(NamedTuple):
    """Chunks of a kind of file.

    Attributes:
        first: position of the first chunk.
        name: length of a chunk's name in bytes.
        width: length of its size field.
        order: byte order.
        align: chunks begin at multiples of this.
        sound: name of the chunk with the sound.
        own: bytes of the chunk header that its size includes.
        lead: bytes before the sound in its chunk.
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
    """Position and stated size of the sound in a file, in bytes.

    Attributes:
        layout: of the file.
        size_at: position of the size field.
        start: where the contents of the chunk begin.
        stated: its size according to the header.
        width: length of the size field.
        block: bytes per sample of all channels (1: unknown).
        lists: positions of chunks of texts in front of it that are too large for the libraries.
    """

    layout: Layout
    size_at: int
    start: int
    stated: int
    width: int
    block: int = 1
    lists: tuple[int, ...] = ()


def find_sound(file: BinaryIO, size: int) -> Sound | None:
    """Find the sound in a file; return None if it has none or is of another kind."""
    file.seek(0)
    head = file.read(48)
    if head[:4] in (b".snd", b"dns."):
        order: Literal["little", "big"] = "big" if head[:1] == b"." else "little"
        start, stated = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
        return Sound(Layout(0, 0, 4, order, 1, b""), 8, start, stated, 4) if 24 <= start <= size else None
    layout = LAYOUTS.get(head[:4])
    if layout is None:
        return None
    at, block, large, listed = layout.first, 1, None, 0
    lists: list[int] = []
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
            size_at, start, width = at + layout.name, at + layout.name + layout.width, layout.width
            if large and stated in (0, 2**32 - 1):
                (size_at, stated), width = large, 8
            found = tuple(lists) if listed > MAX_LISTS else ()
            return Sound(layout, size_at, start, stated - layout.own, width, block, found)
        elif data[:4] == b"LIST":
            lists.append(at)
            listed += stated
        at += layout.name + layout.width + max(0, stated - layout.own)
        at += -at % layout.align
    return None


def is_chunks(file: BinaryIO, layout: Layout, at: int, size: int, behind: bool = False) -> bool:
    """Return whether there are only chunks from a position to the end of the file, none with sound if `behind`."""
    for _ in range(MAX_BEHIND):
        if size - at < SLACK or not layout.name:
            return size - at < SLACK
        file.seek(at)
        head = file.read(layout.name + layout.width)
        stated = int.from_bytes(head[layout.name :], layout.order) - layout.own
        if head[:4] in LAYOUTS or not re.fullmatch(rb"[ -~]{4}", head[:4]) or stated < 0:
            return False
        if behind and head[: layout.name] == layout.sound:
            return False
        at += layout.name + layout.width + stated
        if at > size + 1:
            return False
        at += -at % layout.align
    return False


def repair_sizes(path: Path) -> tuple[list[Span], str | None, bool]:
    """Determine how much sound a file contains, whatever its header states.

    Returns:
        Spans to decode instead of the file (none: the file itself), a sentence about bytes that are not read or None,
        and whether the file is truncated.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        sound = find_sound(file, size)
        if sound is None or sound.start + sound.layout.lead >= size:
            return [], None, False
        layout, start, stated, whole = sound.layout, sound.start, sound.stated, _patch(sound, size)
        rest, top = size - start, 2 ** (8 * sound.width)
        # The largest signed and unsigned number, or nearly.
        largest = stated > rest and min(abs(stated - top), abs(stated - top // 2)) <= 1 << 16
        if stated > rest and not largest:
            return _patch(sound, size, rest), None, True
        if largest or (stated <= layout.lead and not is_chunks(file, layout, start + max(0, stated), size)):
            return _patch(sound, size, find_end(file, sound, size) - start), None, False
        if 0 < -stated % sound.block <= rest - stated < SLACK:  # only a part of the last sample is counted
            return _patch(sound, size, stated + -stated % sound.block), None, False
        end = start + stated
        if size - end < SLACK:
            return whole, None, False
        if is_chunks(file, layout, end + -end % layout.align, size, behind=True):
            # In W64 files, libsndfile reads chunks after the sound as sound.
            return [(0, end)] if layout.name == 16 else whole, None, False
        if (rest - stated) % 2**32 == 0 and sound.width == 4:  # more than four gigabytes
            return _patch(sound, size, rest), None, False
        file.seek(end)
        left = f"{path} has {size - end} bytes after the sound that its header describes; they are not read."
        return _patch(sound, end) or [(0, end)], left if file.read(1 << 16).strip(b"\0") else None, False


def find_end(file: BinaryIO, sound: Sound, size: int) -> int:
    """Return the end of sound of unknown size: the first chunk after it, or the end of the file."""
    first = max(sound.start, size - BEHIND)
    file.seek(first)
    for found in islice(CHUNK_NAME.finditer(file.read(BEHIND)), MAX_BEHIND):
        at = first + found.start()
        if is_chunks(file, sound.layout, at, size) and size - at >= SLACK:
            return at
    return size


def _patch(sound: Sound, end: int, content: int | None = None) -> list[Span]:
    """Return spans of the file up to `end` without long lists and with another size of its sound; [] for no change."""
    changes = [(at, b"JUNK") for at in sound.lists]
    if content is not None:
        changes.append((sound.size_at, (content + sound.layout.own).to_bytes(sound.width, sound.layout.order)))
    return replace_bytes(end, changes)


def replace_bytes(end: int, changes: Iterable[tuple[int, bytes]]) -> list[Span]:
    """Return spans of a file up to `end` with other bytes at some positions; [] without changes."""
    spans: list[Span] = []
    at = 0
    for start, data in sorted(changes):
        spans += [(at, start), data]
        at = start + len(data)
    return [*spans, (at, end)] if spans else []


def compare_size(path: Path) -> tuple[str | None, bool]:
    """Compare the size of a container that FFmpeg reads with the size that its header states.

    Returns:
        A sentence about another recording after it, which is not read, or None; and whether the file is truncated.
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
            text = f"{path} has {size - stated} bytes after the recording that its header describes; they are not read."
            return text, False
        return None, stated > size
    return None, False


def _state_size(file: BinaryIO, head: bytes, size: int) -> int | None:
    """Return the size in bytes that a container states; None if it states none or an impossible one."""
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
