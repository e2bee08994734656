"""Pages of Ogg files: finds joined recordings and damage, and repairs what a decoder gets."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from separation.audio.joining import Span


MAGIC = b"OggS"
CONTINUED, FIRST, LAST = 1, 2, 4  # bits of a page's type
REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
LARGEST_GAP = 16  # missing pages after the headers that count as damage
SEARCHED = 1 << 18  # bytes read at once between damaged pages


@dataclass
class Link:
    """One of the recordings that were joined to a file.

    Attributes:
        spans: its pages without other bytes; the last one is complete and marked as last.
        streams: number of parallel streams.
        damaged: whether pages are missing or cut.
    """

    spans: list[Span] = field(default_factory=list)
    streams: int = 0
    damaged: bool = False


@dataclass
class Page:
    """A page: position, header with lacing values, and payload; the last one of a file may be incomplete."""

    start: int
    header: bytes
    payload: bytes
    complete: bool

    @property
    def kind(self) -> int:
        """The type bits."""
        return self.header[5]

    @property
    def serial(self) -> bytes:
        """The number of its stream."""
        return self.header[14:18]

    @property
    def number(self) -> int:
        """The sequence number in its stream."""
        return int.from_bytes(self.header[18:22], "little")

    @property
    def end(self) -> int:
        """Where the next page begins."""
        return self.start + len(self.header) + len(self.payload)


def checksum(page: bytes) -> bytes:
    """Return the checksum of a page whose checksum field is zero: CRC-32, most significant bit first."""
    reflected = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2).to_bytes(4, "little")


def read_page(file: BinaryIO, start: int) -> Page | None:
    """Return the page at a position; None if there is none or it is damaged."""
    file.seek(start)
    header = file.read(27)
    if header[:5] != MAGIC + b"\0" or len(header) < 27:
        return None
    header += file.read(header[26])
    size = sum(header[27:])
    payload = file.read(size)
    complete = len(header) == 27 + header[26] and len(payload) == size
    if complete and checksum(header[:22] + bytes(4) + header[26:] + payload) != header[22:26]:
        return None
    return Page(start, header, payload, complete)


def find_pages(file: BinaryIO) -> Iterator[Page | None]:
    """Yield the pages of a file, and None for a damaged page or for bytes other than zeros between pages."""
    start = 0
    while True:
        if page := read_page(file, start):
            yield page
            if not page.complete:
                return
            start = page.end
            continue
        file.seek(start)
        data = file.read(SEARCHED)
        if not data:
            return
        found = data.find(MAGIC, 1)
        end = found if found > 0 else len(data) if len(data) < SEARCHED else len(data) - len(MAGIC) + 1
        if data[:end].strip(b"\0"):
            yield None
        start += end


def mark_last(page: Page) -> bytes:
    """Return the bytes of a page marked as last. Of a truncated page, keep the complete packets and do not mark it."""
    lacing, payload = page.header[27 : 27 + page.header[26]], page.payload
    kind = page.kind | LAST
    if not page.complete:
        kept, size, packets = 0, 0, (0, 0)
        for value in lacing:
            kept, size = kept + 1, size + value
            if size > len(payload):
                break
            packets = (kept, size) if value < 255 else packets
        lacing, payload = lacing[: packets[0]], payload[: packets[1]]
        # With the mark, a decoder would trim to the page's time, which includes the lost packets.
        kind = page.kind & ~LAST
    header = page.header[:5] + bytes([kind]) + page.header[6:22] + bytes(4)
    body = bytes([len(lacing)]) + lacing + payload
    return header[:22] + checksum(header + body) + body


def read_packets(pages: Iterator[Page | None], count: int, most: int) -> tuple[list[bytes], Page]:
    """Return the first packets of the first stream in `pages`, and the page on which the last one ends.

    Raises:
        ValueError: if they are damaged or have more than `most` bytes.
    """
    packets, serial = [bytearray()], b""
    for page in pages:
        if page is None or not page.complete:
            break
        serial, at = serial or page.serial, 0
        for size in page.header[27:] if page.serial == serial else b"":
            packets[-1] += page.payload[at : at + size]
            packets += [bytearray()] * (size < 255)
            at += size
        if len(packets) > count:
            return [bytes(packet) for packet in packets[:count]], page
        if sum(map(len, packets)) > most:
            break
    raise ValueError("the packets are damaged or too large")


def replace_packet(file: BinaryIO, edit: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Yield the pages of a Vorbis or Opus file with another second packet, which contains the comments."""
    pages = find_pages(file)
    [first], head = read_packets(pages, 1, SEARCHED)
    yield head.header + head.payload
    count = 2 if first[1:7] == b"vorbis" else 1  # a third packet ends on the same page
    packets, last = read_packets(pages, count, SEARCHED)
    packets = [edit(packets[0]), *packets[1:]]
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    payload, at, number = b"".join(packets), 0, 1
    for start in range(0, len(lacing), 255):
        part = lacing[start : start + 255]
        kind = CONTINUED if start and lacing[start - 1] == 255 else 0
        time = b"\xff" * 8 if min(part) == 255 else bytes(8)
        page = MAGIC + bytes([0, kind]) + time + head.serial + number.to_bytes(4, "little") + bytes(4)
        page += bytes([len(part)]) + part + payload[at : at + sum(part)]
        yield page[:22] + checksum(page) + page[26:]
        at, number = at + sum(part), number + 1
    shift = number - 1 - last.number
    for each in pages:
        if each is not None:
            page = each.header[:18] + (each.number + shift).to_bytes(4, "little") + bytes(4) + each.header[26:]
            page += each.payload
            yield page[:22] + checksum(page) + page[26:]


def find_links(path: Path) -> list[Link]:
    """Return the recordings that an Ogg file consists of."""
    links: list[Link] = []
    last: dict[bytes, Page] = {}
    began = True
    with open(path, "rb") as file:
        for page in find_pages(file):
            if page is None:
                if links and any(not each.kind & LAST for each in last.values()):
                    links[-1].damaged = True
                continue
            first = bool(page.kind & FIRST)
            if first and began:
                _finish(links, last)
                links.append(Link())
                last, began = {}, False
            began |= not first
            if not links:  # the beginning is missing
                continue
            link, before = links[-1], last.get(page.serial)
            link.streams += first
            # A recording that began within a running stream has a large gap after the headers (time 0).
            gap = page.number - before.number - 1 if before else 0
            running = before is not None and before.header[6:14] == bytes(8) and gap > LARGEST_GAP
            link.damaged |= not page.complete or (gap != 0 and not running)
            last[page.serial] = page
            if link.spans and isinstance(span := link.spans[-1], tuple) and span[1] == page.start:
                link.spans[-1] = (span[0], page.end)
            else:
                link.spans.append((page.start, page.end))
    _finish(links, last)
    return links


def _finish(links: list[Link], last: dict[bytes, Page]) -> None:
    """Mark the last page of the last link."""
    if not links or not last:
        return
    link, page = links[-1], max(last.values(), key=lambda page: page.start)
    if link.streams > 1 or (page.complete and page.kind & LAST):
        return
    start = link.spans.pop()[0]
    link.spans += [(start, page.start), mark_last(page)] if page.start > start else [mark_last(page)]
