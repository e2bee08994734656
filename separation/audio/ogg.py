"""Pages of Ogg files: finds joined recordings and damage, and repairs what a decoder gets."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

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
