"""Forms of tags: ID3 (mp3, wav, aiff), Vorbis comments (flac, ogg, opus) and chunks of wav and aiff files, as bytes."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal

Order = Literal["little", "big"]
MAX_ENTRIES = 10_000
ATTACHED = 1 << 10  # disposition of a cover in FFmpeg

OLD = r"(?i)replaygain_.*|r128_.*|itunsmpb|itunnorm"
"""Names of tags that describe the level or the encoding of the old samples."""
OLD_TAGS = OLD + (
    r"|encoder.*|tool|major_brand|minor_version|compatible_brands|metadata_block_picture|coverart(mime)?"
    r"|waveformatextensible_channel_mask"
)
OLD_FRAMES = rb"(?is)TSSE|RVA[2D]|MLLT|ASPI|(?:TXXX|COMM).*(?:" + OLD[4:].encode() + rb")"
INFO = {
    "title": b"INAM", "artist": b"IART", "album": b"IPRD", "date": b"ICRD", "genre": b"IGNR", "comment": b"ICMT",
    "track": b"IPRT", "copyright": b"ICOP", "language": b"ILNG", "encoded_by": b"ITCH",
}  # fmt: skip
AIFF = {"title": b"NAME", "artist": b"AUTH", "comment": b"ANNO", "copyright": b"(c) "}
FRAMES = {
    "title": b"TIT2", "artist": b"TPE1", "album": b"TALB", "album_artist": b"TPE2", "date": b"TDRC", "genre": b"TCON",
    "track": b"TRCK", "disc": b"TPOS", "composer": b"TCOM", "performer": b"TPE3", "copyright": b"TCOP",
    "publisher": b"TPUB", "language": b"TLAN", "encoded_by": b"TENC", "comment": b"COMM", "lyrics": b"USLT",
}  # fmt: skip
VORBIS = {"album_artist": "albumartist", "track": "tracknumber", "disc": "discnumber"}
"""These tables have FFmpeg's names of tags on the left. In Vorbis comments, other names stay."""


def add_to_title(text: bytes, addition: str) -> bytes:
    """Append an addition in brackets to a title in UTF-8, or in the encoding of old Windows programs."""
    try:
        text.decode("utf-8")
        return text + f" ({addition})".encode()
    except UnicodeDecodeError:
        return text + f" ({addition})".encode("cp1252", "replace")


def join_chunk(name: bytes, body: bytes, order: Order = "little") -> bytes:
    """Return a chunk of a wav or aiff file."""
    return name + len(body).to_bytes(4, order) + body + bytes(len(body) % 2)


def retitle_info(body: bytes, addition: str) -> bytes:
    """Return the contents of an INFO list with an addition to the title; unchanged if its chunks do not fit."""
    parts, at = [body[:4]], 4
    while at + 8 <= len(body):
        name, end = body[at : at + 4], at + 8 + int.from_bytes(body[at + 4 : at + 8], "little")
        text = body[at + 8 : end]
        if name == b"INAM" and text.strip(b"\0"):
            text = add_to_title(text.rstrip(b"\0"), addition) + b"\0"
        parts.append(join_chunk(name, text))
        at = end + end % 2
    return b"".join(parts) if at >= len(body) == max(at - 1, len(body)) else body


def retitle_id3(tag: bytes, title: str | None) -> bytes | None:
    """Return an ID3 tag with another title and without what describes the old samples; None if it cannot be parsed."""
    if len(tag) < 10:
        return None
    version, flags, body = tag[3], tag[5], tag[10 : 10 + read_syncsafe(tag[6:10])]
    if version == 3 and flags & 0x80:
        body = body.replace(b"\xff\0", b"\xff")
    if flags & 0x40:  # an extended header
        body = body[read_syncsafe(body[:4]) if version == 4 else 4 + int.from_bytes(body[:4], "big") :]
    for plain in (version == 3, True) if version in (3, 4) else ():  # some programs write such sizes in version 4
        frames, at = [] if title is None else [join_frame("title", title, version)], 0
        while re.match(rb"[A-Z0-9]{4}", body[at : at + 4]) and len(frames) < MAX_ENTRIES:
            size = body[at + 4 : at + 8]
            end = at + 10 + (int.from_bytes(size, "big") if plain else read_syncsafe(size))
            frame, at = body[at:end], end
            if frame[:4] != b"TIT2" and not re.match(OLD_FRAMES, frame[:4] + frame[10:200].replace(b"\0", b"")):
                frames.append(frame)
        if at <= len(body) and not body[at : at + 10].strip(b"\0"):
            return join_id3(frames, bytes([version, 0, flags & 0x80 if version == 4 else 0]))
    return None


def measure_tag(data: bytes, at: int) -> int:
    """Return the size of the tag at a position; 0 if there is none."""
    head = data[at : at + 32]
    if head[:3] in (b"ID3", b"3DI") and len(head) >= 10 and head[3] < 5 and max(head[6:10]) < 128:
        size = functools.reduce(lambda total, byte: total << 7 | byte, head[6:10], 0)
        return 10 if head[:1] == b"3" else 10 + size + (10 if head[5] & 16 else 0)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return 32 + (int.from_bytes(head[12:16], "little") if head[23] & 32 else 0)
    if head[:3] == b"TAG":
        return 227 if head[:4] == b"TAG+" else 128
    if head[:11] == b"LYRICSBEGIN":
        end = max(data.find(word, at, at + (1 << 14)) for word in (b"LYRICS200", b"LYRICSEND"))
        return end + 9 - at if end > 0 else 0
    return 0


def skip_tags(file: BinaryIO, at: int) -> int:
    """Return the end of the tags at a position."""
    file.seek(at)
    while tag := measure_tag(file.read(32), 0):
        at += tag
        file.seek(at)
    return at


def join_id3(frames: Iterable[bytes], head: bytes = b"\4\0\0") -> bytes:
    """Return an ID3 tag with frames; `head` is its version and flags."""
    body = b"".join(frames)
    return b"ID3" + head + write_syncsafe(len(body)) + body


def join_frame(tag: str, text: str, version: int = 4) -> bytes:
    """Return the ID3 frame of a tag."""
    name = FRAMES.get(tag, b"TXXX")
    before = f"{tag}\0" if name == b"TXXX" else ""
    language, before = (b"eng", "\0") if name in (b"COMM", b"USLT") else (b"", before)
    if version == 3:
        body = b"\1" + (before + text).encode("utf-16", "replace")
    else:
        body = b"\3" + language + (before + text).encode("utf-8", "replace")
    return name + (len(body).to_bytes(4, "big") if version == 3 else write_syncsafe(len(body))) + b"\0\0" + body


def read_syncsafe(data: bytes) -> int:
    """Read a number with seven bits per byte."""
    return sum((byte & 127) << shift for byte, shift in zip(data, (21, 14, 7, 0), strict=False))


def write_syncsafe(number: int) -> bytes:
    """Write a number with seven bits per byte."""
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def picture_frame(picture: bytes) -> bytes:
    """Return the ID3 frame of a PICTURE block."""
    parts, at = [], 4
    for gap in (0, 0, 16):  # media type, description; data after four numbers
        at += gap
        end = at + 4 + int.from_bytes(picture[at : at + 4], "big")
        parts.append(picture[at + 4 : end])
        at = end
    body = b"\3" + parts[0] + b"\0" + picture[3:4] + parts[1].replace(b"\0", b"") + b"\0" + parts[2]
    return b"APIC" + write_syncsafe(len(body)) + b"\0\0" + body


def split_comments(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the vendor and the entries of Vorbis comments, as far as they are whole."""
    texts: list[bytes] = []
    at = 0
    while at + 4 <= len(data) and len(texts) < MAX_ENTRIES:
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            break
        texts.append(data[at + 4 : end])
        at = end + 4 * (len(texts) == 1)  # the number of entries
    return (texts or [b""])[0], [text for text in texts[1:] if b"=" in text]


def join_comments(vendor: bytes, entries: list[bytes]) -> bytes:
    """Return Vorbis comments."""
    texts = [struct.pack("<I", len(text)) + text for text in (vendor, *entries)]
    return texts[0] + struct.pack("<I", len(entries)) + b"".join(texts[1:])


def flac_blocks(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield kind and length of each metadata block of a flac file, which is at the block's contents then."""
    last = False
    while not last and len(head := file.read(4)) == 4:
        end, last = file.tell() + int.from_bytes(head[1:], "big"), head[0] >= 128
        yield head[0] & 127, int.from_bytes(head[1:], "big")
        file.seek(end)


def comment_start(packet: bytes) -> int:
    """Return how many bytes are in front of the comments in a packet of Vorbis, Opus or flac."""
    return 7 if packet[:7] == b"\3vorbis" else 8 if packet[:8] == b"OpusTags" else 4
